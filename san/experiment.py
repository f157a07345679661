"""An experiment: everything that defines one run, checked and typed, with its identity."""

import datetime
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from san import backbones, record
from san.data import task_data
from san.data.augment import Augment
from san.data.batches import NORMALIZE, Preprocess
from san.data.split import Split
from san.errors import choose
from san.methods import check_compatible, check_options
from san.record import Record
from san.runtime import environment
from san.runtime.device import describe_device, pick_device
from san.tasks import Suite, Task, load_suite
from san.training.loop import REVISION
from san.training.recipe import Recipe


@dataclass(frozen=True)
class EvalProtocol:
    """Which splits train and are evaluated, how often (epochs; 0: at the end only), and where the epoch is chosen."""

    name: str
    train: str
    evaluate: str
    selected_on: str
    every: int

    def __post_init__(self) -> None:
        choose(self.selected_on, ("last", self.evaluate), "protocol.selected_on")
        if not isinstance(self.every, int) or self.every < 0:
            raise ValueError(
                f"protocol.every came as {self.every!r}; allowed: 0 (after the last epoch only) or more."
            )


@dataclass(frozen=True)
class Experiment:
    """One run. `config` is the resolved configuration it came from, for the record alone.

    restore: a saved adapter to evaluate; then nothing is trained, and `train` is None.
    """

    suite: Suite
    task: Task
    train: Split | None
    evaluate: Split
    backbone: Mapping[str, Any]
    preprocess: Preprocess
    side: int
    augment: Augment
    restore: Path | None
    workers: int
    method: str
    options: Mapping[str, Any]
    recipe: Recipe
    protocol: EvalProtocol
    seed: int
    device: torch.device
    variant: str
    config: dict[str, Any]

    @property
    def splits(self) -> list[Split]:
        """The data that the run reads: train, unless a saved adapter is evaluated, and evaluate."""
        return [s for s in (self.train, self.evaluate) if s is not None]

    @property
    def title(self) -> str:
        """What a person calls this run."""
        extra = f" [{self.variant}]" if self.variant else ""
        return f"{self.suite.name}/{self.task.name} {self.method}{extra} seed {self.seed}"

    @cached_property
    def identity(self) -> str:
        """A hash of everything that may change the number, and of nothing that may not."""
        b, protocol = self.backbone, asdict(self.protocol)
        del protocol["name"]
        return record.hash_identity(
            {
                "task": [self.suite.name, self.task.name],
                "data": [s.fingerprint for s in self.splits],
                "restore": backbones.file_sha256(self.restore) if self.restore else None,
                "preprocess": asdict(self.preprocess),
                "augment": asdict(self.augment),
                "backbone": [
                    b["timm"],
                    b["arguments"],
                    backbones.weights_key(b["timm"], b["weights"]),
                ],
                "method": [self.method, dict(self.options)],
                "recipe": asdict(self.recipe),
                "protocol": protocol,
                "revision": REVISION,
                "seed": self.seed,
            }
        )

    def record_path(self) -> Path:
        """Return where this run's record is or will be."""
        folder = Path(self.config["results"]) / "records"
        return record.record_path(
            folder, self.suite.name, self.method, self.task.name, self.seed, self.identity
        )

    def record(self, status: str, weights: str, **outcome: Any) -> Record:
        """Return this run's record with its outcome."""
        return Record(
            id=self.identity,
            suite=self.suite.name,
            task=self.task.name,
            method=self.method,
            backbone=self.backbone["name"],
            protocol=self.protocol.name,
            variant=self.variant,
            seed=self.seed,
            selected_on=self.protocol.selected_on,
            evaluated_on=self.protocol.evaluate,
            status=status,
            config=self.config,
            weights=weights,
            data={
                "train": self.train.fingerprint if self.train else "",
                "evaluate": self.evaluate.fingerprint,
                "source": "; ".join(dict.fromkeys(s.made_by for s in self.splits)),
                "kind": "; ".join(dict.fromkeys(s.kind for s in self.splits)),
                "forced": "; ".join(
                    dict.fromkeys(problem for s in self.splits for problem in s.problems)
                ),
            },
            code=environment.git_state(),
            versions=environment.package_versions(),
            device=describe_device(self.device),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **outcome,
        )


def variant_of(overrides: Sequence[str], recipe: Recipe, config: Mapping[str, Any]) -> str:
    """Return in words the overrides that depart from the recipe; those that repeat it are left out."""
    usual = dict(config["recipe"])
    usual["lr"] = usual["lr"].get(config["method"]["name"], usual["lr"]["other"])
    same = {key for key, value in usual.items() if getattr(recipe, key, None) == value}
    words = [
        "restored" if o.startswith("restore=") else o for o in overrides
    ]  # which file, the identity knows
    return shlex.join(sorted(o for o in words if o.lstrip("+~").split("=")[0] not in same))


def resolve_normalization(wanted: str, backbone: str) -> str:
    """Return the name of a normalisation, where `timm` means the one that the weights tag was pre-trained with."""
    if wanted != "timm":
        return wanted
    statistics = backbones.pretrained_normalization(backbone)
    found = next((name for name, values in NORMALIZE.items() if values == statistics), None)
    if found is None:
        known = ", ".join(NORMALIZE)
        raise ValueError(
            f"{backbone} has mean and std {statistics}; name one with data.normalise=... ({known})."
        )
    return found


def resolve_adapter_path(path: str | None, task: Task) -> Path | None:
    """Return the adapter that is to be tested, if any; raise where the task needs one, or it is not there."""
    if path is None and "train" not in task.splits:
        raise ValueError(
            f"{task.suite}/{task.name} has no training images: give restore=FILE, the adapter that a run of "
            f"{task.trained_on} kept with save_adapter=true."
        )
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(
            f"restore={path} is no file. A run with save_adapter=true keeps one beside its record."
        )
    return None if path is None else Path(path)


def from_config(
    config: dict[str, Any],
    overrides: Sequence[str],
    load: Callable[..., Split] = task_data.load_split,
) -> Experiment:
    """Check a resolved configuration (plain dicts) and read the data that it names.

    overrides: the settings given by hand, as `key=value`, that may make this a variant of its method. load: data.load,
    or what remembers what it has loaded.
    Raises LookupError or ValueError that says what came and what is allowed.
    """
    seed, method = config["seed"], dict(config["method"])
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed came as {seed!r}; allowed: 0, 1, 2 ...")
    limit = config["max_hours"]
    if limit is not None and not (isinstance(limit, int | float) and limit > 0):
        raise ValueError(f"max_hours came as {limit!r}; allowed: null or a positive number.")
    name = method.pop("name")
    options, backbone = check_options(name, method), config["backbone"]
    check_compatible(name, options, backbones.family_of_name(backbone["timm"]))
    device = pick_device(config["device"])
    precision = {"auto": "bf16" if device.type == "cuda" else "fp32"}.get(
        config["precision"], config["precision"]
    )
    recipe = Recipe(**{f.name: config[f.name] for f in fields(Recipe)} | {"precision": precision})
    protocol = EvalProtocol(**config["protocol"])
    chosen = config["data"]
    suite = (
        load_suite(chosen["suite"])
        if chosen["suite"] != task_data.CUSTOM
        else task_data.folder_suite(chosen["root"])
    )
    task = suite.task(chosen["task"] or next(iter(suite.tasks)))
    preprocess = Preprocess(
        config["data"]["resize"],
        resolve_normalization(config["data"]["normalise"], backbone["timm"]),
    )
    side = backbones.input_size_of_name(backbone["timm"], backbone["arguments"])
    place = (Path(config["data_root"]), preprocess.resize, side, config["force_data"])
    restore = resolve_adapter_path(config["restore"], task)
    return Experiment(
        suite=suite,
        task=task,
        train=None if restore else load(suite, task, protocol.train, *place),
        evaluate=load(suite, task, protocol.evaluate, *place),
        backbone=backbone,
        preprocess=preprocess,
        side=side,
        restore=restore,
        workers=config["workers"],
        augment=Augment(**{f.name: config["augment"][f.name] for f in fields(Augment)}),
        method=name,
        options=options,
        recipe=recipe,
        protocol=protocol,
        seed=seed,
        device=device,
        variant=variant_of(overrides, recipe, config),
        config=config | {"precision": precision},
    )
