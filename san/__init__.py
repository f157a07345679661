"""SAN and its rivals: parameter-efficient fine-tuning of vision models, compared on equal terms.

import san
adapter = san.attach(model, "ssf")     # a timm ViT, Swin or ConvNeXt, in place
predictor = san.load("adapter.safetensors")     # what a run with save_adapter=true wrote
"""

import importlib
from typing import TYPE_CHECKING, Any

from san.version import __version__

if TYPE_CHECKING:
    from san.adapter.attach import Adapter, attach
    from san.adapter.restore import restore
    from san.adapter.usage import Usage
    from san.predict.predictor import Predictor, load

__all__ = ["Adapter", "Predictor", "Usage", "__version__", "attach", "load", "restore"]

_MODULES = {
    "Adapter": "san.adapter.attach",
    "Predictor": "san.predict.predictor",
    "Usage": "san.adapter.usage",
    "attach": "san.adapter.attach",
    "load": "san.predict.predictor",
    "restore": "san.adapter.restore",
}


def __getattr__(name: str) -> Any:
    """Import methods, and torch with them, when first asked for; tables and --help need neither."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'san' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Name what there is, also before it is imported."""
    return sorted({*globals(), *__all__})
