"""Files are complete or not there: on full disks, for readers, and for other users."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from san.errors import FileAccessError, SanError
from san.runtime import files
from san.runtime.files import atomic_write, read_bytes, read_json, read_text, write_text


def test_the_new_file_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "record.json"
    write_text("old ü", path)
    with atomic_write(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text(encoding="utf-8") == "old ü"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "record.json"
    write_text("old", path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text("new", path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_text("old", path)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), atomic_write(path) as unfinished:
            unfinished.write_text("half of the n")
            raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    seen: list[str | None] = []
    monkeypatch.setattr(
        os, "fsync", lambda _: seen.append(path.read_text() if path.exists() else None)
    )
    write_text("one", path)
    write_text("two", path)
    assert seen == [None, "one"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    previous = os.umask(umask)
    try:
        write_text("text", tmp_path / "file")
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_search_for_files_of_the_kind_finds_none_that_is_unfinished(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "record.json") as unfinished:
        unfinished.write_text("{")
        assert list(tmp_path.rglob("*.json")) == []
        assert list(tmp_path.rglob(".*")) == [unfinished]
    assert list(tmp_path.rglob("*.json")) == [tmp_path / "record.json"]


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [letter * 1_000_000 for letter in "ab"]
    write_text(texts[0], path)
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            for text in texts:
                write_text(text, path)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        seen = [path.read_text() for _ in range(50)]
    finally:
        stop.set()
        thread.join()
    assert all(text in texts for text in seen)


def test_writers_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_who_may_read_a_file_is_what_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text("text", tmp_path / "a")
        with atomic_write(tmp_path / "b") as unfinished:
            unfinished.unlink()
            unfinished.write_text("written by a library that makes private files")
            unfinished.chmod(0o600)
    finally:
        os.umask(before)
    for name in ("a", "b"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask, name


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json])
@pytest.mark.parametrize(
    ("put", "message"),
    [
        (a_fifo, "is a FIFO; a regular file is allowed"),
        (a_directory, "is a directory; a regular file is allowed"),
        (a_device, "is a device; a regular file is allowed"),
        (a_socket, "is a socket; a regular file is allowed"),
        (a_dangling_link, "is a link to a file that is not there"),
        (a_link_to_itself, "cannot be read"),
        (lambda path: None, "does not exist"),
    ],
)
def test_only_regular_files_are_opened(
    put: Callable[[Path], None],
    message: str,
    read: Callable[[Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    put(Path("x"))
    with pytest.raises(SanError, match=f"^x {message}"):
        read(Path("x"))


def test_a_file_that_becomes_a_fifo_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    os.mkfifo(path)
    monkeypatch.setattr(files, "check_regular", lambda path: None)
    with pytest.raises(FileAccessError, match="is a FIFO"):
        read_bytes(path)


def test_sizes_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(10**12)  # it takes no space
    with pytest.raises(FileAccessError, match=r"x cannot be read: it has 1000\.0 GB; at most"):
        read_bytes(path)
    path.write_bytes(b"12345")
    assert read_bytes(path, limit=5) == b"12345"
    with pytest.raises(FileAccessError, match="at most 0 kB are allowed"):
        read_bytes(path, limit=4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b"[" * 10**6,
        b'{"a":' * 10**5,
        b"1" * 10**6,
        b'"\xff"',
        b"\x80\x04\x95",
        b"{} {}",
    ],
)
def test_json_is_strict_and_never_an_error_of_pythons(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(FileAccessError, match=r"x\.json cannot be read: it is not the JSON"):
        read_json(path)


def test_json_has_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, 2]}', encoding="utf-8")
    assert read_json(path, dict[str, list[int]]) == {"a": [1, 2]}
    with pytest.raises(FileAccessError, match="Expected `str`, got `array`"):
        read_json(path, dict[str, str])


def test_text_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("ü".encode())
    assert read_text(path) == "ü"
    path.write_bytes("ü".encode("latin-1"))
    with pytest.raises(FileAccessError, match=r"x\.txt cannot be read: it is no UTF-8 text"):
        read_text(path)
