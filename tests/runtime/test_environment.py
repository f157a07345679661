"""Where numbers come from."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from san.errors import InvalidValueError
from san.runtime import environment
from san.runtime.device import describe_device, pick_device
from san.runtime.environment import CodeState, DeviceInfo, git_state, package_versions

CPU = torch.device("cpu")


@pytest.fixture
def fresh_git_state() -> Iterator[None]:
    git_state.cache_clear()
    yield
    git_state.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.usefixtures("fresh_git_state")
def test_the_state_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert git_state() == CodeState(commit, dirty=False)
    git_state.cache_clear()
    (tmp_path / "new.py").touch()
    assert git_state() == CodeState(commit, dirty=True)


@pytest.mark.usefixtures("fresh_git_state")
def test_the_code_that_runs_is_the_one_described() -> None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    state = git_state()
    assert state.commit is not None
    assert re.fullmatch(r"[0-9a-f]{40}", state.commit)
    assert state.dirty in (True, False)


@pytest.mark.usefixtures("fresh_git_state")
def test_outside_a_checkout_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    assert git_state() == CodeState(commit=None, dirty=None)


@pytest.mark.usefixtures("fresh_git_state")
def test_the_repository_around_an_installed_package_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "theirs")
    package = tmp_path / ".venv" / "san"
    package.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "PROJECT", package)
    assert git_state() == CodeState(commit=None, dirty=None)


def test_versions_are_those_of_the_packages() -> None:
    versions = package_versions()
    assert torch.__version__.startswith(versions["torch"])
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(versions) == {"python", "san", *environment.PACKAGES}
    more = package_versions(["pytest"])
    assert more == versions | {"pytest": pytest.__version__}


def test_a_device_is_described_as_records_have_it() -> None:
    described = describe_device(CPU)
    assert described.type == "cpu"
    assert described.threads == torch.get_num_threads()
    assert set(msgspec.to_builtins(described)) == {"type", "name", "count", "threads", "system"}


def test_what_records_nest_may_be_empty_but_not_misspelt() -> None:
    assert msgspec.convert({}, CodeState) == CodeState()
    assert msgspec.convert({}, DeviceInfo) == DeviceInfo()
    assert msgspec.to_builtins(CodeState("abc", dirty=False)) == {"commit": "abc", "dirty": False}
    with pytest.raises(msgspec.ValidationError, match="comit"):
        msgspec.convert({"comit": "abc"}, CodeState)


def test_what_records_nest_needs_no_torch() -> None:
    code = "import sys, san.runtime.environment; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("has_gpu", "wanted", "picked"),
    [
        (False, "auto", "cpu"),
        (False, "cpu", "cpu"),
        (True, "auto", "cuda"),
        (True, "cpu", "cpu"),
        (True, "cuda", "cuda"),
    ],
)
def test_devices(has_gpu: bool, wanted: str, picked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert pick_device(wanted) == torch.device(picked)


def test_devices_that_do_not_exist_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InvalidValueError, match="device came as 'gpu'; allowed: auto, cpu, cuda."):
        pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidValueError, match=r"allowed: auto, cpu \(torch sees no GPU here\)."):
        pick_device("cuda")
