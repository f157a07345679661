"""One error policy: what a user can act on is a sentence, a bug of ours keeps its trace."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import OverrideParseException

from san import cli, compose
from san.errors import InvalidValueError, Preempted


def raising(error: BaseException) -> object:
    def program() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InvalidValueError("lr came as -1."), 1, "Error: lr came as -1.\n"),
        (
            Preempted("Stopped in epoch 3."),
            143,
            "Stopped in epoch 3. Run the same command to resume.",
        ),
        (KeyboardInterrupt(), 130, "Error: Interrupted.\n"),
    ],
)
def test_what_a_user_can_act_on_is_a_sentence(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(raising(error))
    assert ended.value.code == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), TypeError("x"), OSError(5, "x")])
def test_a_bug_keeps_its_trace(error: Exception) -> None:
    with pytest.raises(type(error)) as kept:
        cli.main(raising(error))
    assert kept.value is error


@pytest.mark.parametrize("group", ["augment", "backbone", "data", "method", "protocol", "recipe"])
@pytest.mark.parametrize("value", ["null", "3"])
def test_a_group_without_a_choice_is_named(
    group: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(lambda: compose.compose_config([f"{group}={value}"]))
    assert ended.value.code == cli.USER_ERROR
    said = f"Error: {group}={value} is not a choice of `{group}`, which is required"
    assert said in capsys.readouterr().err


def test_what_is_printed_of_others_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_while_read("one\x1b[2J\r\ntwo\tü †")
    cli.print_error("a\x07b", 1)
    printed = capsys.readouterr()
    assert printed.out == "one\\x1b[2J\\r\ntwo\tü †\n"
    assert printed.err == "Error: a\\x07b\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ENOSPC, errno.EROFS])
def test_what_the_system_refuses_is_no_bug(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def program() -> None:
        raise OSError(number, os.strerror(number), "some/file")

    with pytest.raises(SystemExit) as stopped:
        cli.main(program)
    assert stopped.value.code == cli.USER_ERROR
    expected = f"Error: some/file cannot be used: {os.strerror(number)}. Give a path that can.\n"
    assert capsys.readouterr().err == expected


def test_a_full_disk_behind_the_output_is_said() -> None:
    code = "from san import cli; cli.main(lambda: cli.print_while_read('text'))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == cli.USER_ERROR
    assert done.stderr == "Error: The output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("value", ["/tmp/Meine Bilder (2), ä=1", "~/x", "Größe"])
def test_a_value_that_hydra_cannot_parse_is_shown_in_quotes(value: str) -> None:
    with pytest.raises(OverrideParseException) as caught:
        compose.compose_config(["data=folder", f"data.root={value}"])
    text = cli._explain_config_error(caught.value)
    assert "cannot be parsed. A value with spaces" in text
    (advice,) = shlex.split(text.rpartition("shell's: ")[2])
    assert compose.compose_config(["data=folder", advice]).data.root == value
