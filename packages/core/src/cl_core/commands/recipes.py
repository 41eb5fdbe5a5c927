"""Settings by name: the ``*.yaml`` files in a package's folder ``recipes``.

A recipe's ``verb`` says which command it is for, or which ones; its other keys are options.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from cl_core.checks import OptionError, near
from cl_core.tables.documents import parse_yaml

__all__ = ["nested_options", "read_recipe", "recipe_about", "recipe_names", "verb_of"]


def verb_of(config_class: type) -> str:
    """The verb whose options a class is: ``pretrain`` of ``PretrainConfig``."""
    return config_class.__name__.removesuffix("Config").lower()


def recipe_names(config_class: type) -> list[str]:
    """The recipes of a command, sorted."""
    verb = verb_of(config_class)
    found = _files(config_class).items()
    return sorted(name for name, content in found if verb in _verbs(content))


def read_recipe(config_class: type, name: str) -> dict[str, Any]:
    """The options a recipe sets, groups as mappings.

    Args:
        config_class: Of the command.
        name: Of the recipe.

    Raises:
        OptionError: If there is no such recipe, or it is another command's.
    """
    files, verb = _files(config_class), verb_of(config_class)
    known = recipe_names(config_class)
    if name not in files:
        there = f"there are {', '.join(known)}" if known else f"{verb} has none"
        raise OptionError(f"--recipe: there is no recipe {name!r}; {near(name, known)}{there}")
    content = files[name]
    if verb not in _verbs(content):
        there = f"for {verb} there are {', '.join(known)}" if known else f"{verb} has no recipes"
        owner = " and ".join(_verbs(content))
        raise OptionError(f"--recipe: {name} is a recipe of {owner}, not of {verb}; {there}")
    return nested_options({key: value for key, value in content.items() if key != "verb"})


def nested_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make groups of dotted names; those that are nested already stay."""
    nested: dict[str, Any] = {}
    for name, value in options.items():
        group, _, rest = name.partition(".")
        content = nested_options(value) if isinstance(value, Mapping) else value
        if rest:
            content = nested_options({rest: content})
        if isinstance(content, dict) and isinstance(nested.get(group), dict):
            content = {**nested[group], **content}
        nested[group] = content
    return nested


def _verbs(content: Mapping[str, Any]) -> list[str]:
    verbs = content["verb"]
    return [verbs] if isinstance(verbs, str) else list(verbs)


@cache
def _files(config_class: type) -> dict[str, dict[str, Any]]:
    """The recipes of the innermost package around a class that has some, by name."""
    texts = _texts(config_class)
    return {name: parse_yaml(text, source=f"{name}.yaml") for name, text in texts.items()}


def _texts(config_class: type) -> dict[str, str]:
    package = config_class.__module__
    while package:
        package = package.rpartition(".")[0]
        try:
            folder = importlib.resources.files(f"{package}.recipes")
        except (ModuleNotFoundError, ValueError):
            continue
        return {
            Path(file.name).stem: file.read_text("utf-8")
            for file in folder.iterdir()
            if file.name.endswith(".yaml")
        }
    return {}


def recipe_about(config_class: type, name: str) -> str:
    """The first sentence of the comment at the head of a recipe: whose settings they are."""
    lines = takewhile(lambda line: line.startswith("#"), _texts(config_class)[name].splitlines())
    comment = " ".join(line.lstrip("# ") for line in lines)
    # A sentence ends before a capital, not at "et al. 2022".
    return re.split(r"(?<=\.) (?=[A-Z])", comment, maxsplit=1)[0]
