"""SAN and its rivals: parameter-efficient fine-tuning of vision models, compared on equal terms.

import san
adapter = san.attach(model, "ssf")     # a timm ViT, Swin or ConvNeXt, in place
"""

from typing import TYPE_CHECKING, Any

from san.version import __version__

if TYPE_CHECKING:
    from san.adapter import Adapter, attach, restore

__all__ = ["Adapter", "__version__", "attach", "restore"]


def __getattr__(name: str) -> Any:
    """Import methods, and torch with them, when first asked for; tables and --help need neither."""
    if name in __all__:
        from san import adapter  # noqa: PLC0415

        return getattr(adapter, name)
    raise AttributeError(f"module 'san' has no attribute '{name}'")
