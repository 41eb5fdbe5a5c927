from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder

from cl_vision.cli import main

TINY = [
    "condense",
    "--data",
    "digits",
    "--method",
    "dsac",
    "--preset",
    "cpu-smoke",
    "--width",
    "4",
    "--depth",
    "1",
    "--inner_loop",
    "2",
    "--outer_loop",
    "3",
    "--real_batch",
    "4",
    "--trainer.tensorboard",
    "false",
    "--trainer.progress",
    "false",
    "--trainer.accelerator",
    "cpu",
]


def test_a_stopped_and_resumed_run_equals_the_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*TINY, "--out", str(whole)]) == 0
    assert main([*TINY, "--out", str(parts), "--time_budget", "0.001"]) == 0
    assert main([*TINY, "--out", str(parts), "--resume"]) == 0
    one, other = (load_file(out / "model.safetensors") for out in (whole, parts))
    assert torch.equal(one["images"], other["images"])
    assert not torch.equal(one["images"], one["start"])
    with np.load(whole / "condensed.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], one["images"].numpy())
    pictures = ImageFolder(whole / "condensed")
    assert [label for _, label in pictures] == list(range(10))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--ipc", "0"], "ipc must be at least 1, got 0"),
        (["--method", "D"], "--method"),
        (["--outer_warmup", "4"], "outer_warmup must be at most outer_loop, 3, got 4"),
        (["--depth", "4"], "8 x 8 pixels do not allow"),
        (["--ipc", "140"], "8 (139)"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, capsys, options, told):
    assert main([*TINY, "--out", str(tmp_path / "out"), *options]) == 2
    line = capsys.readouterr().err.strip()
    assert told in line
    assert "\n" not in line
