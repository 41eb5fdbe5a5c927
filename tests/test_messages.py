"""What a message advises exists, as it is spelled there."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from PIL import Image

from cl_core.commands.cli import _spelled, run_program
from cl_core.commands.own import OWN_COMMANDS
from cl_core.images import open_images

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
OF_EVERY_COMMAND = {"help", "version", "config", "print_config", "quiet"}
# A placeholder of the usage line, and an option of gdal_calc, which a message tells to run.
OF_OTHERS = {"option", "calc"}


def programs() -> list[tuple[str, Mapping[str, Any]]]:
    """Every program with its table of commands."""
    found = []
    for path in sorted(ROOT.glob("packages/*/pyproject.toml")):
        scripts = tomllib.loads(path.read_text())["project"].get("scripts", {})
        for name, target in scripts.items():
            module = importlib.import_module(target.partition(":")[0])
            found.append((name, module.COMMANDS))
    return found


def options(entry: Any) -> Iterator[str]:
    """The dotted names of the options of a table or a command."""
    if isinstance(entry, Mapping):
        for part in entry.values():
            yield from options(part)
        return
    yield from fields(entry[0])


def fields(kind: type, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield prefix + name + "."
            yield from fields(hint, f"{prefix}{name}.")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that are not documentation."""
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        told = isinstance(node, ast.Constant) and id(node) not in documentation
        if told and isinstance(node.value, str):
            yield node.lineno, node.value


def test_every_option_in_a_message_is_one_of_a_command():
    known = OF_EVERY_COMMAND | OF_OTHERS
    for _, commands in programs():
        known |= set(options(commands)) | set(options(OWN_COMMANDS))
    strange = []
    for path in SOURCES:
        for line, text in strings(path):
            for word in re.findall(r"(?<![\w-])--([a-z][\w.-]*)", text):
                if word.rstrip(".") not in known and word not in known:
                    strange.append(f"{path.relative_to(ROOT)}:{line}: --{word}")
    assert strange == []


def test_what_core_says_of_images_names_arguments_that_exist():
    known = {"batch_size", "statistics", "shuffle", *inspect.signature(open_images).parameters}
    advised = []
    for path in SOURCES:
        if path.parent.name == "images" or path.name in ("loader.py", "orders.py"):
            for _, text in strings(path):
                advised += re.findall(r"\b(?:say|or|else|in|by|than) ([a-z_]+)=", text)
    assert len(advised) > 10
    assert set(advised) <= known


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_asleep_unless_the_user_says_otherwise(given, kept, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    monkeypatch.setattr("cl_core.commands.cli.say", lambda *_: None)
    assert run_program("cl-vision", {}, ["nothing"]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == kept


@dataclasses.dataclass
class Config:
    on_error: str = "stop"
    value_range: float | None = None
    max_pixels: int = 1


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("mend it, or say on_error=skip", "mend it, or say --on_error skip"),
        ("as in value_range=[-1,4], or so", "as in --value_range [-1,4], or so"),
        ("(more than max_pixels=9); say max_pixels=10, else on_error=skip",
         "(more than --max_pixels 9); say --max_pixels 10, else --on_error skip"),
        ("runs/on_error=skip/x.png: seed=3", "runs/on_error=skip/x.png: seed=3"),
    ],
)  # fmt: skip
def test_advice_is_spelled_with_the_options_of_the_command(line, typed):
    assert _spelled(line, Config()) == typed
    assert _spelled(line, None) == line


def test_the_advice_about_an_unreadable_file_works_as_it_is_given(tmp_path, capsys):
    from cl_vision.cli import main

    for kind in "ab":
        (tmp_path / "x" / kind).mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (32, 32), (k * 9, k, 9 * k)).save(tmp_path / "x" / kind / f"{k}.png")
    (tmp_path / "x" / "a" / "bad.png").write_bytes(b"")
    command = ["pretrain", "--data", str(tmp_path / "x"), "--image_size", "32", "--batch_size", "8"]
    command += ["--backbone", "resnet-8-16", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    (advice,) = re.findall(r"or say (--\S+ \S+)", capsys.readouterr().err)
    assert advice == "--on_error skip"
    assert main([*command, *advice.split()]) == 0
    assert "1 unreadable images left out" in capsys.readouterr().out
