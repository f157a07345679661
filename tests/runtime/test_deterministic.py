"""Whether torch computes the same bits each time is what the run says, in each run of a process."""

import os
from collections.abc import Iterator

import pytest
import torch

from san.runtime.deterministic import set_deterministic


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    set_deterministic(False)


def test_each_run_has_what_it_says() -> None:
    for wanted in (False, True, True, False):
        set_deterministic(wanted)
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert torch.backends.cudnn.deterministic == wanted
        assert not torch.backends.cudnn.benchmark


def test_the_workspace_is_fixed_only_where_it_is_wanted_and_a_users_own_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_deterministic(False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_what_torch_cannot_do_deterministically_is_an_error() -> None:
    values = torch.zeros(3)
    words = (torch.tensor([0, 0]), torch.ones(2))
    values.clone().put_(*words, accumulate=False)
    set_deterministic(True)
    with pytest.raises(RuntimeError, match="deterministic"):
        values.clone().put_(*words, accumulate=False)
