"""Zip archives, read in place: nothing is unpacked, so none can write outside of its folder."""

import zipfile
from pathlib import Path

from san.errors import DataError, SanError
from san.runtime.files import MAX_BYTES, check_regular
from san.runtime.formatting import format_bytes

# Of a member's name. A path of 32 folders costs as much memory again for each of them.
MAX_LENGTH = 1024
MAX_DEPTH = 32
# Of these zipfile unpacks all that it has read, whatever that becomes.
UNBOUNDED = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
STEP_BYTES = 4096


def open_archive(path: Path) -> zipfile.Path:
    """Return the inside of a zip archive.

    Raises DataError where it is not a complete one, or a member has a name that no honest archive
    has: absolute, with `..` or with empty folders, on which zipfile.Path may loop for ever.
    """
    try:
        check_regular(path)
        archive = zipfile.ZipFile(path)
    except SanError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # whatever zipfile stumbles on in a damaged directory
        raise DataError(
            f"{path} is not a directory and not a complete zip file ({error}). Fetch it again."
        ) from error
    for name in archive.namelist():
        if not _is_honest(name):
            archive.close()
            raise DataError(
                f"{path} has a member '{name[:100]}', which points out of it or is too long; "
                f"names below it of at most {MAX_LENGTH} characters and {MAX_DEPTH} folders are "
                "allowed. The archive is damaged or hostile."
            )
    return zipfile.Path(archive)


def _is_honest(name: str) -> bool:
    parts = name.removesuffix("/").split("/")
    is_short = len(name) <= MAX_LENGTH and len(parts) <= MAX_DEPTH
    return is_short and "" not in parts and ".." not in parts


def read_member(file: zipfile.Path, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of a file of an archive.

    Raises DataError, which says why, where it is missing, damaged, encrypted, or larger than
    `limit` bytes once it is unpacked.
    """
    archive = file.root
    try:
        info = archive.getinfo(file.at)
        if info.file_size > limit:
            raise DataError(
                f"it unpacks to {format_bytes(info.file_size)}; "
                f"at most {format_bytes(limit)} are allowed"
            )
        with archive.open(info) as content:
            if info.compress_type not in UNBOUNDED:
                return content.read(info.file_size + 1)  # zipfile keeps to the size
            chunks = iter(lambda: content.read(STEP_BYTES), b"")
            return b"".join(chunks)
    except DataError:
        raise
    except Exception as error:  # whatever zipfile and its decoders stumble on
        raise DataError(str(error) or type(error).__name__) from error


def names_below(folder: zipfile.Path) -> list[str]:
    """Return the paths of all members below a folder of an archive, from there, in any order."""
    start = folder.at
    names = folder.root.namelist()
    return [name[len(start) :] for name in names if name.startswith(start) and name != start]
