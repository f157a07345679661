"""Stand in for TFDS's network: every URL is answered with a local archive, everything else is TFDS's own code."""

import tarfile
from pathlib import Path


def answer(folder, url):
    """Return what a download of `url`, unpacked, would be: the file of that name, or the folder that it unpacks to."""
    from etils import epath

    name = str(getattr(url, "url", url)).partition("?")[0].rpartition("/")[2]
    if name == "102flowers.tgz":
        return epath.Path(folder / "images")
    known = (folder / name, folder / name.removesuffix(".gz"))
    return epath.Path(next((p for p in known if p.is_file()), folder))


def mapped(folder):
    def fetch(self, urls):
        if isinstance(urls, dict):
            return {key: answer(folder, url) for key, url in urls.items()}
        return answer(folder, urls)

    return fetch


def extract(self, path):
    """Unpack a tar beside itself; TFDS's own would look for its record of the download."""
    from etils import epath

    out = Path(str(path) + ".unpacked")
    if not out.exists():
        with tarfile.open(path) as tar:
            tar.extractall(out, filter="data")
    return epath.Path(out)


def serve(monkeypatch, folder):
    """Let TFDS find `folder` wherever it would go to the network."""
    import tensorflow_datasets as tfds

    from san.data.prepare.sources import tfds as ours

    monkeypatch.setattr(ours, "check_network", lambda *_: None)
    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download", mapped(folder))
    monkeypatch.setattr(manager, "download_and_extract", mapped(folder))
    monkeypatch.setattr(manager, "extract", extract)
    packaged = tfds.core.tfds_path
    monkeypatch.setattr(
        tfds.core,
        "tfds_path",
        lambda *parts: (
            own if parts and (own := folder / Path(parts[0]).name).is_file() else packaged(*parts)
        ),
    )
