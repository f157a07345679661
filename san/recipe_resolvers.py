"""What a recipe says of the settings of a run, as interpolations of configurations.

`${recipe:KEY}` is the recipe's value of a setting for the task and method of the run, and
`${recipe:KEY,VALUE}` that of one that a recipe need not have. `${recipe_row:}` is the row that a
recipe has for them, and `${suite_recipe:}` the recipe of the suite. `${on_convnext:A,B}` is A where
the backbone is a ConvNeXt, else B.
"""

from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from san import installation, recipe_files, settings
from san.config_files import method_node, read_choice
from san.config_names import backbone_name
from san.errors import InvalidValueError
from san.recipe_files import Cell
from san.runtime.paths import folder_key
from san.tasks import load_suite


def register_resolvers() -> None:
    """Tell OmegaConf what the interpolations stand for."""
    OmegaConf.register_new_resolver("recipe", _recipe_value, replace=True)
    OmegaConf.register_new_resolver("recipe_row", _recipe_row, replace=True)
    OmegaConf.register_new_resolver("on_convnext", _on_convnext, replace=True)
    OmegaConf.register_new_resolver("suite_recipe", _suite_recipe, replace=True)


def _recipe_value(key: str, *default: Any, _root_: DictConfig) -> Any:
    """Return what the recipe of a configuration says of a setting.

    That is the value of its row for the cell, else its own, by method where it has several, else
    that of the recipe it is based on, else the default.
    """
    missing = f"recipe.{key}"
    row = OmegaConf.select(_root_, "recipe.row")
    if row is not None and key in row:
        return row[key]  # `null`, too
    for place in ("recipe", "recipe.base"):
        values = OmegaConf.select(_root_, place)
        found = None if values is None else values.get(key)
        if isinstance(found, DictConfig):
            missing = f"recipe.{key}.default"
            found = found.get(_root_.method.name, found.get("default"))
        if found is not None:
            return found
    if default:
        is_list = isinstance(default[0], list)
        return OmegaConf.create(default[0]) if is_list else default[0]
    raise InvalidValueError(
        f"The configuration has no `{missing}`, which is the value of `{key}`; it is required. "
        f"Leave out ~{missing}, or give {key}=VALUE."
    )


def _on_convnext(there: Any, elsewhere: Any, _root_: DictConfig) -> Any:
    """Return one of two values by the backbone; timm's name says the family without torch."""
    backbone = _root_.get("backbone")
    is_convnext = backbone is not None and "convnext" in backbone.timm_name
    value = there if is_convnext else elsewhere
    return OmegaConf.create(value) if isinstance(value, list) else value


def _recipe_row(_root_: DictConfig) -> DictConfig | None:
    """Return values and evidence of the row that a recipe has for the cell of a configuration."""
    is_searched = _root_.recipe.get("search") is not None
    path = installation.find_rows(_root_.recipe.rows, is_own=is_searched)
    if is_searched and not path.is_file():
        return None
    row = recipe_files.find_row(path, _cell_of(_root_))
    return None if row is None else OmegaConf.create({**row.values, **row.evidence})


def _cell_of(root: DictConfig) -> Cell:
    """Return what a configuration is looked up by in the rows of a recipe."""
    backbone: Any = OmegaConf.to_container(root.backbone)
    options: Any = OmegaConf.to_container(root.method, resolve=False)
    method = options["name"]
    defaults = _method_options(method)
    departures = {}
    for name, value in options.items():
        is_default = name in defaults and value in defaults[name]
        if name != "name" and not is_default:
            departures[name] = settings.override_value(value)
    return Cell(
        suite=root.data.suite,
        backbone=backbone_name(backbone),
        method=method,
        settings=departures,
        task=_task_key(root.data),
    )


def _task_key(data: DictConfig) -> str:
    """Return what the task is called in rows; of a user's own images with digits of their path."""
    if load_suite(data.suite).is_own_images:
        return folder_key(data.root, data.task)
    return str(data.task)


@cache
def _method_options(method: str) -> dict[str, tuple[Any, ...]]:
    """Return the default of each option of a method, as it is written and as it is resolved."""
    node = method_node(method)
    written: Any = OmegaConf.to_container(node, resolve=False)
    resolved: Any = OmegaConf.to_container(node, resolve=True)
    return {name: (written[name], resolved[name]) for name in written}


def _suite_recipe(_root_: DictConfig) -> DictConfig:
    """Return the recipe that the suite of a configuration has for its task."""
    suite = load_suite(_root_.data.suite)
    name = suite.recipe
    if not suite.is_own_images:
        name = suite.task(_root_.data.task).recipe or name
    return OmegaConf.create(read_choice("recipe", name))
