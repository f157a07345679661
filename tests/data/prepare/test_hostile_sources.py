"""Lists, images and archives that are not what they should be are named, and nothing hangs."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pictures
import pytest
from odd_files import DEEP, NOT_REGULAR, ODD_FILES, replace_by
from small_tasks import DTD, FGVC, GIC, LISTS, SmallTask, small

from san.data import task_data
from san.data.prepare.sources import archives, fgvc, files, find_source
from san.data.prepare.sources.files import images_by_folder
from san.data.prepare.sources.own_folder import read_own_folder
from san.errors import DataError

CUB = small(FGVC.task("cub"), train=4, val=2, test=3)
JSON = {
    "train": {"b/1.jpg": 17, "b/2.jpg": 3, "c/1.jpg": 40, "c/2.jpg": 17},
    "val": {"v/1.jpg": 3, "v/2.jpg": 40},
    "test": {"t/1.jpg": 25, "t/2.jpg": 3, "t/3.jpg": 17},
}


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize("name", ["train800.txt", "val200.txt", "test.txt"])
def test_a_list_that_is_not_a_regular_file_is_named(name: str, kind: str, tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    replace_by(kind, folder / name)
    with pytest.raises(DataError, match=f"{name} of .* cannot be read .*{name} is {kind}"):
        find_source(DTD.task, folder)


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize("name", ["train.json", "val.json", "test.json", "paths.json"])
def test_a_json_list_that_is_not_a_regular_file_is_named(
    name: str, kind: str, tmp_path: Path
) -> None:
    folder = pictures.vpt_json(tmp_path, JSON)
    (folder / "paths.json").write_text("{}")
    replace_by(kind, folder / name)
    with pytest.raises(DataError, match=f"{name} of .* cannot be read .*{name} is {kind}"):
        find_source(CUB.task, folder)


@pytest.mark.parametrize("kind", ODD_FILES)
def test_an_image_that_is_not_a_regular_file_is_named(kind: str, tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    replace_by(kind, folder / "images/val200/000001.jpg")
    with pytest.raises(DataError, match="val200.txt names 1 files .*images/val200/000001.jpg"):
        DTD.pack(folder, tmp_path / "data")


@pytest.mark.parametrize("kind", [kind for kind in ODD_FILES if kind != "a directory"])
def test_an_own_image_that_is_not_a_regular_file_is_named(kind: str, tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "test/a"):
        for i in range(3):
            pictures.save(tmp_path / "own" / name / f"{i}.png", len(name), i)
    replace_by(kind, tmp_path / "own/test/a/1.png")
    suite = task_data.folder_suite(str(tmp_path / "own"))
    (task,) = suite.tasks.values()
    with pytest.raises(DataError, match=r"test/a/1.png .*(is a|cannot be read)"):
        task_data.open_task(suite, task, tmp_path / "data", "vtab", 8)


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a device"])
def test_an_archive_that_is_not_a_regular_file_is_named(kind: str, tmp_path: Path) -> None:
    replace_by(kind, tmp_path / "v.zip")
    with pytest.raises(DataError, match=f"v.zip is {kind}"):
        find_source(DTD.task, tmp_path / "v.zip")


@pytest.mark.parametrize("text", [DEEP, "5", "null", '{"a.jpg": 1e999}', '{"a.jpg": NaN}', "\xff"])
@pytest.mark.parametrize("name", ["val.json", "paths.json"])
def test_json_of_any_depth_and_type_is_named(name: str, text: str, tmp_path: Path) -> None:
    folder = pictures.vpt_json(tmp_path, JSON)
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=f"{name} of .* is not a (map|text file)"):
        find_source(CUB.task, folder)


@pytest.mark.parametrize("value", [True, None, 1.5, {}, "\ud800"], ids=repr)
def test_classes_of_other_types_are_refused(value: object, tmp_path: Path) -> None:
    folder = pictures.vpt_json(tmp_path, JSON)
    (folder / "val.json").write_text(json.dumps({"v/1.jpg": 3, "v/2.jpg": value}))
    with pytest.raises(DataError, match=r"val.json of .* is not a map"):
        find_source(CUB.task, folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"images/test/000000.jpg {'9' * 5000}", "test.txt of .*, line 1: .*allowed: PATH LABEL"),
        (f"{'x' * 5000}.jpg 1", "test.txt names 1 files that"),
        (f"images/{'x' * 300}.jpg 1", "test.txt names 1 files that"),
        ("images/\0.jpg 1", "test.txt names 1 files that"),
    ],
)
def test_lines_that_no_list_has_are_refused(line: str, message: str, tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    (folder / "test.txt").write_text(line)
    with pytest.raises(DataError, match=message) as caught:
        find_source(DTD.task, folder)
    assert len(str(caught.value)) < 1000


def zipped(tmp_path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """The lists of a task, and their images, in an archive."""
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    with zipfile.ZipFile(tmp_path / "v.zip", "w", compression) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    shutil.rmtree(folder)
    return tmp_path / "v.zip"


def rewrite(path: Path, name: str, offset: int, value: bytes) -> None:
    """Change a field of a member in an archive's directory, counted from the entry's beginning."""
    data = bytearray(path.read_bytes())
    place = data.rindex(name.encode()) - 46 + offset
    assert data[place - offset : place - offset + 4] == b"PK\x01\x02"
    data[place : place + len(value)] = value
    path.write_bytes(data)


def vtab_of(tmp_path: Path) -> Path:
    return pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)


def json_of(tmp_path: Path) -> Path:
    return pictures.vpt_json(tmp_path / "cub", JSON)


def birds_of(tmp_path: Path) -> Path:
    tmp_path.mkdir()
    for name in ("images", "image_class_labels", "train_test_split", "classes"):
        (tmp_path / f"{name}.txt").write_text("1 1\n")
    return tmp_path


def lines_of(count: int) -> str:
    return "".join(f"{i} 0\n" for i in range(count))


def entries_of(count: int) -> str:
    return json.dumps({f"{i}": f"{i}" for i in range(count)})


@pytest.mark.parametrize(
    ("case", "make", "name", "entries"),
    [
        (DTD, vtab_of, "train800.txt", lines_of),
        (DTD, vtab_of, "test.txt", lines_of),
        (CUB, json_of, "train.json", entries_of),
        (CUB, json_of, "paths.json", entries_of),
        (CUB, birds_of, "images.txt", lines_of),
        (CUB, birds_of, "image_class_labels.txt", lines_of),
    ],
)
@pytest.mark.parametrize("is_zipped", [True, False])
def test_lists_of_far_too_many_are_refused_before_a_file_is_looked_up(
    case: SmallTask,
    make: Callable[[Path], Path],
    name: str,
    entries: Callable[[int], str],
    is_zipped: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look_up(*_: object) -> None:
        raise AssertionError("a file was looked up")

    count = 2 * sum(case.task.splits.values()) + 1
    folder = make(tmp_path / "in")
    (folder / name).write_text(entries(count))
    if is_zipped:
        folder = Path(shutil.make_archive(str(tmp_path / "v"), "zip", folder))
    for module in (files, fgvc):
        monkeypatch.setattr(module, "has_file", look_up)
    with pytest.raises(DataError, match=rf"{name} of .* has {count} entries; small/\w+ has \d+ im"):
        find_source(case.task, folder)
    files.check_length(case.task, folder, name, count - 1)


@pytest.mark.parametrize("name", ["train800.txt", "test.txt"])
def test_a_list_that_unpacks_to_too_much_is_not_unpacked(name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path)
    rewrite(path, f"dtd/{name}", 24, (2**24 + 1).to_bytes(4, "little"))
    with pytest.raises(DataError, match=f"{name} of .*unpacks to 17 MB; at most 17 MB"):
        find_source(DTD.task, path)


def test_json_of_all_of_imagenet_may_be_larger(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(b" " * (2**24 + 1))
    imagenet = GIC.task("imagenet")
    assert len(files.read_text(imagenet, tmp_path, "train.json")) == 2**24 + 1
    assert files.LINE_BYTES * sum(imagenet.splits.values()) > 53e6
    with pytest.raises(DataError, match="it has 17 MB; at most 17 MB are allowed"):
        files.read_text(FGVC.task("nabirds"), tmp_path, "train.json")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_of_each_compression_are_read(method: int, tmp_path: Path) -> None:
    packed = DTD.pack(zipped(tmp_path, method), tmp_path / "data")
    assert packed.load_part("test").labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_member_that_unpacks_to_too_much_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path)
    rewrite(path, "dtd/val200.txt", 24, (2**31).to_bytes(4, "little"))
    with pytest.raises(
        DataError, match=r"val200.txt of .*v.zip/dtd/ .*unpacks to 2\.1 GB; at most"
    ):
        find_source(DTD.task, path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_lies_about_its_size_is_not_unpacked(method: int, tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    (folder / "val200.txt").write_bytes(bytes(10**7))
    with zipfile.ZipFile(tmp_path / "v.zip", "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(tmp_path))
    rewrite(tmp_path / "v.zip", "dtd/val200.txt", 24, (100).to_bytes(4, "little"))
    with pytest.raises(DataError, match=r"val200.txt of .*v.zip/dtd/ cannot be read \(Bad CRC"):
        find_source(DTD.task, tmp_path / "v.zip")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, b"\x01\x00", "encrypted"),
        (10, b"\x63\x00", "compression"),
        (42, b"\xff\xff\xff\x7f", "val200.txt of"),
    ],
)
def test_members_that_cannot_be_read_are_named(
    offset: int, value: bytes, message: str, tmp_path: Path
) -> None:
    path = zipped(tmp_path)
    rewrite(path, "dtd/val200.txt", offset, value)
    with pytest.raises(DataError, match=f"v.zip.*{message}|{message}.*v.zip"):
        find_source(DTD.task, path)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "a/../../b", "..", "//a", "a//b", "a/" * 40 + "b", "x" * 2000]
)
def test_names_that_no_honest_archive_has_are_refused(name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(DataError, match="v.zip has a member .* which points out of it or is too"):
        find_source(DTD.task, path)


def test_images_of_an_archive_are_those_of_the_folder_in_the_same_order(tmp_path: Path) -> None:
    names = ["b/x.png", "b-/y.png", "b/a/z.jpg", "a.png", "b/.hidden/x.png", ".x.png", "n.txt"]
    for name in names:
        for folder in ("p", "q", "pq"):
            (tmp_path / "f" / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "f" / folder / name).touch()
    (tmp_path / "f/p.png").touch()
    (tmp_path / "f/empty").mkdir()
    archive = Path(shutil.make_archive(str(tmp_path / "v"), "zip", tmp_path / "f"))
    found = images_by_folder(tmp_path / "f", ["p", "q", "empty"])
    assert found["p"] == ["p/a.png", "p/b/a/z.jpg", "p/b/x.png", "p/b-/y.png"]
    assert (len(found["q"]), found["empty"]) == (4, [])
    assert images_by_folder(archives.open_archive(archive), ["p", "q", "empty"]) == found


def test_an_archive_is_gone_over_once_for_all_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand times for ImageNet would take minutes."""
    calls = []
    names_below = archives.names_below

    def counted(root: zipfile.Path) -> list[str]:
        calls.append(root)
        return names_below(root)

    monkeypatch.setattr(files, "names_below", counted)
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        for i in range(100):
            archive.writestr(f"{i}/x.png", b"x")
    found = images_by_folder(archives.open_archive(tmp_path / "v.zip"), map(str, range(100)))
    assert sum(map(len, found.values())) == 100
    assert len(calls) == 1


def own(folder: Path) -> Path:
    for name in ("a", "b"):
        for i in range(30):
            pictures.save(folder / name / f"{i}.png", len(name), i)
    return folder


def test_a_folder_that_is_linked_twice_is_refused(tmp_path: Path) -> None:
    """Ten folders of two links each would be 1024 paths, and forty a day."""
    folder = own(tmp_path)
    for i in range(40):
        (folder / f".{i}").mkdir()
    (folder / "a/0").symlink_to(folder / ".0")
    for i in range(39):
        for link in ("x", "y"):
            (folder / f".{i}" / link).symlink_to(folder / f".{i + 1}")
    with pytest.raises(DataError, match="more than 32 folders deep|is a link to"):
        read_own_folder(folder)
    (folder / ".30/x").unlink()
    (folder / ".30/y").unlink()
    with pytest.raises(DataError, match="is a link to .*, which is below it, too"):
        read_own_folder(folder)


def test_a_folder_of_any_depth_is_refused(tmp_path: Path) -> None:
    folder = own(tmp_path)
    here = Path.cwd()
    os.chdir(folder / "a")
    for _ in range(300):
        Path("d").mkdir()
        os.chdir("d")
    os.chdir(here)
    with pytest.raises(DataError, match="is more than 32 folders deep. Move its images up"):
        read_own_folder(folder)
    shutil.move(folder / "a/d", folder / ".d")
    task_data.folder_suite(str(folder))
