"""Data sets that TFDS prepared, read without TensorFlow, and built with it. Only this module knows TFDS.

A stored split is ordered by md5 of split name and key, so a slice is the same set on every machine (but for what
benchmarks/vtab.yaml says under `quirk`).
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from san.data.prepare.labels import label_of
from san.data.prepare.sources.files import Root
from san.tasks import Task, TfdsSource

SLICE = re.compile(r"(\w+)(?:\[(\d+%?)?:(\+?\d+%?)?\])?")


def interval(expression: str, count: int) -> range:
    """Return the rows that a split expression means: `test`, `train[:800]`, `train[90%:+200]` (a length), `test[50%:]`.

    Percentages are of the real count, rounded down, as in task_adaptation. Raises ValueError where rows do not exist.
    """
    match = SLICE.fullmatch(expression)
    assert match, expression
    _, start, stop = match.groups()

    def at(text: str | None, default: int) -> int:
        if text is None:
            return default
        return count * int(text[:-1]) // 100 if text.endswith("%") else int(text)

    first = at(start, 0)
    last = first + int(stop[1:]) if stop and stop.startswith("+") else at(stop, count)
    if not first < last <= count:
        raise ValueError(f"{expression} asks for rows {first} to {last} of {count}.")
    return range(first, last)


@dataclass(frozen=True)
class TfdsCopy:
    """A task in a prepared copy. builder: TFDS's, opened from its folder."""

    task: Task
    builder: Any

    @property
    def facts(self) -> TfdsSource:
        """The task's row about TFDS."""
        return source_of(self.task)

    @property
    def times(self) -> int:
        """What stored pixels are multiplied with: dsprites has 0 and 1."""
        return self.facts.pixel_scale

    @property
    def parts(self) -> Sequence[str]:
        """The splits that the row names."""
        return tuple(self.facts.splits)

    @property
    def names(self) -> Sequence[str] | None:
        """TFDS's class names, where the label is a feature that has them."""
        features = dict(self.builder.info.features.items())
        names: Sequence[str] | None = getattr(features.get(self.facts.label_rule), "names", None)
        return names

    def stored(self, part: str) -> tuple[str, int, range]:
        """Return the stored split, its number of examples, and the rows that make up `part`."""
        expression = self.facts.splits[part]
        split = expression.partition("[")[0]
        info = self.builder.info
        if split not in info.splits:
            raise ValueError(
                f"{self.builder.data_path} has no split {split} (it has {', '.join(info.splits)})."
            )
        count = int(info.splits[split].num_examples)
        try:
            return split, count, interval(expression, count)
        except ValueError as error:
            raise ValueError(
                f"{self.builder.data_path}: {error} Its preparation is not whole: build it again."
            ) from None

    def describe(self, part: str) -> dict[str, Any]:
        """Say what it is, for the manifest."""
        _, count, _ = self.stored(part)
        has_ids = self.id_template != NO_ID
        return {
            "made_by": "TFDS",
            "builder": self.builder.info.full_name,
            "split": self.facts.splits[part],
            "of": count,
            "layout": self.facts.layout,
            "ids": "upstream" if has_ids else "rows",
        }

    def count(self, part: str) -> int:
        """Return how many images a split has."""
        return len(self.stored(part)[2])

    @property
    def id_template(self) -> str:
        """How an id is made of features; by row where this version stores none."""
        template = self.facts.id_template
        return (
            template
            if fields(template) - {"label", "split", "row"} <= set(self.builder.info.features)
            else NO_ID
        )

    def examples(self, part: str) -> Iterator[tuple[str, int, bytes]]:
        """Yield id, label and the stored bytes of the image, in the stored order."""
        split, _, rows = self.stored(part)
        read = (
            array_records if self.builder.info.file_format.value == "array_record" else tf_records
        )
        template, rule, names = self.id_template, self.facts.label_rule, self.names
        for row, example in zip(rows, read(self.builder, split, rows), strict=True):
            label = label_of(example, rule)
            words = {
                "label": names[label] if names else str(label),
                "split": split,
                "row": str(row),
            }
            words |= {key: example[key].decode() for key in fields(template) - words.keys()}
            yield template.format_map(words), label, example["image"]


NO_ID = "{split}-{row}"


def fields(template: str) -> set[str]:
    """Return the names in braces."""
    return set(re.findall(r"{([^}]+)}", template))


def array_records(builder: Any, split: str, rows: range) -> Iterator[dict[str, Any]]:
    """Yield some examples of an array_record copy, images as the bytes that are stored."""
    source = builder.as_data_source(split=split, decoders=raw_images(builder))
    for row in rows:
        yield source[row]


def tf_records(builder: Any, split: str, rows: range) -> Iterator[dict[str, Any]]:
    """Yield some examples of a tfrecord copy, images as the bytes that are stored."""
    paths = [Path(path) for path in builder.info.splits[split].filepaths]
    stored = (record for path in paths for record in framed(path))
    for record in islice(stored, rows.start, rows.stop):
        yield builder.info.features.deserialize_example_np(record, decoders=raw_images(builder))


def framed(path: Path) -> Iterator[bytes]:
    """Yield the records of a tfrecord file: length (8 bytes), its checksum (4), the record, its checksum (4).

    Raises ValueError where the file ends within a record. Format: tensorflow/core/lib/io/record_writer.h.
    """
    with path.open("rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
            record = file.read(length) if length else b""
            if len(header) < 12 or len(record) < length or len(file.read(4)) < 4:
                raise ValueError(f"{path} is truncated. Build or fetch it again.")
            yield record


def raw_images(builder: Any) -> dict[str, Any]:
    """Tell TFDS to hand out image features as stored bytes."""
    import tensorflow_datasets as tfds  # noqa: PLC0415

    return {
        key: tfds.decode.SkipDecoding()
        for key, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    }


def copies(task: Task, root: Root) -> list[Path]:
    """Return the folders below `root` that hold prepared versions that the row can be read from, newest last."""
    facts = task.tfds
    if facts is None or not isinstance(root, Path):
        return []
    home = root / facts.builder / facts.config
    found = {}
    for path in [*home.glob("*/dataset_info.json"), *root.glob("dataset_info.json")]:
        version = tuple(int(v) for v in path.parent.name.split(".") if v.isdecimal())
        if len(version) == 3 and version[0] in facts.major_versions:
            found[version] = path.parent
    wanted = facts.version
    order = sorted(found, key=lambda v: (".".join(map(str, v)) == wanted, v))
    return [found[version] for version in order]


def open_task(task: Task, root: Root) -> TfdsCopy | None:
    """Return a task's prepared copy at or below `root`, if there is one.

    Raises ModuleNotFoundError that says what to install where TFDS is not.
    """
    found = copies(task, root)
    if not found:
        return None
    return TfdsCopy(task, load().builder_from_directory(str(found[-1])))


def load() -> Any:
    """Import TFDS, or say how to install it."""
    try:
        import tensorflow_datasets as tfds  # noqa: PLC0415
    except ImportError as error:
        raise ModuleNotFoundError(
            f"TFDS copies need tensorflow-datasets, which is not installed here ({error}). To read them, without "
            "TensorFlow: pip install -e '.[tfds]'. To fetch and build them: make prepare-vtab (without FROM=)."
        ) from error
    return tfds


def source_of(task: Task) -> TfdsSource:
    """Return how a task that TFDS has is read from it."""
    assert task.tfds is not None, f"{task.suite}/{task.name} has no TFDS source."
    return task.tfds


def name_of(task: Task) -> str:
    """Return how TFDS calls a task's data set: builder/config:version."""
    facts = source_of(task)
    config = f"/{facts.config}" if facts.config else ""
    return facts.builder + config + (f":{facts.version}" if facts.version else "")


def build(name: str, root: Path, manual: Path) -> None:
    """Download (what `manual` does not have) and prepare a data set below `root` as array_record; needs TensorFlow.

    A copy that is there is left alone, one that was interrupted is begun again; downloads are kept in `root`/downloads.
    """
    tfds = load()
    builder = tfds.builder(name, data_dir=str(root), file_format="array_record")
    manual.mkdir(parents=True, exist_ok=True)
    check_network(builder, root, manual)
    config = tfds.download.DownloadConfig(manual_dir=str(manual))
    builder.download_and_prepare(download_config=config)


def check_network(builder: Any, root: Path, manual: Path) -> None:
    """Raise ConnectionError at once where nothing is at hand and nothing can be fetched; TFDS would try for minutes."""
    import requests  # noqa: PLC0415  (TFDS fetches with it)

    urls = [url for url in builder.url_infos if url.startswith("http")]
    names = [info.filename for info in builder.url_infos.values()]
    if (
        not urls
        or (root / "downloads").is_dir()
        or all(name and (manual / name).exists() for name in names)
    ):
        return
    try:
        requests.head(urls[0], timeout=20, allow_redirects=True)
    except requests.RequestException as error:
        raise ConnectionError(f"{urls[0]} cannot be reached") from error


def file_names(name: str) -> list[str]:
    """Return the registered names of the files that TFDS downloads for a data set."""
    builder = load().builder(name, data_dir="unused")
    return sorted({info.filename for info in builder.url_infos.values() if info.filename})
