"""Stand in for TFDS's network: every URL is answered with a local archive, the rest is TFDS's."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def answer(folder: Path, url: Any) -> Any:
    """Return what a download of `url` would be once it is unpacked.

    That is the file of that name, or the folder that it unpacks to.
    """
    from etils import epath

    address = str(getattr(url, "url", url)).partition("?")[0]
    name = address.rpartition("/")[2]
    if name == "102flowers.tgz":
        return epath.Path(folder / "images")
    for file in (folder / name, folder / name.removesuffix(".gz")):
        if file.is_file():
            return epath.Path(file)
    return epath.Path(folder)


def fetch_from(folder: Path) -> Callable[[Any, Any], Any]:
    """Return a method of TFDS's download manager that answers with what `folder` has."""

    def fetch(self: Any, urls: Any) -> Any:
        if isinstance(urls, dict):
            return {key: answer(folder, url) for key, url in urls.items()}
        return answer(folder, urls)

    return fetch


def extract(self: Any, path: Any) -> Any:
    """Unpack a tar beside itself; TFDS's own would look for its record of the download."""
    from etils import epath

    out = Path(f"{path}.unpacked")
    if not out.exists():
        with tarfile.open(path) as tar:
            tar.extractall(out, filter="data")
    return epath.Path(out)


def serve(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let TFDS find `folder` wherever it would go to the network."""
    import tensorflow_datasets as tfds

    from san.data.prepare.sources import tfds as ours

    packaged_path = tfds.core.tfds_path

    def path_of(*parts: Any) -> Any:
        """Return a list of ours in place of one that TFDS has in its package."""
        own = folder / Path(parts[0]).name if parts else folder
        return own if own.is_file() else packaged_path(*parts)

    manager = tfds.download.DownloadManager
    monkeypatch.setattr(ours, "check_network", lambda *_: None)
    monkeypatch.setattr(manager, "download", fetch_from(folder))
    monkeypatch.setattr(manager, "download_and_extract", fetch_from(folder))
    monkeypatch.setattr(manager, "extract", extract)
    monkeypatch.setattr(tfds.core, "tfds_path", path_of)
