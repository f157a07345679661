"""What train.py and the scripts share: exit codes and error texts."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from san.compose import CONFIGS
from san.errors import NonFiniteLossError, Preempted, WeightsError

CONFIG_ERRORS = (HydraException, OmegaConfBaseException)  # what composing a configuration raises


EXPECTED = (LookupError, ValueError, TypeError, OSError, WeightsError, NonFiniteLossError)


def run(main: Callable[[], Any]) -> None:
    """Call a Hydra main function; on an error we foresee print one message and exit with 1 (130 after Ctrl-C)."""
    os.environ.setdefault(
        "HYDRA_FULL_ERROR", "1"
    )  # hand exceptions to us instead of printing a trace
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(print_error("Interrupted: no record was written for the run in flight.", 130))
    except Preempted as stopped:
        sys.exit(print_error(f"Told to stop: {stopped}. The same command goes on from there.", 143))
    except CONFIG_ERRORS as error:
        sys.exit(print_error(explain(error), 1))
    except EXPECTED as error:
        sys.exit(print_error(str(error), 1))


def print_error(message: str, code: int) -> int:
    """Print why the program ends and return its exit code."""
    sys.stderr.write(f"Error: {message}\n")
    return code


def explain(error: Exception) -> str:
    """Return Hydra's message, with the nearest names where a choice or a key is unknown."""
    text = str(error).strip()
    cause = error.__cause__ or error.__context__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        text = text.split("\nConfig search path:")[0].strip()
        return text + nearest(error.missing_cfg_file.partition("/")[2], error.options or [])
    key = re.search(r"Could not override '([^']+)'", text)
    if key is not None:
        return text + nearest(key.group(1), list(dotted_keys(default_config())))
    return text if cause is None or str(cause) in text else f"{text}\n{cause}"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a sentence with the names most like `name`, or nothing."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"\nDid you mean {' or '.join(near)}?" if near else ""


def default_config() -> Mapping[str, Any]:
    """Compose the configuration without overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        plain: Mapping[str, Any] = OmegaConf.to_container(compose("train"), resolve=False)  # type: ignore[assignment]
    return plain


def dotted_keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from dotted_keys(value, f"{prefix}{key}.")
