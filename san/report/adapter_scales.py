"""The scales that SAN learned, from the file of an adapter, without torch."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors

from san.errors import AdapterFileError
from san.report.figures.scales import SiteScales
from san.runtime.files import read_bytes

_SUFFIX = ".scale"
# A scale that a site alone reads: the one before it has none of its own, or they are not tied.
_INPUT_SUFFIX = ".pre"
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
# Parts of module names of timm in the order of computation, among those that have one parent.
_ORDER = (
    *("patch_embed", "stem", "downsample", "layers", "stages", "norm_pre", "blocks"),
    *("conv_dw", "norm1", "attn", "qkv", "q_norm", "k_norm", "proj", "norm2"),
    *("fc1", "norm", "mlp", "fc2", "reduction", "fc_norm"),
)


def read_scales(path: Path) -> list[SiteScales]:
    """Return the learned scales of each site, in the order of computation.

    A file holds its tensors in another order, and no model is at hand here. Of `san_recalibrated`
    these are s, not the trained factors r of the inputs. Raises AdapterFileError where the file is
    no safetensors or holds no scales, FileAccessError and MissingFileError where it cannot be read.
    """
    try:
        tensors = safetensors.deserialize(read_bytes(path))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise AdapterFileError(f"{path} cannot be read as an adapter: {error}") from error
    found = []
    for name, tensor in tensors:
        if name.endswith(_SUFFIX):
            site = name.removesuffix(_SUFFIX)
            scales = _to_array(bytes(tensor["data"]), tensor["dtype"], path)
            found.append(SiteScales(_name_inputs(site), scales))
    if not found:
        raise AdapterFileError(
            f"{path} holds no scales; the adapter of a method that learns some (san, ssf) is "
            "allowed."
        )
    return sorted(found, key=lambda one: _order_key(one.site))


def _name_inputs(site: str) -> str:
    """Say of a scale that a site reads that it is of its inputs."""
    return site.removesuffix(_INPUT_SUFFIX) + (" (inputs)" if site.endswith(_INPUT_SUFFIX) else "")


def _to_array(data: bytes, dtype: str, path: Path) -> npt.NDArray[np.floating]:
    """Return the numbers of a tensor, flat; bfloat16, which numpy lacks, as float32."""
    if dtype == "BF16":
        upper_half = np.frombuffer(data, "<u2").astype("<u4")
        return (upper_half << 16).view("<f4")
    if dtype not in _DTYPES:
        raise AdapterFileError(
            f"{path} has scales of type {dtype}; {', '.join(_DTYPES)} and BF16 are allowed."
        )
    return np.frombuffer(data, _DTYPES[dtype])


def _order_key(site: str) -> list[tuple[int, int]]:
    """Return what sorts the sites of a backbone by the order of computation."""
    key = []
    for part in re.split(r"[. ]", site):
        number = int(part) if part.isdigit() else 0
        key.append((_ORDER.index(part) if part in _ORDER else len(_ORDER), number))
    return key
