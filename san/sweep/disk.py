"""How much disk the runs that are left will take."""

import json
from collections.abc import Sequence
from functools import cache

import torch

from san.adapter.attach import attach_for_good
from san.backbones import build_backbone, classifier_name
from san.runtime.formatting import count_of, format_bytes
from san.sweep.plan import PlannedRun, RunStatus

RECORD_BYTES = 130_000  # of a record, its answers and wandb's files: 5 to 81 kB and 50 kB
FLOAT32_BYTES = 4
CHECKPOINT_COPIES = 2  # a new checkpoint is complete before the old one is deleted
OPTIMIZER_COPIES = {"adamw": 3, "sgd": 2}  # of the trainable parameters, in a checkpoint


def disk_estimate(statuses: Sequence[RunStatus], jobs: int) -> str:
    """Return one line: the disk that the runs that are left will take at most.

    It counts records with wandb's files; adapters, if they are saved; a checkpoint of each of
    `jobs` concurrent runs; and the packed images of tasks that are not prepared, without what
    preparing them takes meanwhile.
    """
    runs = [status.run for status in statuses if status.is_left]
    adapter_bytes = 0
    largest_checkpoint = 0
    for run in runs:
        trainable_bytes = FLOAT32_BYTES * trainable_parameters(run)
        if run.options.save_adapter:
            adapter_bytes += trainable_bytes
        checkpoint_bytes = OPTIMIZER_COPIES[run.optimizer] * trainable_bytes
        largest_checkpoint = max(largest_checkpoint, checkpoint_bytes)
    image_bytes = {run.task_name: run.bytes_needed for run in runs if run.bytes_needed}
    concurrent_runs = count_of(jobs, "concurrent run")
    parts = {
        "records": RECORD_BYTES * len(runs),
        "adapters": adapter_bytes,
        f"checkpoints of {concurrent_runs}": CHECKPOINT_COPIES * jobs * largest_checkpoint,
        f"images of {len(image_bytes)} tasks to prepare": sum(image_bytes.values()),
    }
    total = format_bytes(sum(parts.values()))
    details = [f"{format_bytes(count)} {name}" for name, count in parts.items() if count]
    if not details:
        return f"disk needed: at most {total}"
    return f"disk needed: at most {total} ({', '.join(details)})"


def trainable_parameters(run: PlannedRun) -> int:
    """Return how many parameters a run trains; runs of the same model and method share the work."""
    one_class, a_class = _count_trainable(
        run.backbone.timm_name,
        json.dumps(dict(run.backbone.kwargs), sort_keys=True),
        run.method,
        json.dumps(dict(run.method_options), sort_keys=True),
    )
    return one_class + (len(run.task.classes) - 1) * a_class


@cache
def _count_trainable(timm_name: str, kwargs: str, method: str, options: str) -> tuple[int, int]:
    """Return how many parameters a method trains for one class, and for each further one.

    kwargs, options: as JSON, which the cache can compare. It is attached to a model without
    weights, which needs no memory.
    """
    with torch.device("meta"):
        model = build_backbone(timm_name, 1, "random", None, json.loads(kwargs)).model
        adapter = attach_for_good(model, method, **json.loads(options))
    classifier = model.get_submodule(classifier_name(model))
    a_class = sum(parameter.numel() for parameter in classifier.parameters())
    return adapter.counts.trainable, a_class
