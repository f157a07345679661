"""Files are complete or not there: on full disks, for readers, and for other users."""

import os
import threading
from pathlib import Path

import pytest

from san.runtime.files import atomic_write, write_text


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
