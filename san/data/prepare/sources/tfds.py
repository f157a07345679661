"""Data sets that TFDS prepared, read without TensorFlow, and built with it.

Only this module knows TFDS. A stored split is ordered by the md5 of split name and key, so a slice
is the same set on every machine (but for what benchmarks/vtab.yaml says under `quirk`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from san.data.prepare.labels import label_of
from san.data.prepare.sources.files import Root
from san.data.prepare.sources.tfds_checks import check_copy, naming_copy_errors
from san.data.prepare.sources.tfrecord import read_tfrecord
from san.errors import DataError, FileAccessError, MissingPackageError
from san.installation import install_command
from san.runtime.files import check_regular
from san.tasks import Task, TfdsSource

SLICE = re.compile(r"(\w+)(?:\[(\d+%?)?:(\+?\d+%?)?\])?")
ROW_ID = "{split}-{row}"  # where a copy stores no ids
NETWORK_TIMEOUT_S = 20

Builder = Any  # TFDS's DatasetBuilder; TFDS has no type stubs
StoredExample = dict[str, Any]


@dataclass(frozen=True)
class TfdsCopy:
    """A task in a prepared copy. builder: TFDS's, opened from its folder."""

    task: Task
    builder: Builder

    @property
    def parts(self) -> Sequence[str]:
        """The splits that the task's row names."""
        return tuple(self._source.splits)

    @property
    def as_shown(self) -> bool:
        """Whether image files are decoded as viewers show them: a benchmark's are not."""
        return False

    @property
    def pixel_scale(self) -> int:
        """The factor by which stored pixels are multiplied: dsprites has 0 and 1."""
        return self._source.pixel_scale

    @property
    def names(self) -> Sequence[str] | None:
        """TFDS's class names, where the label is a feature that has them."""
        with naming_copy_errors(self.builder.data_path):
            features = dict(self.builder.info.features.items())
            feature = features.get(self._source.label_rule)
            names: Sequence[str] | None = getattr(feature, "names", None)
        return names

    def stored_rows(self, part: str) -> tuple[str, int, range]:
        """Return the stored split, its number of examples, and the rows of it that `part` is.

        Raises DataError where the copy does not have them.
        """
        expression = self._source.splits[part]
        split = expression.partition("[")[0]
        where = self.builder.data_path
        with naming_copy_errors(where):
            splits = self.builder.info.splits
            if split not in splits:
                raise DataError(f"{where} has no split {split} (it has {', '.join(splits)}).")
            count = int(splits[split].num_examples)
        try:
            rows = slice_rows(expression, count)
        except DataError as error:
            raise DataError(
                f"{where}: {error} Its preparation is not complete: build it again."
            ) from None
        return split, count, rows

    def describe(self, part: str) -> dict[str, Any]:
        """Say what it is, for the manifest; equal for equal data."""
        _, count, _ = self.stored_rows(part)
        has_ids = self._id_template != ROW_ID
        return {
            "made_by": "TFDS",
            "builder": self.builder.info.full_name,
            "split": self._source.splits[part],
            "of": count,
            "layout": self._source.layout,
            "ids": "upstream" if has_ids else "rows",
        }

    def count(self, part: str) -> int:
        """Return how many images a split has."""
        _, _, rows = self.stored_rows(part)
        return len(rows)

    def ids(self, part: str) -> Sequence[str]:
        """Return nothing: ids are read with the images."""
        return ()

    def paths(self, part: str) -> Sequence[str]:
        """Return nothing: images are rows, and those of two slices are not the same."""
        return ()

    def examples(self, part: str) -> Iterator[tuple[str, int, bytes]]:
        """Yield id, label and the stored bytes of the image, in the stored order.

        Raises DataError where the copy is damaged.
        """
        split, _, rows = self.stored_rows(part)
        names = self.names  # looked up once, not for each example
        with naming_copy_errors(self.builder.data_path):
            stored = _read_rows(self.builder, split, rows)
            for row, example in zip(rows, stored, strict=True):
                label = label_of(example, self._source.label_rule)
                class_name = names[label] if names else str(label)
                words = {"label": class_name, "split": split, "row": str(row)}
                yield self._format_id(example, words), label, example["image"]

    def _format_id(self, example: StoredExample, words: dict[str, str]) -> str:
        """Return the id of an example, made of `words` and of features that are texts."""
        template = self._id_template
        values = dict(words)
        for name in _template_fields(template) - words.keys():
            values[name] = example[name].decode()
        return template.format_map(values)

    @property
    def _source(self) -> TfdsSource:
        return source_of(self.task)

    @property
    def _id_template(self) -> str:
        """How an id is made of features; by row where this version stores none of them."""
        template = self._source.id_template
        features = _template_fields(template) - {"label", "split", "row"}
        stored = set(self.builder.info.features)
        return template if features <= stored else ROW_ID


def slice_rows(expression: str, count: int) -> range:
    """Return the rows that a split expression means.

    `test`, `train[:800]`, `train[90%:+200]` (a length) or `test[50%:]`. Percentages are of the real
    count, rounded down, as in task_adaptation. Raises DataError where rows do not exist.
    """
    match = SLICE.fullmatch(expression)
    assert match, expression
    _, start, stop = match.groups()
    first = _row_number(start or "0", count)
    if stop is None:
        last = count
    elif stop.startswith("+"):
        last = first + int(stop[1:])
    else:
        last = _row_number(stop, count)
    if not first < last <= count:
        raise DataError(f"{expression} asks for rows {first} to {last} of {count}.")
    return range(first, last)


def _row_number(text: str, count: int) -> int:
    """Return the row that a number, or a percentage of `count`, means."""
    if text.endswith("%"):
        return count * int(text[:-1]) // 100
    return int(text)


def _template_fields(template: str) -> set[str]:
    """Return the names in braces."""
    return set(re.findall(r"{([^}]+)}", template))


def _read_rows(builder: Builder, split: str, rows: range) -> Iterator[StoredExample]:
    """Yield some examples of a copy, images as the bytes that are stored."""
    if builder.info.file_format.value == "array_record":
        return read_array_records(builder, split, rows)
    return _read_tfrecords(builder, split, rows)


def read_array_records(builder: Builder, split: str, rows: range) -> Iterator[StoredExample]:
    """Yield some examples of a copy of TFDS's newer format."""
    for path in _shards(builder, split):
        check_regular(path)
    source = builder.as_data_source(split=split, decoders=_keep_images_encoded(builder))
    for row in rows:
        yield source[row]


def _read_tfrecords(builder: Builder, split: str, rows: range) -> Iterator[StoredExample]:
    """Yield some examples of a copy of TFDS's older format, without TensorFlow's reader."""
    decoders = _keep_images_encoded(builder)
    features = builder.info.features
    paths = _shards(builder, split)
    records = (record for path in paths for record in read_tfrecord(path))
    for record in islice(records, rows.start, rows.stop):
        yield features.deserialize_example_np(record, decoders=decoders)


def _shards(builder: Builder, split: str) -> list[Path]:
    """Return the files of a stored split."""
    return [Path(path) for path in builder.info.splits[split].filepaths]


def _keep_images_encoded(builder: Builder) -> dict[str, Any]:
    """Return the decoders that make TFDS return images as stored bytes."""
    tfds = load()
    decoders = {}
    for key, feature in builder.info.features.items():
        if isinstance(feature, tfds.features.Image):
            decoders[key] = tfds.decode.SkipDecoding()
    return decoders


def copies(task: Task, root: Root) -> list[Path]:
    """Return the folders of prepared versions that the task can be read from, the best last.

    That is the version which the task's row asks for, or else the newest.
    """
    source = task.tfds
    if source is None or not isinstance(root, Path):
        return []
    home = root / source.builder / source.config
    # `root` is TFDS's data folder, or the folder of a version itself.
    found: dict[tuple[int, ...], Path] = {}
    for path in [*home.glob("*/dataset_info.json"), *root.glob("dataset_info.json")]:
        folder = path.parent
        version = tuple(int(number) for number in folder.name.split(".") if number.isdecimal())
        if len(version) == 3 and version[0] in source.major_versions:
            found[version] = folder

    def rank(version: tuple[int, ...]) -> tuple[bool, tuple[int, ...]]:
        is_asked_for = ".".join(map(str, version)) == source.version
        return is_asked_for, version

    return [found[version] for version in sorted(found, key=rank)]


def open_task(task: Task, root: Root) -> TfdsCopy | None:
    """Return a task's prepared copy at or below `root`, if there is one.

    Raises MissingPackageError, which says what to install, where TFDS is not installed, and
    DataError, which names the copy, where it is damaged.
    """
    folders = copies(task, root)
    if not folders:
        return None
    best = folders[-1]
    check_copy(best)
    tfds = load()
    with naming_copy_errors(best):
        return TfdsCopy(task, tfds.builder_from_directory(str(best)))


def load() -> Any:
    """Import TFDS; raise MissingPackageError, which says how to install it, if that fails."""
    try:
        import tensorflow_datasets as tfds  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MissingPackageError(
            "TFDS copies need tensorflow-datasets, which is not installed here "
            f"({error}). To read them, without TensorFlow: {install_command('tfds')}. "
            f"To fetch and build them: {install_command('prepare')}, "
            "best in an environment of its own."
        ) from error
    return tfds


def source_of(task: Task) -> TfdsSource:
    """Return how a task that TFDS has is read from it."""
    assert task.tfds is not None, f"{task.suite}/{task.name} has no TFDS source."
    return task.tfds


def dataset_name(task: Task) -> str:
    """Return TFDS's name of a task's data set: builder/config:version."""
    source = source_of(task)
    config = f"/{source.config}" if source.config else ""
    version = f":{source.version}" if source.version else ""
    return source.builder + config + version


def build(name: str, root: Path, manual: Path) -> None:
    """Download (what `manual` does not have) and prepare a data set below `root`.

    It is prepared as array_record, which needs TensorFlow. A copy that is there is left alone, one
    that was interrupted starts again; downloads are kept in `root`/downloads.
    """
    tfds = load()
    builder = tfds.builder(name, data_dir=str(root), file_format="array_record")
    manual.mkdir(parents=True, exist_ok=True)
    check_network(builder, root, manual)
    config = tfds.download.DownloadConfig(manual_dir=str(manual))
    builder.download_and_prepare(download_config=config)


def check_network(builder: Builder, root: Path, manual: Path) -> None:
    """Raise FileAccessError at once where files are missing and cannot be fetched.

    TFDS itself would try for minutes.
    """
    import requests  # noqa: PLC0415  (TFDS fetches with it)

    urls = [url for url in builder.url_infos if url.startswith("http")]
    names = [info.filename for info in builder.url_infos.values()]
    is_by_hand = all(name and (manual / name).exists() for name in names)
    has_downloads = (root / "downloads").is_dir()  # TFDS knows which of them it can use
    if not urls or has_downloads or is_by_hand:
        return
    try:
        requests.head(urls[0], timeout=NETWORK_TIMEOUT_S, allow_redirects=True)
    except requests.RequestException as error:
        raise FileAccessError(f"{urls[0]} cannot be reached") from error


def file_names(name: str) -> list[str]:
    """Return the registered names of the files that TFDS downloads for a data set."""
    builder = load().builder(name, data_dir="unused")
    names = {info.filename for info in builder.url_infos.values() if info.filename}
    return sorted(names)
