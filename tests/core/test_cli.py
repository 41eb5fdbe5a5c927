from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from textwrap import dedent

import pytest
import yaml

from cl_core.commands.cli import run_program
from cl_core.errors import InputError, TrainingError


@dataclass(frozen=True, kw_only=True)
class Inner:
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
class Config:
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


def show(config: Config) -> str:
    return f"{config.data} {config.rate} {config.inner.devices}"


def switches(config: Config) -> str:
    return f"{config.again} {config.inner.strict}"


def clears(config: Config) -> str:
    for name in ("RANK", "WORLD_SIZE"):
        os.environ.pop(name)
    return "the second process speaks"


def refuse(config: Config) -> None:
    raise InputError(f"{config.data} is\nnot there; name another file")


def diverge(config: Config) -> None:
    raise TrainingError(f"the loss is nan at step {config.data}")


def crash(config: Config) -> None:
    raise KeyError(config.data)


def interrupt(config: Config) -> None:
    raise KeyboardInterrupt


HERE = __name__
COMMANDS = {
    "show": (Config, f"{HERE}:show"),
    "switches": (Config, f"{HERE}:switches"),
    "clears": (Config, f"{HERE}:clears"),
    "refuse": (Config, f"{HERE}:refuse"),
    "diverge": (Config, f"{HERE}:diverge"),
    "crash": (Config, f"{HERE}:crash"),
    "interrupt": (Config, f"{HERE}:interrupt"),
    "deeper": {"show": (Config, f"{HERE}:show")},
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
    folder = tmp_path / "some_recipes"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "slow.yaml").write_text("rate: 0.125\ninner:\n  devices: 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "some_recipes"
    sys.modules.pop("some_recipes", None)


def run(*argv, recipes=None):
    return run_program("cl-core", COMMANDS, argv, recipes=recipes)


def test_a_command_gets_its_configuration_and_prints_its_result(capsys):
    assert run("show", "--data", "a b", "--inner.devices", "2") == 0
    assert capsys.readouterr().out == "a b 0.5 2\n"


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
    assert run("show", "--data", "x", recipes=recipes) == 0
    assert run("show", "--data", "x", "--recipe", "slow", recipes=recipes) == 0
    assert run("show", "--config", str(file), recipes=recipes) == 0
    assert run("show", "--config", str(file), "--rate", "9", recipes=recipes) == 0
    assert capsys.readouterr().out.splitlines() == ["x 0.5 1", "x 0.125 3", "f 0.125 5", "f 9.0 5"]


def test_print_config_shows_what_a_recipe_resolves_to(capsys, recipes):
    with pytest.raises(SystemExit) as stop:
        run("show", "--data", "x", "--recipe", "slow", "--print_config", recipes=recipes)
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
        (["show", "--data", "x", "--inner.devices", "two"], ["--inner.devices", "two"]),
        (["show", "--data", "x", "--inner.devices", "0"], ["inner.devices must be at least 1"]),
        (["sing"], ["sing", "show"]),
        ([], ["show"]),
        (["refuse", "--data", "x"], ["x is not there; name another file"]),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_two(argv, words, capsys, recipes):
    assert run(*argv, recipes=recipes) == 2
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
    with pytest.raises(SystemExit) as stop:
        run("--version")
    assert stop.value.code == 0
    from cl_core import __version__

    assert capsys.readouterr().out == f"cl-core {__version__}\n"
