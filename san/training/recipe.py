"""How a run trains: its hyper-parameters, checked."""

from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal

from msgspec import Meta

from san.errors import InvalidValueError
from san.schema import (
    DropoutRate,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
)
from san.training.schedule import COSINE, Schedule

BelowOne = Annotated[float, Meta(ge=0, lt=1)]
Decay = Annotated[float, Meta(gt=0, lt=1)]
PositiveShare = Annotated[float, Meta(gt=0, le=1)]
DecayOn = Literal["matrices", "timm", "all", "all_but_biases", "all_but_head_bias"]
HeadInit = Literal["timm", "torch", "zero", "vpt"]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a run. lr is the peak value.

    epochs: passes over the training split, but for those of the schedule's cooldown.
    warmup_epochs: of linear rise. weight_decay: on the tensors that weight_decay_on says.
    momentum: of sgd. betas: of adamw. drop_path: rate of stochastic depth; None: as timm builds
    the backbone. clip_grad: the largest global norm of the gradients. ema_decay: of the moving
    average of the weights, which is evaluated in their place. layer_decay: of the learning rate,
    from the head to the stem. head_lr: the peak of the head, where that is not lr.
    drop_last: leave out an incomplete last batch. eval_batch_size: images that are scored at once.
    head_init: how the classifier begins.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    optimizer: Literal["adamw", "sgd"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    momentum: BelowOne
    warmup_epochs: NonNegativeInt
    label_smoothing: BelowOne
    precision: Literal["fp32", "bf16"]
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    drop_path: DropoutRate | None = None
    clip_grad: PositiveFloat | None = None
    ema_decay: Decay | None = None
    layer_decay: PositiveShare | None = None
    head_lr: PositiveFloat | None = None
    weight_decay_on: DecayOn = "matrices"
    drop_last: bool = False
    eval_batch_size: PositiveInt = 256
    head_init: HeadInit = "timm"
    schedule: Schedule = COSINE

    def __post_init__(self) -> None:
        check_fields(self)
        for name, peak in (("lr", self.lr), ("head_lr", self.head_lr)):
            if peak is not None:
                self._check_peak(name, peak)

    @property
    def total_epochs(self) -> int:
        """The epochs that are trained."""
        return self.epochs + self.schedule.cooldown_epochs

    @property
    def facts(self) -> dict[str, Any]:
        """What defines a run. A setting that came later is left out where it has its default."""
        values = _changed(self)
        if self.schedule != COSINE:
            values["schedule"] = _changed(self.schedule)
        return values

    def _check_peak(self, name: str, peak: float) -> None:
        """Raise InvalidValueError where the rate would not rise to its peak and fall again."""
        for key, rate in (
            ("warmup_start", self.schedule.first(peak)),
            ("min_lr", self.schedule.lowest(peak)),
        ):
            if rate is not None and rate > peak:
                raise InvalidValueError(
                    f"schedule.{key} came as {rate:g}, above {name}, which is {peak:g}; "
                    f"allowed: at most the peak. Give another schedule or {name}."
                )


def _changed(settings: Recipe | Schedule) -> dict[str, Any]:
    """Return the fields of a dataclass that have no default, or another value."""
    changed = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.default is MISSING or value != field.default:
            changed[field.name] = value
    return changed
