"""What every program offers beside its verbs: help, near names, lists, completion, silence."""

from __future__ import annotations

import os
import pty
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal

import pytest

from cl_core.commands.cli import run_program
from cl_core.commands.completion import candidates
from cl_core.commands.options import Options, Source
from cl_core.commands.own import OWN_COMMANDS
from cl_core.commands.tabular import folded, tables_in, text_table
from cl_core.commands.terminal import be_quiet, is_quiet, say, tell
from cl_core.commands.vocabulary import options_of, paths_of, spelled_out
from cl_core.errors import InputError
from cl_core.runs import Run

BIN = Path(sys.prefix) / "bin"
HERE = __name__


@dataclass(frozen=True, kw_only=True)
class Inner(Options):
    """How it is done.

    Args:
        temperature: Smaller is harder.
        strict: Whether to be strict.
    """

    temperature: float = 0.5
    strict: bool = True


@dataclass(frozen=True, kw_only=True)
class Places(Options):
    """Where everything lies.

    Args:
        data: What to read,
            on two lines.
        out: Where to write.
        overwrite: Replace what is there.
    """

    data: Source
    out: Path
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Places):
    """Learn something.

    Of much data, with few labels.

    Args:
        method: How: ``plain`` or ``fancy``.
        image_size: In pixels.
        sizes: Several.
        inner: The inner options.
    """

    method: Literal["plain", "fancy"] = "plain"
    image_size: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)


def learn(config: LearnConfig) -> str:
    return f"{config.method} {config.image_size} {config.inner.temperature} {is_quiet()}"


def rows() -> list[dict[str, str]]:
    return [{"data": "iris", "what": "150 flowers"}, {"data": "wine", "what": "178 bottles"}]


COMMANDS = {"learn": (LearnConfig, f"{HERE}:learn"), "deep": {"er": (LearnConfig, f"{HERE}:learn")}}
GIVEN = ["learn", "--data", "x", "--out", "y"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    module = type(sys)(HERE)
    module.__dict__.update(globals())
    monkeypatch.setitem(sys.modules, HERE, sys.modules.get(HERE) or module)
    for name in ("CL_TRACEBACK", "CL_COMPLETE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def run(*words):
    return run_program("cl-core", COMMANDS, words, lists={"data": f"{HERE}:rows"})


def test_hyphens_in_an_option_are_underscores(capsys):
    assert run(*GIVEN, "--image-size", "8", "--inner.temperature=2") == 0
    assert capsys.readouterr().out == "plain 8 2.0 False\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lern"], "no command 'lern'; did you mean learn?"),
        (["er"], "no command 'er'; did you mean deep er? there are learn, deep, list"),
        (["deep"], "name a command: er (see cl-core deep --help)"),
        (["deep", "err"], "no command 'err'; did you mean er? there are er"),
        ([], "name a command: learn, deep, list, compare, export, completion"),
        ([*GIVEN, "--image-sise", "3"], "no option --image_sise: did you mean --image_size?"),
        ([*GIVEN, "--temperature", "3"], "no option --temperature: did you mean --inner.temp"),
        ([*GIVEN, "--zzz"], "there is no option --zzz"),
        ([*GIVEN, "--method", "plian"], "--method must be 'plain' or 'fancy', got 'plian'"),
        ([*GIVEN, "--method=fanzy"], "got 'fanzy': did you mean fancy?"),
        ([*GIVEN, "--config", "c.yaml"], "c.yaml: there is no option imagesize: did you mean"),
        ([*GIVEN, "--config", "m.yaml"], "m.yaml: method must be 'plain' or 'fancy', got 'fncy'"),
        (["learn", "--help", "iner"], "no group 'iner'; did you mean inner?"),
        (["list", "dat"], "no list 'dat'; did you mean data? there are methods, data"),
        (["list", "data", "roses"], "list data: none holds roses"),
        (["compare", "a"], "compare needs two runs at least"),
        (["completion", "tcsh"], "--shell must be 'bash', 'zsh' or 'fish'"),
    ],
)  # fmt: skip
def test_a_word_that_is_not_known_names_the_nearest(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("imagesize: 3\n")
    Path("m.yaml").write_text("method: fncy\n")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_help_groups_options_says_what_is_needed_and_shows_no_python(capsys):
    assert run("learn", "--help") == 0
    shown = capsys.readouterr().out
    assert "usage: cl-core learn --data PATH --out PATH [--option VALUE ...]" in shown
    assert (
        "Where everything lies:\n  --data PATH             What to read, on two lines. (needed)"
        in shown
    )
    assert "options:\n  --method plain|fancy    How: `plain` or `fancy`. (default: plain)" in shown
    assert "  --sizes [N,...]         Several. (default: [1,2])" in shown
    assert "  --inner.*               The inner options." in shown
    assert "--inner.temperature" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert not {"<class", "Literal", "Optional", "null"} & set(shown.replace("'", " ").split())
    assert run("learn", "--help", "inner") == 0
    shown = capsys.readouterr().out
    assert "--inner.temperature X" in shown
    assert "(default: yes; --inner.strict\n" in shown
    assert "--data" not in shown
    assert run("learn", "-h", "all") == 0
    shown = capsys.readouterr().out
    assert "--inner.temperature X" in shown
    assert "--data PATH" in shown


def test_the_programs_help_lists_every_verb(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert "learn                   Learn something." in shown
    assert "deep er                 Learn something." in shown
    assert all(f"  {verb} " in shown for verb in OWN_COMMANDS)
    assert run("deep", "--help") == 0
    assert "usage: cl-core deep VERB" in capsys.readouterr().out


def test_lists_show_what_is_known_by_name(capsys):
    assert run("list") == 0
    assert capsys.readouterr().out == "cl-core list methods\ncl-core list data\n"
    assert run("list", "data") == 0
    assert capsys.readouterr().out == "data  what\niris  150 flowers\nwine  178 bottles\n"
    assert run("list", "data", "BOTTLES") == 0
    assert "iris" not in capsys.readouterr().out
    assert run("list", "methods", "fancy") == 0
    assert capsys.readouterr().out == "method          verb\n--method fancy  learn, deep er\n"


def test_quiet_says_nothing_but_what_went_wrong(capsys):
    assert run(*GIVEN, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run("--quiet", "learn", "--data", "x") == 2
    assert "--out" in capsys.readouterr().err
    assert not is_quiet()
    with be_quiet():
        tell("progress")
        say("a fault")
    assert capsys.readouterr().err == "a fault\n"


def test_a_place_that_holds_a_run_is_refused_before_the_work_is_imported(tmp_path, capsys):
    with Run.create(tmp_path / "run", {"a": 1}) as made:
        made.save_metrics({})
    absent = {"learn": (LearnConfig, "no.such.module:learn")}
    words = ["learn", "--data", "x", "--out", str(tmp_path / "run")]
    assert run_program("cl-core", absent, words) == 2
    assert "holds a run: continue it with --resume" in capsys.readouterr().err
    assert run_program("cl-core", absent, [*words, "--overwrite"]) == 1
    assert "No module named 'no'" in capsys.readouterr().err


def test_the_refusal_of_a_place_costs_less_than_a_second(tmp_path):
    with Run.create(tmp_path / "run", {"a": 1}) as made:
        made.save_metrics({})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["pretrain", "--data", "digits", "--out", str(tmp_path / "run")]
    done = subprocess.run([BIN / "cl-vision", *words], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert "holds a run" in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


TABLE = [{"model": "ARIEL", "accuracy (%)": "84.0", "macro F1 (%)": "83.1"},
         {"model": "raw", "accuracy (%)": "70.0", "macro F1 (%)": "69.0"}]  # fmt: skip


def test_a_wide_table_folds_and_keeps_its_first_column():
    lines = ["before", *text_table(TABLE), "after " * 9]
    assert folded(lines, 80) == list(lines)
    assert folded(lines, 24) == [
        "before",
        "model  accuracy (%)", "ARIEL          84.0", "raw            70.0",
        "",
        "model  macro F1 (%)", "ARIEL          83.1", "raw            69.0",
        "after " * 9,
    ]  # fmt: skip
    assert [table is None for table, _ in tables_in(lines)] == [True, False, True]


def test_completion_offers_verbs_options_and_values():
    commands = {**COMMANDS, **OWN_COMMANDS}
    assert candidates(commands, ["le"]) == ["learn"]
    assert candidates(commands, ["deep", ""]) == ["er", "--help", "--version"]
    assert candidates(commands, ["learn", "--im"]) == ["--image_size"]
    assert candidates(commands, ["learn", "--method", ""]) == ["plain", "fancy"]
    assert candidates(commands, ["learn", "--help", ""]) == ["inner", "all"]
    assert candidates(commands, ["learn", "--data", ""]) == []  # files: the shell's own
    assert candidates(commands, ["completion", "f"]) == ["fish"]
    assert candidates(commands, ["nothing", "x"]) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_makes_a_shell_complete(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = subprocess.run(
        [BIN / "cl-vision", "completion", shell], capture_output=True, text=True
    )
    (tmp_path / "script").write_text(script.stdout)
    ask = {
        "bash": "source ./script; COMP_WORDS=(cl-vision pretrain --method di); COMP_CWORD=3; "
        '_cl_vision; echo "${COMPREPLY[@]}"',
        "zsh": "compdef() { :; }; functions[compdef]=:; compadd() { shift; echo ${(P)1}; }; "
        "source ./script; words=(cl-vision pretrain --method di); CURRENT=4; _cl_vision",
        "fish": "source ./script; complete --do-complete 'cl-vision pretrain --method di'",
    }[shell]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, "-c", ask], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split() == ["directclr"], done.stderr


def test_every_option_of_every_program_is_explained():
    packages = ("graphs", "vision", "remote_sensing", "medical", "agriculture")
    tables = [import_module(f"cl_{package}.cli").COMMANDS for package in packages]
    for commands in (*tables, OWN_COMMANDS):
        for path, (config_class, _) in paths_of(commands):
            for option in options_of(config_class):
                assert option.about, f"{path} --{option.name}"


def test_what_is_a_users_own_key_is_not_an_unknown_option():
    from cl_medical.lesions.config import PrepareConfig, TrainConfig

    for kind in (PrepareConfig, TrainConfig):
        if any(option.name == "mapping" for option in options_of(kind)):
            spelled_out(["--mapping.mel", "1"], kind)
    with pytest.raises(InputError, match=r"no option --data\.mel"):
        spelled_out(["--data.mel", "1"], LearnConfig)


def test_a_table_is_folded_to_the_terminal_it_is_printed_on(tmp_path):
    code = (
        "from pathlib import Path\n"
        "from cl_core.commands.outcome import Outcome, text_table\n"
        f"print(Outcome(out=Path('.'), metrics={{}}, lines=text_table({TABLE!r})).shown())"
    )
    main, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", code], stdout=terminal, env={**os.environ, "COLUMNS": "24"}
    )
    os.close(terminal)
    shown = os.read(main, 10_000).decode()
    assert len(shown.splitlines()) == 7, shown
