"""Recipes mean the same from Python and from the programs, and only for the verb they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import pytest

from cl_core.checks import OptionError
from cl_core.commands.recipes import _files, read_recipe, recipe_names, verb_of
from cl_core.config import DemoOptions

PROGRAMS = ("graphs", "vision", "remote_sensing", "medical", "agriculture")


class Verb(NamedTuple):
    words: tuple[str, ...]
    config: type[Any]
    target: str


def verbs() -> Iterator[Verb]:
    """Every verb of every program."""

    def walk(table: Mapping[str, Any], words: tuple[str, ...]) -> Iterator[Verb]:
        for word, entry in table.items():
            if isinstance(entry, Mapping):
                yield from walk(entry, (*words, word))
            else:
                yield Verb((*words, word), *entry)

    for name in PROGRAMS:
        table = import_module(f"cl_{name}.cli").COMMANDS
        yield from walk(table, (f"cl-{name.replace('_', '-')}",))


VERBS = list(verbs())
WITH_RECIPES = [verb for verb in VERBS if "recipe" in verb.config.__dataclass_fields__]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb.words))
def test_a_configuration_is_called_as_its_verb(verb):
    assert verb_of(verb.config) == verb.words[-1]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb.words))
def test_the_types_of_options_are_known_wherever_their_class_is_extended(verb):
    kinds = [kind for kind in verb.config.__mro__ if "__annotations__" in vars(kind)]
    unknown = {
        f"{kind.__name__}.{name}": hint
        for kind in kinds
        for name, hint in vars(kind)["__annotations__"].items()
        if isinstance(hint, str)
    }
    assert not unknown


DEMOS = [verb for verb in VERBS if verb.words[-1] == "demo"]


@pytest.mark.parametrize("verb", DEMOS, ids=lambda verb: " ".join(verb.words))
def test_demos_take_what_all_demos_take(verb):
    options = verb.config()
    assert isinstance(options, DemoOptions)
    assert options.out.parent.name == "runs"
    assert (options.overwrite, options.seed) == (True, 0)
    with pytest.raises(OptionError, match="seed must be at least 0, got -1"):
        verb.config(seed=-1)


@pytest.mark.parametrize("verb", WITH_RECIPES, ids=lambda verb: " ".join(verb.words))
def test_every_recipe_fits_its_verb_and_no_other(verb):
    own = recipe_names(verb.config)
    for name in _files(verb.config):
        if name in own:
            assert read_recipe(verb.config, name)
        else:
            with pytest.raises(OptionError, match=f"{name} is a recipe of "):
                read_recipe(verb.config, name)
    with pytest.raises(OptionError, match="there is no recipe 'nonsense'"):
        read_recipe(verb.config, "nonsense")


def test_every_recipe_is_somebodys():
    for verb in WITH_RECIPES:
        group = [v for v in WITH_RECIPES if _files(v.config) == _files(verb.config)]
        claimed = {name for v in group for name in recipe_names(v.config)}
        assert claimed == set(_files(verb.config))
