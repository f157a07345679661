"""SAN and its rivals: parameter-efficient fine-tuning of vision models, compared on equal terms.

import san
adapter = san.attach(model, "ssf")     # any stock timm ViT, in place
"""

from san.methods import Adapter, attach

__version__ = "0.1.0"
__all__ = ["Adapter", "attach"]
