"""An experiment: everything that defines one run, checked and typed, with its identity."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta

from san import record, record_file, settings
from san.backbones import Backbone, file_sha256
from san.config_keys import RECIPE_KEYS, check_keys, check_recipe
from san.data import task_data
from san.data.augment import Augment
from san.data.packed_task import PackedTask
from san.data.preprocess import NORMALIZE, Preprocess
from san.data.split import Split, join_distinct
from san.errors import InvalidValueError, MissingFileError, choose
from san.methods import check_compatible, check_options, required_packages
from san.record import DataSource, Record, Status
from san.renamed_keys import schema_1_config, schema_1_options
from san.run_options import RunOptions
from san.runtime import environment
from san.runtime.device import describe_device, pick_device
from san.runtime.paths import expand_path, printable_path
from san.runtime.timestamps import utc_now
from san.schema import NonNegativeInt, check_fields, check_value, from_mapping
from san.settings import Base
from san.tasks import Suite, Task
from san.training.loop import REVISION
from san.training.recipe import Recipe
from san.training.schedule import Schedule

Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
OpenTask = Callable[[Suite, Task, Path, str, int], PackedTask]


@dataclass(frozen=True)
class EvalProtocol:
    """Which splits train and are evaluated, and where the epoch is chosen.

    selected_on: `last`, or the evaluated split. eval_every: epochs; 0: after the last one only.
    """

    name: str
    train: str
    evaluate: str
    selected_on: str
    eval_every: NonNegativeInt

    def __post_init__(self) -> None:
        check_fields(self, "protocol.")
        choose(self.selected_on, ("last", self.evaluate), "protocol.selected_on")


@dataclass(frozen=True)
class Experiment:
    """One run. `config` is the resolved configuration it came from, for the record alone.

    adapter_path: a saved adapter to evaluate; then nothing is trained, and `train` is None.
    validation: a val split that is neither trained on nor evaluated, for the record alone.
    variant: in what it departs from the default of its cell of a table, by value (`san.settings`).
    """

    suite: Suite
    task: Task
    train: Split | None
    evaluate: Split
    validation: Split | None
    backbone: Backbone
    preprocess: Preprocess
    image_size: int
    augment: Augment
    adapter_path: Path | None
    num_workers: int
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
        return [self.evaluate] if self.train is None else [self.train, self.evaluate]

    @property
    def display_name(self) -> str:
        """What a person calls this run."""
        return f"{self.suite.name}/{self.name_in_suite}"

    @property
    def name_in_suite(self) -> str:
        """What a person calls this run among those of its suite: `cifar san [lr=0.1] seed 0`."""
        extra = f" [{settings.shorten_variant(self.variant)}]" if self.variant else ""
        return f"{self.task.name} {self.method}{extra} seed {self.seed}"

    @cached_property
    def identity(self) -> str:
        """A hash of everything that may change the number, and of nothing that may not.

        Its keys are those of record schema 1, whatever the settings are called by now.
        """
        return record.hash_identity({**self._facts, "seed": self.seed})

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What the identity is of, but for the seed."""
        protocol = schema_1_config(asdict(self.protocol), "protocol.")
        del protocol["name"]
        # Not converted to float: the identity hashes the values as the user gave them.
        augment = asdict(self.augment) | self.config["augment"]
        del augment["name"]
        backbone = self.backbone
        return {
            "task": [self.suite.name, self.task.name],
            "data": [split.fingerprint for split in self.splits],
            "restore": file_sha256(self.adapter_path) if self.adapter_path else None,
            "preprocess": schema_1_config(asdict(self.preprocess), "data."),
            "augment": schema_1_config(augment, "augment."),
            "backbone": [backbone.timm_name, dict(backbone.kwargs), backbone.weights_key],
            "method": [self.method, schema_1_options(self.method, self.options)],
            "recipe": schema_1_config(self.recipe.facts),
            "protocol": protocol,
            "revision": REVISION,
        }

    def with_seed(self, seed: int) -> "Experiment":
        """Return this experiment with another seed, at little cost; see `from_config`."""
        check_value(seed, Seed, "seed")
        other = replace(self, seed=seed, config={**self.config, "seed": seed})
        vars(other)["_facts"] = self._facts  # the same, and slow to collect
        return other

    def record_path(self, results_dir: Path) -> Path:
        """Return where this run's record is or will be."""
        return record_file.record_path(
            results_dir / "records",
            self.suite.name,
            self.method,
            self.task.name,
            self.seed,
            self.identity,
        )

    def record(self, status: Status, weights: str, **outcome: Any) -> Record:
        """Return this run's record. outcome: the fields that only the finished run knows."""
        return Record(
            id=self.identity,
            suite=self.suite.name,
            task=self.task.name,
            method=self.method,
            backbone=self.backbone.name,
            protocol=self.protocol.name,
            variant=self.variant,
            seed=self.seed,
            selected_on=self.protocol.selected_on,
            evaluated_on=self.protocol.evaluate,
            status=status,
            config=schema_1_config(self.config),
            weights=weights,
            data=self._data_source(),
            code=environment.git_state(),
            versions=environment.package_versions(required_packages(self.method)),
            device=describe_device(self.device),
            host=environment.host_name(),
            created=utc_now(),
            **outcome,
        )

    def _data_source(self) -> DataSource:
        problems = [problem for split in self.splits for problem in split.problems]
        return DataSource(
            train=self.train.fingerprint if self.train else "",
            evaluate=self.evaluate.fingerprint,
            source=join_distinct(split.source for split in self.splits),
            kind=join_distinct(split.source_kind for split in self.splits),
            forced=join_distinct(problems),
        )


def from_config(
    config: dict[str, Any],
    base: Base | None = None,
    open_task: OpenTask = task_data.open_task,
) -> Experiment:
    """Check a resolved configuration and open the data that it names.

    base: what it is compared with; None: it is the default itself.
    open_task: task_data.open_task, or one that remembers which tasks it has opened.
    Raises a SanError that says what came and what is allowed.
    """
    _check_options(config)
    check_recipe(config)
    backbone = Backbone.from_config(config["backbone"])
    method, options = _method_of(config, backbone)
    device = pick_device(config["device"])
    recipe = _recipe_of(config, device)
    backbone.with_drop_path(recipe.drop_path).check_kwargs()
    protocol = from_mapping(EvalProtocol, config["protocol"], "protocol")
    suite, task = task_data.task_of(config["data"])
    preprocess = _preprocess_of(config["data"], backbone)
    base = base or Base(config)
    config = _with_resolved(config, base, recipe, preprocess, backbone, task)
    adapter_path = _resolve_adapter_path(config["adapter_checkpoint"], task)
    wanted = _wanted_splits(protocol, task, adapter_path)
    packed = open_task(
        suite, task, Path(config["data_root"]), preprocess.resize, backbone.image_size
    )
    splits = _usable_splits(packed, wanted, config)
    return Experiment(
        suite=suite,
        task=task,
        train=None if adapter_path else splits[0],
        evaluate=splits[-1],
        validation=None if adapter_path else task_data.unused_val(packed, wanted, splits),
        backbone=backbone,
        preprocess=preprocess,
        image_size=backbone.image_size,
        augment=_augment_of(config["augment"]),
        adapter_path=adapter_path,
        num_workers=config["num_workers"],
        method=method,
        options=options,
        recipe=recipe,
        protocol=protocol,
        seed=config["seed"],
        device=device,
        variant=settings.join_overrides(settings.departures(config, base)),
        config=config,
    )


def _wanted_splits(protocol: EvalProtocol, task: Task, adapter_path: Path | None) -> list[str]:
    """Return the names of the splits that a run reads; raise UnknownNameError on an unknown one."""
    wanted = [protocol.evaluate] if adapter_path else [protocol.train, protocol.evaluate]
    for split in wanted:
        task.parts(split)  # before missing data is
    return wanted


def _usable_splits(packed: PackedTask, names: list[str], config: Mapping[str, Any]) -> list[Split]:
    force = config["allow_unverified_data"]
    return [task_data.usable_split(packed, name, force) for name in names]


def _check_options(config: Mapping[str, Any]) -> None:
    """Check what says how a run is carried out, before any data is read."""
    check_keys(config)
    check_value(config["seed"], Seed, "seed")
    check_value(config["num_workers"], NonNegativeInt, "num_workers")
    check_value(config["data_root"], str, "data_root")
    check_value(config["adapter_checkpoint"], str | None, "adapter_checkpoint")
    check_value(config["allow_unverified_data"], bool, "allow_unverified_data")
    RunOptions.from_config(config)


def _method_of(config: Mapping[str, Any], backbone: Backbone) -> tuple[str, dict[str, Any]]:
    given = dict(config["method"])
    name = given.pop("name")
    options = check_options(name, given, backbone.family)
    check_compatible(name, options, backbone.family)
    return name, options


def _augment_of(group: Mapping[str, Any]) -> Augment:
    return from_mapping(Augment, {k: v for k, v in group.items() if k != "name"}, "augment")


def _recipe_of(config: Mapping[str, Any], device: torch.device) -> Recipe:
    """Return the recipe; the precision `auto` is bf16 on a GPU, else fp32."""
    for name in RECIPE_KEYS:
        if name not in config:
            raise InvalidValueError(f"The configuration has no `{name}`; it is required.")
    values = {name: config[name] for name in RECIPE_KEYS}
    if values["precision"] == "auto":
        values["precision"] = "bf16" if device.type == "cuda" else "fp32"
    schedule = from_mapping(Schedule, config["schedule"], "schedule")
    return Recipe(**values, schedule=schedule)


def _preprocess_of(data: Mapping[str, Any], backbone: Backbone) -> Preprocess:
    """Return resizing and normalization; `timm`: that which the weights were pre-trained with."""
    if data["normalize"] != "timm":
        return Preprocess(data["resize"], data["normalize"])
    mean_std = backbone.normalization
    for name, known in NORMALIZE.items():
        if known == mean_std:
            return Preprocess(data["resize"], name)
    raise InvalidValueError(
        f"{backbone.timm_name} has mean and std {mean_std}; "
        f"name one with data.normalize=... ({', '.join(NORMALIZE)})."
    )


def _with_resolved(
    config: dict[str, Any],
    base: Base,
    recipe: Recipe,
    preprocess: Preprocess,
    backbone: Backbone,
    task: Task,
) -> dict[str, Any]:
    """Return the configuration with the values that `auto`, `timm` and a null task stood for.

    The pre-training's normalization stays `timm` where that is the default: it is no departure.
    """
    normalize = preprocess.normalize
    usual = base.config["data"]["normalize"]
    if usual == "timm" and _is_pretrainings(normalize, backbone):
        normalize = "timm"
    data = {**config["data"], "task": task.name, "normalize": normalize}
    if task.root is not None:
        data["root"] = printable_path(task.root)
    return {**config, "data": data, "precision": recipe.precision}


def _is_pretrainings(normalize: str, backbone: Backbone) -> bool:
    """Return whether a key of NORMALIZE is what the weights tag was pre-trained with."""
    try:
        return NORMALIZE[normalize] == backbone.normalization
    except InvalidValueError:  # timm does not say
        return False


def _resolve_adapter_path(path: str | None, task: Task) -> Path | None:
    """Return the adapter that is to be tested, if any.

    Raises InvalidValueError where the task needs one, MissingFileError where it is not there.
    """
    if path is None:
        if "train" not in task.splits:
            raise InvalidValueError(
                f"{task.suite}/{task.name} has no training images: give adapter_checkpoint=FILE, "
                f"the adapter that a run of {task.trained_on} saved with save_adapter=true."
            )
        return None
    if not expand_path(path).is_file():
        raise MissingFileError(
            f"adapter_checkpoint={path} is not a file. "
            "A run with save_adapter=true writes one beside its record."
        )
    return expand_path(path)
