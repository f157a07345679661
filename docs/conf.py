"""Sphinx builds these pages: `make docs`, with warnings as errors."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from san.version import __version__  # noqa: E402  (found by the line above)

project = "san-peft"
author = copyright = "The san-peft authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"san-peft {__version__}"
html_show_sphinx = False
myst_heading_anchors = 3
default_role = "code"  # of docstrings, where one backtick is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
# Types of libraries, and of our own modules that have no page.
nitpick_ignore_regex = [("py:.*", r"(torch|nn|numpy|PIL|os|pathlib|collections)\..*")]
nitpick_ignore_regex += [("py:.*", r"san\.(counts|data)\..*")]
nitpick_ignore_regex += [("py:.*", r"Module|Tensor|Path|PathLike|Any|ParameterCounts")]
_FIELD = re.compile(r"^(?P<names>\w+(, \w+)*): ")


def _show_fields(_app: Any, _what: str, _name: str, _of: Any, _how: Any, lines: list[str]) -> None:
    """Turn the lines `name: what it is` of a docstring into a list of reStructuredText."""
    shown: list[str] = []
    in_list = False
    for line in lines:
        if _FIELD.match(line):
            shown += [] if in_list else [""]
            in_list = True
            shown.append(_FIELD.sub(r"- **\g<names>**: ", line))
            continue
        in_list = in_list and bool(line)
        shown.append(f"  {line.strip()}" if in_list else line)
    lines[:] = shown


def setup(app: Any) -> None:
    """Let Sphinx call what is above."""
    app.connect("autodoc-process-docstring", _show_fields)
