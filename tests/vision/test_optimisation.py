"""Optimisers and schedules follow the published formulas and golden vectors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cl_core.optim import LARS
from cl_vision.hyper import OptimizerHyper
from cl_vision.methods.optimisation import configure

GOLDEN = Path(__file__).parents[1] / "golden"


def rates(hyper: OptimizerHyper, *, epochs: int, steps: int) -> list[float]:
    """The learning rate of every step."""
    made = configure(nn.Linear(2, 2), hyper, epochs=epochs, steps_per_epoch=steps)
    scheduler, found = made["lr_scheduler"]["scheduler"], []
    for _ in range(epochs):
        for _ in range(steps):
            found.append(made["optimizer"].param_groups[0]["lr"])
            made["optimizer"].step()
            if made["lr_scheduler"]["interval"] == "step":
                scheduler.step()
        if made["lr_scheduler"]["interval"] == "epoch":
            scheduler.step()
    return found


def test_the_schedule_of_directclr_is_the_golden_one():
    golden = np.load(GOLDEN / "directclr.npz", allow_pickle=False)
    base, epochs, steps = golden["sched__base_epochs_steps"]
    hyper = OptimizerHyper(learning_rate=float(base), warmup_epochs=10, final_factor=1e-3)
    found = rates(hyper, epochs=int(epochs), steps=int(steps))
    np.testing.assert_allclose(found, golden["sched__lr"][: len(found)], rtol=1e-9, atol=1e-12)


def test_the_schedule_of_hcsc_is_the_golden_one():
    golden = np.load(GOLDEN / "hcsc.npz", allow_pickle=False)
    base, final, expected = (golden[f"lr__{name}"] for name in ("base", "final", "lr"))
    hyper = OptimizerHyper(
        learning_rate=float(base), schedule="epoch", final_factor=float(final / base)
    )
    found = rates(hyper, epochs=len(expected), steps=3)
    np.testing.assert_allclose(found[::3], expected, rtol=1e-7, atol=1e-12)
    assert found[0] == found[2] != found[3]


def test_a_part_of_an_epoch_warms_up():
    found = rates(OptimizerHyper(learning_rate=1.0, warmup_epochs=0.5), epochs=2, steps=8)
    assert found[:5] == [0, 0.25, 0.5, 0.75, 1.0]
    assert found[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 11 / 12)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("lars", LARS),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
    ],
)
def test_the_optimiser_is_the_one_named_with_its_numbers(name, kind):
    hyper = OptimizerHyper(optimizer=name, learning_rate=0.3, weight_decay=0.02, momentum=0.8)
    optimizer = configure(nn.Linear(2, 2), hyper, epochs=1, steps_per_epoch=1)["optimizer"]
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.02)
    assert name.startswith("adam") or group["momentum"] == 0.8


def test_shared_parameters_are_taken_once_and_frozen_ones_not():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    second.bias.requires_grad_(False)
    made = configure([first, second], OptimizerHyper(), epochs=1, steps_per_epoch=1)
    (group,) = made["optimizer"].param_groups
    assert [p is q for p, q in zip(group["params"], first.parameters(), strict=True)] == [True] * 2


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="none of the modules"):
        configure(nn.ReLU(), OptimizerHyper(), epochs=1, steps_per_epoch=1)
    with pytest.raises(ValueError, match="fewer than the 2 epochs"):
        configure(nn.Linear(1, 1), OptimizerHyper(warmup_epochs=2), epochs=2, steps_per_epoch=4)
    for wrong in (
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"final_factor": 1.5},
        {"warmup_epochs": -1.0},
        {"schedule": "epoch", "warmup_epochs": 1.0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)).partition("_")[0]):
            OptimizerHyper(**wrong)
