from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Literal

import pytest
import yaml

from cl_core.checks import OptionError
from cl_core.commands.cli import run_program
from cl_core.commands.options import Options, Source
from cl_core.commands.outcome import Outcome
from cl_core.commands.recipes import _files
from cl_core.errors import InputError, TrainingError


@dataclass(frozen=True, kw_only=True)
class Inner(Options):
    """Inner options.

    Args:
        devices: How many devices.
        strict: Whether to be strict.
    """

    devices: int = 1
    strict: bool = False

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"inner.devices must be at least 1, got {self.devices}")


@dataclass(frozen=True, kw_only=True)
class ShowConfig(Options):
    """Count the words of a file.

    A second paragraph.

    Args:
        data: The file.
        rate: A positive rate.
        recipe: Named settings.
        inner: Inner options.
        again: Whether to count twice.
    """

    data: str
    rate: float = 0.5
    recipe: str | None = None
    inner: Inner = field(default_factory=Inner)
    again: bool = False

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate must be positive, got {self.rate}")


def show(config: ShowConfig) -> str:
    return f"{config.data} {config.rate} {config.inner.devices}"


def switches(config: ShowConfig) -> str:
    return f"{config.again} {config.inner.strict}"


def clears(config: ShowConfig) -> str:
    for name in ("RANK", "WORLD_SIZE"):
        os.environ.pop(name)
    return "the second process speaks"


def opens(config: ShowConfig) -> None:
    Path(config.data).read_text()


def refuse(config: ShowConfig) -> None:
    raise InputError(f"{config.data} is\nnot there; name another file")


def diverge(config: ShowConfig) -> None:
    raise TrainingError(f"the loss is nan at step {config.data}")


def crash(config: ShowConfig) -> None:
    raise KeyError(config.data)


def half_done(config: ShowConfig) -> Outcome:
    return Outcome(out=Path(config.data), metrics={}, lines=["one of two"], code=1)


def interrupt(config: ShowConfig) -> None:
    raise KeyboardInterrupt


HERE = __name__
COMMANDS = {
    "show": (ShowConfig, f"{HERE}:show"),
    "switches": (ShowConfig, f"{HERE}:switches"),
    "opens": (ShowConfig, f"{HERE}:opens"),
    "clears": (ShowConfig, f"{HERE}:clears"),
    "refuse": (ShowConfig, f"{HERE}:refuse"),
    "diverge": (ShowConfig, f"{HERE}:diverge"),
    "crash": (ShowConfig, f"{HERE}:crash"),
    "interrupt": (ShowConfig, f"{HERE}:interrupt"),
    "half": (ShowConfig, f"{HERE}:half_done"),
    "deeper": {"show": (ShowConfig, f"{HERE}:show")},
}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules.get(HERE) or _this_module())
    monkeypatch.delenv("CL_TRACEBACK", raising=False)


def _this_module():
    module = type(sys)(HERE)
    module.__dict__.update(globals())
    return module


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """The command's configuration as that of a package with recipes."""
    folder = tmp_path / "some_suite" / "recipes"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    (folder / "slow.yaml").write_text("verb: show\nrate: 0.125\ninner:\n  devices: 3\n")
    (folder / "dotted.yaml").write_text("verb: [show, tell]\ninner.devices: 4\n")
    (folder / "loud.yaml").write_text("verb: sing\nvolume: 11\n")
    (folder / "stale.yaml").write_text("verb: show\nvolume: 11\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ShowConfig, "__module__", "some_suite.config")
    monkeypatch.setitem(sys.modules, "some_suite.config", _this_module())
    for name in ("some_suite", "some_suite.recipes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    _files.cache_clear()
    yield
    _files.cache_clear()


def run(*argv):
    return run_program("cl-core", COMMANDS, argv)


def test_a_command_gets_its_configuration_and_prints_its_result(capsys):
    assert run("show", "--data", "a b", "--inner.devices", "2") == 0
    assert capsys.readouterr().out == "a b 0.5 2\n"


def test_an_outcome_can_say_that_a_part_failed(capsys):
    assert run("half", "--data", "a") == 1
    assert "one of two" in capsys.readouterr().out


def test_of_several_processes_the_first_prints(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, shown in (("0", "x 0.5 1\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert run("show", "--data", "x") == 0
        assert capsys.readouterr().out == shown


def test_a_launcher_that_clears_its_variables_does_not_make_every_process_the_first(
    capsys, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run("clears", "--data", "x") == 0
    assert capsys.readouterr().out == ""


def test_nested_verbs_reach_their_command(capsys):
    assert run("deeper", "show", "--data", "x", "--rate", "2") == 0
    assert capsys.readouterr().out == "x 2.0 1\n"


def test_a_flag_beats_the_file_beats_the_recipe_beats_the_default(tmp_path, capsys, recipes):
    file = tmp_path / "c.yaml"
    file.write_text("data: f\nrecipe: slow\ninner:\n  devices: 5\n")
    assert run("show", "--data", "x") == 0
    assert run("show", "--data", "x", "--recipe", "slow") == 0
    assert run("show", "--config", str(file)) == 0
    assert run("show", "--config", str(file), "--rate", "9") == 0
    assert capsys.readouterr().out.splitlines() == ["x 0.5 1", "x 0.125 3", "f 0.125 5", "f 9.0 5"]


def test_print_config_shows_what_a_recipe_resolves_to(capsys, recipes):
    with pytest.raises(SystemExit) as stop:
        run("show", "--data", "x", "--recipe", "slow", "--print_config")
    assert stop.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown == {
        "data": "x",
        "rate": 0.125,
        "recipe": "slow",
        "inner": {"devices": 3, "strict": False},
        "again": False,
    }


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "False False"),
        (["--again"], "True False"),
        (["--inner.strict", "--again"], "True True"),
        (["--again", "false", "--inner.strict=true"], "False True"),
    ],
)
def test_a_switch_alone_means_yes(argv, expected, capsys):
    assert run("switches", *argv, "--data", "x") == 0
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["show"], ["--data", "required"]),
        (["show", "--data", "x", "--nope", "1"], ["--nope"]),
        (["show", "--dat", "x"], ["--dat"]),
        (["show", "--data", "x", "--rate", "fast"], ["--rate", "fast"]),
        (["show", "--data", "x", "--rate", "-1"], ["rate must be positive, got -1"]),
        (["show", "--data", "x", "--config", "absent.yaml"], ["--config", "absent.yaml"]),
        (["show", "--data", "x", "--recipe", "slo"], ["no recipe 'slo'", "did you mean slow"]),
        (
            ["show", "--data", "x", "--recipe", "loud"],
            ["loud is a recipe of sing, not of show", "for show there are dotted, slow"],
        ),
        (["show", "--data", "x", "--rate", "9" * 400], ["too large"]),
        (["show", "--data", "x", "--inner.devices", "9" * 5000], ["--inner.devices"]),
        (["show", "--data", "x", "--inner.devices", "two"], ["--inner.devices", "two"]),
        (["show", "--data", "x", "--inner.devices", "0"], ["inner.devices must be at least 1"]),
        (["sing"], ["sing", "show"]),
        ([], ["show"]),
        (["refuse", "--data", "x"], ["x is not there; name another file"]),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_two(argv, words, capsys, recipes):
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cl-core: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_failure_of_ours_is_exit_code_one_and_a_traceback_on_request(capsys, monkeypatch):
    assert run("crash", "--data", "x") == 1
    err = capsys.readouterr().err
    assert "KeyError" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("CL_TRACEBACK", "1")
    with pytest.raises(KeyError):
        run("crash", "--data", "x")


def test_a_training_that_fails_is_exit_code_one_and_its_line(capsys):
    assert run("diverge", "--data", "7") == 1
    assert capsys.readouterr().err == "cl-core: the loss is nan at step 7\n"


def test_an_interrupt_is_exit_code_130(capsys):
    assert run("interrupt", "--data", "x") == 130


def test_help_tells_the_docstring_and_imports_nothing_heavy(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
        import sys
        from dataclasses import dataclass
        from cl_core.commands.cli import run_program

        @dataclass(frozen=True, kw_only=True)
        class Config:
            \"\"\"Count words.

            Args:
                data: The file to count.
            \"\"\"

            data: str

        try:
            run_program("cl-core", {"count": (Config, "torch:tensor")}, ["count", "--help"])
        except SystemExit as stop:
            assert stop.code == 0
        heavy = {"torch", "numpy", "sklearn", "matplotlib", "lightning"} & set(sys.modules)
        assert not heavy, heavy
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "Count words." in done.stdout
    assert "The file to count." in done.stdout


def test_version_is_the_distributions(capsys):
    assert run("--version") == 0
    from cl_core import __version__

    assert capsys.readouterr().out == f"cl-core {__version__}\n"


def test_a_recipe_means_the_same_from_python(recipes):
    assert ShowConfig(data="x", recipe="slow").rate == 0.125
    assert ShowConfig(data="x", recipe="slow").inner == Inner(devices=3)
    assert ShowConfig(data="x", recipe="slow", rate=9.0, inner=Inner()).rate == 9.0
    assert ShowConfig(data="x", recipe="slow", inner=Inner()).inner == Inner()
    assert ShowConfig(data="x", recipe="slow", inner={"strict": True}).inner == Inner(
        devices=3, strict=True
    )
    assert ShowConfig.from_recipe("dotted", data="x").inner.devices == 4
    again = replace(ShowConfig(data="x", recipe="slow"), rate=1.0)
    assert (again.rate, again.inner.devices) == (1.0, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "slo"}, "there is no recipe 'slo'; did you mean slow?"),
        ({"recipe": "loud"}, "loud is a recipe of sing, not of show"),
        ({"recipe": "stale"}, "there is no option volume"),
        ({"rte": 1.0}, "there is no option rte: did you mean rate?"),
        ({"rate": "fast"}, "rate must be a number, got 'fast'"),
        ({"rate": True}, "rate must be a number, got True"),
        ({"rate": 10**400}, "rate must be a number, got a number of 1329 bits"),
        ({"rate": float("nan")}, "rate must be a number, got nan"),
        ({"again": 1}, "again must be true or false, got 1"),
        ({"inner": {"devices": 1.5}}, r"inner.devices must be a whole number, got 1.5"),
        ({"inner": {"device": 1}}, r"there is no option inner.device: did you mean devices?"),
        ({"inner": 3}, "inner must be a Inner or a mapping of its options, got 3"),
        ({"inner": {"devices": 2**60}}, r"inner.devices must be below 2\^53, got 61 bits"),
    ],
)
def test_python_refuses_what_the_command_line_refuses(given, message, recipes):
    with pytest.raises(OptionError, match=message):
        ShowConfig(data="x", **given)


@dataclass(frozen=True, kw_only=True)
class Kinds(Options):
    """Every kind of option.

    Args:
        data: A source.
        out: A path.
        mode: A literal.
        sizes: A list.
        pair: Two values.
        either: Of two kinds.
    """

    data: Source
    out: Path | None = None
    mode: Literal["fast", "exact"] = "fast"
    sizes: tuple[int, ...] = ()
    pair: tuple[float, str] = (1.0, "a")
    either: int | str = "auto"


def test_values_become_what_the_option_holds():
    made = Kinds(data="d", out="a/b", sizes=[1, 2], pair=[3, "b"], either=4)
    assert made == Kinds(data="d", out=Path("a/b"), sizes=(1, 2), pair=(3.0, "b"), either=4)
    assert isinstance(made.pair[0], float)
    array = object()
    assert Kinds(data=array).data is array
    assert Kinds(data=Path("d")).data == "d"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "fats"}, "mode must be 'fast' or 'exact', got 'fats': did you mean fast?"),
        ({"sizes": 3}, "sizes must be a list, got 3"),
        ({"sizes": [1, "b"]}, r"sizes\[1\] must be a whole number, got 'b'"),
        ({"pair": [1]}, "pair must be 2 values"),
        ({"either": 1.5}, "either must be a whole number or text, got 1.5"),
        ({"out": 3}, "out must be a path, got 3"),
        ({"data": 3}, "data must be text, got 3"),
    ],
)
def test_values_of_other_kinds_are_refused(given, message):
    with pytest.raises(OptionError, match=message):
        Kinds(**{"data": "d"} | given)


def test_what_a_terminal_obeys_is_spelled_out(capsys):
    assert run("refuse", "--data", "\x1b]0;title\x07\x1b[31mred‮") == 2
    err = capsys.readouterr().err
    assert r"\x1b]0;title\x07\x1b[31mred\u202e is not there" in err
    assert run("show", "--data", "a\x1b[2J") == 0
    assert capsys.readouterr().out == "a\\x1b[2J 0.5 1\n"


def test_warnings_are_one_printable_line(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        dedent("""
        import warnings
        from dataclasses import dataclass
        from cl_core.commands.cli import run_program

        @dataclass
        class Config:
            data: str

        def warn(config):
            warnings.warn(f"see {config.data}\\nhere")

        run_program("cl-core", {"warn": (Config, "__main__:warn")})
        """)
    )
    command = [sys.executable, script, "warn", "--data", "x\x1b[0m"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "UserWarning: see x\\x1b[0m here\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"data: caf\xe9\n", ["c.yaml", "not UTF-8"]),
        (b"data: [" * 20_000, ["c.yaml", "64 deep"]),
        (b"data: {a: 1\n", ["c.yaml", "no YAML in line"]),
        (b"data: x\nrate: " + b"9" * 5000, ["c.yaml"]),
    ],
)
def test_a_file_of_options_that_cannot_be_read_is_one_line(tmp_path, content, words, capsys):
    (tmp_path / "c.yaml").write_bytes(content)
    assert run("show", "--config", str(tmp_path / "c.yaml")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_name_that_the_machine_refuses_is_the_users_to_mend(capsys):
    assert run("opens", "--data", "a" * 300) == 2
    assert "File name too long" in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class OtherConfig(ShowConfig):
    """Of a package without recipes.

    Args:
        data: The file.
    """


def test_a_recipe_of_one_group_is_not_sought_in_another_with_the_same_verb(recipes, capsys):
    commands = {
        "first": {"show": (OtherConfig, f"{HERE}:show")},
        "second": {"show": (ShowConfig, f"{HERE}:show")},
    }
    words = ["second", "show", "--data", "a", "--recipe", "slow"]
    assert run_program("cl-core", commands, words) == 0
    assert capsys.readouterr().out == "a 0.125 3\n"
