"""Who may import whom: the rules of ARCHITECTURE.md, read off the sources."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    f"cl_{folder.name}": folder / "src" / f"cl_{folder.name}"
    for folder in sorted((ROOT / "packages").iterdir())
    if (folder / "pyproject.toml").exists()
}

# From the ground up; a room may use the rooms of the lines above its own, and itself.
CORE = (
    ("_version", "_moved", "renamed", "errors"),
    ("checks", "tables"),
    ("commands.recipes", "commands.source", "commands.terminal", "commands.tabular"),
    ("commands.options",),
    ("config",),
    ("runs",),
    ("commands.vocabulary", "commands.outcome"),
    ("commands.manual", "commands.own"),
    ("commands.completion", "commands.export", "commands.listing", "commands.parser"),
    ("commands.cli", "commands.face"),
    ("distributed", "matmul", "seeding", "threads", "optim", "transforms"),
    ("orders",),
    ("losses", "kmeans", "loader", "networks"),
    ("images", "evaluation"),
    ("report", "training"),
)

# What `--help` imports: standard library, and of core what is as light.
LISTS = ("config", "hyper", "options", "table")
LIGHT = ("cl_core.checks", "cl_core.commands.options", "cl_core.commands.recipes", "cl_core.config")


@cache
def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    base = PACKAGES[package]
    found = {}
    for file in base.rglob("*.py"):
        parts = [package, *file.relative_to(base).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


@cache
def imports(file: Path) -> frozenset[str]:
    """The modules that a file imports, wherever in it, but for the type checker alone."""
    found = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            visit(child)

    visit(ast.parse(file.read_text("utf-8")))
    return frozenset(found)


def graph(package: str) -> dict[str, set[str]]:
    """Which modules of a package each one imports, packages that only list names left out."""
    known = modules(package)
    return {
        name: {
            other
            for other in imports(file)
            if other in known and other != name and not name.startswith(f"{other}.")
        }
        for name, file in known.items()
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_stand_on_core_and_never_on_each_other(package):
    for name, file in modules(package).items():
        strangers = {
            other
            for other in imports(file)
            if other.partition(".")[0] in PACKAGES
            and other.partition(".")[0] not in (package, "cl_core")
        }
        assert not strangers, f"{name} imports {strangers}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_needs_itself(package):
    order = TopologicalSorter(graph(package))
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"imports run in a circle: {' -> '.join(error.args[1])}")


def room_of(name: str) -> str:
    path = name.removeprefix("cl_core.")
    return path if path.startswith("commands.") else path.partition(".")[0]


def test_every_room_of_core_has_a_place():
    placed = {room for line in CORE for room in line}
    rooms = {room_of(name) for name in modules("cl_core") if name != "cl_core"}
    assert rooms - {"commands"} == placed


def test_core_is_built_from_the_ground_up():
    height = {room: level for level, line in enumerate(CORE) for room in line}
    for name, others in graph("cl_core").items():
        own = room_of(name)
        if own not in height:  # the packages' own faces
            continue
        for other in others:
            room = room_of(other)
            if room not in height or room == own:
                continue
            assert height[room] < height[own], f"{name} imports {other}, which stands no lower"


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"cl_core"}))
def test_options_and_programs_are_light(package):
    for name, file in modules(package).items():
        last = name.rpartition(".")[2]
        if last in LISTS:
            heavy = {
                other
                for other in imports(file)
                if other.startswith("cl_")
                and not other.startswith(LIGHT)
                and other.rpartition(".")[2] not in LISTS
                and other.rpartition(".")[0].rpartition(".")[2] not in LISTS
            }
            assert not heavy, f"{name} imports {heavy}"
        if last == "cli":
            others = {other for other in imports(file) if other.startswith("cl_")}
            assert all(".config" in other or "commands.cli" in other for other in others), others


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"cl_core"}))
def test_nothing_is_built_on_a_verb(package):
    for name, others in graph(package).items():
        used = {other for other in others if other.rpartition(".")[2] == "pipeline"}
        assert not used or name.rpartition(".")[2] in ("cli", "pipeline"), f"{name} imports {used}"
