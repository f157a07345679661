"""Paths of users that cannot be looked at are named, in our words."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from san.commands import prepare, verify
from san.data import task_data
from san.errors import FileAccessError, MissingFileError
from san.runtime.paths import expand_path
from san.tasks import load_suite

ODD = ["x" * 300, "~nouserx/y", f"{'x' * 300}/y", "a\0b"]


@pytest.mark.parametrize("path", ODD)
def test_a_path_that_cannot_be_looked_at_is_named(path: str) -> None:
    with pytest.raises(FileAccessError, match=r"cannot be looked at \(.*Give a path") as caught:
        expand_path(path)
    assert str(caught.value).startswith(path)


def test_a_path_where_nothing_is_may_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_path("~/nix") == tmp_path / "nix"
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "file/x", Path("nix")):
        assert expand_path(path) == path


def test_a_folder_that_may_not_be_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.X_OK)
    with pytest.raises(FileAccessError, match=f"{tmp_path} cannot be looked at .you may not enter"):
        expand_path(tmp_path)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(FileAccessError, match=r"x cannot be looked at \(Permission denied\)"):
        expand_path(tmp_path / "x")


@pytest.mark.parametrize("path", ODD[:2])
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (prepare.main, ["--plan", "--root"]),
        (prepare.main, ["--plan", "--from"]),
        (prepare.main, ["--plan", "--tfds"]),
        (prepare.main, ["--plan", "--manual"]),
        (verify.main, ["--root"]),
        (verify.main, ["--card", "--root"]),
    ],
)
def test_the_programs_name_it(
    script: Callable[[], None],
    options: list[str],
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", "vtab/dtd", *options, path])
    with pytest.raises(FileAccessError, match=f"^{path} cannot be looked at"):
        script()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ODD[:2])
def test_runs_name_it(path: str) -> None:
    with pytest.raises(FileAccessError, match=f"^{path} cannot be looked at"):
        task_data.folder_suite(path)
    suite = load_suite("vtab")
    with pytest.raises(FileAccessError, match=f"^{path} cannot be looked at"):
        task_data.load_split(suite, suite.task("dtd"), "train", Path(path), "vtab", 8)
    with pytest.raises(MissingFileError, match="data.root is 'nix', which is not a directory"):
        task_data.folder_suite("nix")
