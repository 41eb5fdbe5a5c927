"""What the documents tell to type exists: every command line and every import of README and docs.

Commands are read as the programs read them, up to the point where the work would begin; code blocks
are compiled and their imports resolved. Running all of them would take hours of training; the
programs' own tests run each verb.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cl_core.commands.own import OWN_COMMANDS
from cl_core.commands.recipes import recipe_names
from cl_core.commands.vocabulary import find_command, options_of, spelled_out

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packages/*/README.md")])
PROGRAM = re.compile(r"\bcl-(graphs|vision|remote-sensing|medical|agriculture)\b|\bcl_(\w+)\.cli\b")


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """The code blocks of a page with the line they begin at."""
    text = page.read_text("utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.M | re.S):
        yield text.count("\n", 0, found.start()) + 1, found[1]


def commands() -> list[tuple[str, str]]:
    """Every command line of a program, continued lines joined, comments and prompts left out."""
    found = []
    for page in PAGES:
        for line, block in blocks(page, "(?:console|bash|sh)"):
            for typed in re.sub(r"\\\n", " ", block).splitlines():
                own = typed.startswith("$ ") and "pip install" not in typed
                if own and PROGRAM.search(typed):
                    found.append((f"{page.relative_to(ROOT)}:{line}", typed[2:]))
    return found


@pytest.mark.parametrize(("place", "typed"), commands())
def test_every_command_that_is_told_is_one(place, typed):
    typed = re.sub(r"\$\((.*)\)", r"\1", typed.replace('"$(', "$(").replace(')"', ")"))
    words = shlex.split(typed.partition(" > ")[0], comments=True)
    place_of = next(k for k, word in enumerate(words) if PROGRAM.fullmatch(word))
    found = PROGRAM.fullmatch(words[place_of])
    package = (found[1] or found[2]).replace("-", "_")
    table = {**importlib.import_module(f"cl_{package}.cli").COMMANDS, **OWN_COMMANDS}
    rest = words[place_of + 1 :]
    if "--help" in rest or rest == ["--version"]:
        return
    taken, entry = find_command(table, rest)
    assert not isinstance(entry, dict), f"{place}: {typed}"
    config_class = entry[0]
    spelled_out(rest[len(taken) :], config_class)  # options and listed values
    for option, value in pairwise(rest):
        if option == "--recipe" and value[0].islower() and not value.endswith("-"):
            assert value in recipe_names(config_class), f"{place}: {value}"
    given = {word.partition("=")[0][2:].replace("-", "_") for word in rest if word[:2] == "--"}
    needed = {option.name for option in options_of(config_class) if option.is_required}
    assert "config" in given or "..." in rest or needed <= given | {"data"}, f"{place}: {typed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_compiles_and_imports_what_exists(page):
    for line, block in blocks(page, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cl_"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    told = f"{page.name}:{line}: {node.module} has no {alias.name}"
                    there = hasattr(module, alias.name) or importlib.util.find_spec(
                        f"{node.module}.{alias.name}"
                    )
                    assert there, told
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("cl_"):
                        importlib.import_module(alias.name)


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for place in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / place).exists(), f"{page.relative_to(ROOT)}: {place}"
