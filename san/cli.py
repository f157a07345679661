"""What the programs share: which errors are printed without a trace, and exit codes.

| exit code | meaning                                                    |
|----------:|:-----------------------------------------------------------|
|         0 | done                                                       |
|         1 | a mistake of the user's, in words; or a bug, with its trace |
|       130 | a single run was interrupted by Ctrl-C                      |
|       141 | the reader of the output has gone, as with `head`           |
|       143 | stopped by a signal (a sweep also by Ctrl-C), or a rank died; |
|           | the same command resumes                                   |
"""

import errno
import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from san.errors import STOPPED_EXIT_CODE, Preempted, SanError, suggest
from san.installation import command
from san.runtime.formatting import printable

USER_ERROR = 1
INTERRUPTED = 130
BROKEN_PIPE = 141
# What a file system refuses, wherever a path of the user's is looked at; other errors are bugs.
_REFUSALS = (
    errno.EACCES,
    errno.EDQUOT,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
)
_GROUP_ERROR = "Config group override "  # how Hydra's message begins
# Dictionaries that take keys with +
_EXTENSIBLE = ("backbone.kwargs.", "method.settings", "recipe.lr.")


def main(program: Callable[[], object], when_interrupted: str = "Interrupted.") -> None:
    """Call the main function of a program; on an error of the user's print a message and exit.

    when_interrupted: what is said after Ctrl-C.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hand exceptions to us, without Hydra's trace
    _print_whatever_the_locale()
    try:
        program()
    except KeyboardInterrupt:
        sys.exit(print_error(when_interrupted, INTERRUPTED))
    except Preempted as stopped:
        sys.exit(print_error(f"{stopped} Run the same command to resume.", STOPPED_EXIT_CODE))
    except SanError as error:
        sys.exit(print_error(str(error), USER_ERROR))
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        _discard_output()
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            sys.exit(print_error(_explain_refusal(error), USER_ERROR))
        if not _is_config_error(error):
            raise
        sys.exit(print_error(_explain_config_error(error), USER_ERROR))


def print_error(message: str, code: int) -> int:
    """Print why the program ends and return its exit code."""
    sys.stderr.write(f"Error: {printable(message)}\n")
    return code


def print_while_read(text: str) -> None:
    """Print a program's last words; that its reader has gone, as `head` does, is no error."""
    try:
        sys.stdout.write(f"{printable(text)}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()


def _print_whatever_the_locale() -> None:
    """Let a terminal that lacks a character, such as a mark of a table, show its code instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have another one
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send what is still buffered to nobody, so that Python does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain_refusal(error: OSError) -> str:
    """Return which file the system refuses, and why."""
    if error.filename is None:
        _discard_output()
        return f"The output cannot be written: {error.strerror}."
    return f"{error.filename} cannot be used: {error.strerror}. Give a path that can."


def _is_config_error(error: Exception) -> bool:
    """Return whether Hydra or OmegaConf refuses the configuration that the user composed."""
    if "hydra" not in sys.modules:
        return False
    from hydra.errors import HydraException  # noqa: PLC0415  (programs without Hydra start faster)
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    is_theirs = isinstance(error, HydraException | OmegaConfBaseException)
    return is_theirs or _is_group_error(error)


def _is_group_error(error: Exception) -> bool:
    """Return whether Hydra refuses the value of a group, such as `backbone=null`."""
    return isinstance(error, ValueError) and str(error).startswith(_GROUP_ERROR)


def _explain_group_error(error: Exception) -> str:
    """Return what came and what is allowed; Hydra's message does not name the group."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    override = frame.f_locals.get("override")
    if override is None:  # of another version of Hydra
        return str(error)
    group = override.key_or_group
    return (
        f"{override.input_line} is not a choice of `{group}`, which is required; "
        f"allowed: {group}=NAME. `{command('train')} --help` lists the names."
    )


def _explain_config_error(error: Exception) -> str:
    """Return Hydra's message, with the nearest names where a choice or a key is unknown."""
    from hydra.errors import MissingConfigException, OverrideParseException  # noqa: PLC0415

    if _is_group_error(error):
        return _explain_group_error(error)
    text = str(error).strip()
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} cannot be parsed. A value with spaces, brackets, commas, `=`, `~` "
            "or letters beyond ASCII takes quotes of its own, inside of the shell's: "
            f"{_quoted(error.override)}"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        choice = error.missing_cfg_file.partition("/")[2]
        first = text.split("\nConfig search path:")[0].strip()
        return _with_hint(first, suggest(choice, error.options or []))
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown is not None:
        if unknown.group(1).startswith(_EXTENSIBLE):
            return text  # with Hydra's words on how to append
        text = re.sub(r"\n?To append to your config use .*", "", text)  # it would be refused
        return _with_hint(text, suggest(unknown.group(1), list(_default_keys())))
    cause = error.__cause__ or error.__context__
    return text if cause is None or str(cause) in text else f"{text}\n{cause}"


def _quoted(override: str) -> str:
    """Return an override with its value in quotes, as a shell takes it."""
    key, _, value = override.partition("=")
    return shlex.quote(f'{key}="{value}"')


def _with_hint(text: str, hint: str) -> str:
    return f"{text}\n{hint.strip()}" if hint else text


def _default_keys() -> Iterator[str]:
    """Yield the dotted names of all keys of the configuration without overrides."""
    from omegaconf import OmegaConf  # noqa: PLC0415

    from san.compose import compose_config  # noqa: PLC0415

    config: Any = OmegaConf.to_container(compose_config(), resolve=False)
    yield from _dotted_keys(config)


def _dotted_keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys of nested dictionaries."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _dotted_keys(value, f"{prefix}{key}.")
