import dataclasses
import subprocess
import sys

import pytest
from jsonargparse import ArgumentParser

from cl_core.config import TrainerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A command with training options.

    Args:
        trainer: How to train.
    """

    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)


def parse(*arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config, None, as_group=False)
    return parser.instantiate(parser.parse_args(list(arguments))).trainer


def test_options_nest_on_the_command_line():
    flags = ["--trainer.devices", "2", "--trainer.precision", "bf16-mixed"]
    assert parse(*flags) == TrainerConfig(devices=2, precision="bf16-mixed")
    assert parse("--trainer.devices", "auto").devices == "auto"
    assert parse("--trainer.gradient_clip", "0.5").gradient_clip == 0.5
    assert parse("--trainer.progress", "false").progress is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "trainer.devices must be at least 1, got 0"),
        ({"num_nodes": 0}, "trainer.num_nodes must be at least 1"),
        ({"precision": "16"}, "precision must be '64-true', .* got '16'"),
        ({"gradient_clip": 0.0}, "gradient_clip must be"),
        ({"gradient_clip": float("nan")}, "gradient_clip must be"),
        ({"checkpoint_every": -1}, "trainer.checkpoint_every must be 0"),
        ({"log_every": 0}, "trainer.log_every must be at least 1"),
        ({"strategy": "ddp_spawn"}, "trainer.strategy 'ddp_spawn' .* use ddp"),
        ({"strategy": "ddp_notebook"}, "use ddp"),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainerConfig(**options)


def test_every_option_is_explained():
    for field in dataclasses.fields(TrainerConfig):
        assert f"        {field.name}: " in TrainerConfig.__doc__


def test_importing_the_options_and_runs_does_not_import_torch():
    code = "import sys, cl_core.config, cl_core.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
