"""Whether torch computes the same bits each time."""

import logging
import os

import torch

log = logging.getLogger(__name__)
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED = ":4096:8"  # one of the two values with which cuBLAS is deterministic


def set_deterministic(wanted: bool) -> None:
    """Use deterministic algorithms alone, or any, from now on in this process.

    Where torch has no deterministic algorithm it raises a RuntimeError. Call it before anything is
    computed on a GPU: cuBLAS chooses its workspace once in a process.
    """
    if wanted and os.environ.get(_WORKSPACE) is None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            log.warning("This process has used its GPU: matrix products may keep varying.")
        os.environ[_WORKSPACE] = _FIXED
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = False
