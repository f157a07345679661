"""How an adapter is used without the run that trained it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from san.data.augment import MeanStd
from san.data.preprocess import Preprocess
from san.errors import InvalidValueError
from san.schema import check_fields, from_mapping

_Side = Annotated[int, Meta(ge=1, le=4096)]  # of a file that may be anybody's: no model takes more


@dataclass(frozen=True)
class Usage:
    """The classes of an adapter, its backbone, and how images become the model's input.

    classes: their names in the order of the logits. timm_name, kwargs, weights: of the backbone,
    as in a configuration; weights: `timm`, or a file. image_size: in pixels. resize, normalize: as
    `data.resize` and `data.normalize`. precision: `fp32` or `bf16`, in which it was evaluated.
    """

    classes: tuple[str, ...]
    timm_name: str
    image_size: _Side
    resize: str
    normalize: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str = "timm"
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.preprocess  # which checks resize and normalize

    @property
    def preprocess(self) -> Preprocess:
        """Geometry and scale of the input."""
        return Preprocess(self.resize, self.normalize)

    @property
    def mean_std(self) -> MeanStd:
        """Mean and standard deviation per channel of RGB in [0, 1]."""
        return self.preprocess.mean_std

    def check_classes(self, logits: int) -> None:
        """Raise InvalidValueError unless there are as many classes as logits."""
        if len(self.classes) != logits:
            raise InvalidValueError(
                f"usage.classes names {len(self.classes)} classes; the model has {logits} logits."
            )

    def facts(self) -> dict[str, Any]:
        """Return what a file says of it: the fields, and the numbers that `normalize` stands for.

        Other programs than this one need these.
        """
        mean, std = self.mean_std
        return {**asdict(self), "mean": mean, "std": std}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Usage":
        """Return what `facts` returned; raise SanError where it is something else."""
        own = {name: value for name, value in facts.items() if name not in ("mean", "std")}
        usage = from_mapping(cls, own, "usage")
        said = [tuple(facts.get(name) or ()) for name in ("mean", "std")]
        if said != [tuple(numbers) for numbers in usage.mean_std]:
            raise InvalidValueError(
                f"normalize is {usage.normalize}, and mean and std are {said}; "
                f"here it means {usage.mean_std}."
            )
        return usage
