"""Print the lowest version of each dependency that pyproject.toml allows, as pip takes them."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main() -> None:
    """Print `name==version` for every dependency that is no extra."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    for requirement in project["dependencies"]:
        found = re.match(r"([\w-]+)>=([\d.]+)", requirement)
        assert found, f"{requirement} has no lower bound"
        print(f"{found[1]}=={found[2]}")


if __name__ == "__main__":
    main()
