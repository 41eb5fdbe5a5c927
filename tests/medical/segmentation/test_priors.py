"""Anatomical priors: the auto-encoder of masks, and its penalty."""

import json

import pytest
import torch
from volume_files import TINY, domain, manifest

from cl_medical.cli import main
from cl_medical.segmentation.data import Batch
from cl_medical.segmentation.losses import dice_per_class
from cl_medical.segmentation.priors import MaskPrior, PriorTraining, one_hot


def discs(n, seed=0, size=16):
    g = torch.Generator().manual_seed(seed)
    grid = torch.arange(size).float()
    center = size / 4 + torch.rand(n, 2, generator=g) * size / 2
    apart = [(grid[None] - center[:, i : i + 1]) ** 2 for i in (0, 1)]
    return (apart[0][:, :, None] + apart[1][:, None] < 12).long()


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    made = MaskPrior({"a": 2, "b": 3}, (8, 16), 2)
    training = PriorTraining(made, 0.01)
    optimizer = training.configure_optimizers()
    for step in range(60):
        first = discs(4, seed=step)
        labels = torch.cat([first, discs(4, seed=1000 + step) * 2])
        batch = Batch(torch.zeros(8, 1, 16, 16), labels, torch.tensor([0] * 4 + [1] * 4), labels)
        optimizer.zero_grad()
        training.training_step(batch, step).backward()
        optimizer.step()
    return made.freeze()


def test_true_masks_come_back(prior):
    masks = discs(8, seed=5000)
    missed, _ = dice_per_class(prior(one_hot(masks, 2), 0), masks)
    assert missed.item() < 0.3
    broken = masks.roll(8, 2) * (torch.arange(16) % 2)  # combs are no discs
    assert dice_per_class(prior(one_hot(broken, 2), 0), broken)[0].item() > missed.item() + 0.2


def test_the_penalty_equals_its_equation_and_is_least_for_the_truth(prior):
    masks, other = discs(3, seed=1), discs(3, seed=2)
    logits = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    far = prior.encode(logits.softmax(1), 0) - prior.encode(one_hot(masks, 2), 0)
    expected = sum(float(one.square().sum()) / one.numel() for one in far) / 3
    assert prior.penalty({0: logits}, {0: masks}).item() == pytest.approx(expected, rel=1e-5)
    sure = 40 * one_hot(masks, 2)
    right, wrong = (prior.penalty({0: sure}, {0: truth}).item() for truth in (masks, other))
    assert right < 1e-6 < wrong
    torch.testing.assert_close(
        prior.penalty({0: sure, 1: logits.new_zeros(3, 3, 16, 16)}, {0: masks, 1: masks}),
        prior.penalty({1: logits.new_zeros(3, 3, 16, 16)}, {1: masks}) / 2,
    )


def test_its_gradient_reaches_the_logits_alone(prior):
    prior.zero_grad()
    logits = torch.randn(2, 2, 16, 16, requires_grad=True)
    prior.penalty({0: logits}, {0: discs(2)}).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in prior.parameters())


def test_sizes_that_the_levels_do_not_divide_are_filled_with_background(prior):
    assert prior(one_hot(discs(1)[:, :13, :10], 2), 0).shape == (1, 2, 13, 10)


def test_train_with_a_prior_fits_it_first_and_logs_its_penalty(tmp_path):
    knee = domain(tmp_path, "knee", axes="RAS", raw=(1,), classes=("femur",), bright=100)
    hand = domain(tmp_path, "hand", axes="LPS", raw=(7,), classes=("bone",), bright=50)
    data = manifest(tmp_path, knee=knee, hand=hand)
    words = ["--data", data, "--out", tmp_path / "run", "--prior.weight", 0.1]
    small = ["--prior.epochs", 1, "--prior.filters", "[4,8]", "--contrast.levels", "all"]
    assert main(["segment", "train", *map(str, [*words, *small]), *TINY]) == 0
    assert (tmp_path / "run" / "prior" / "metrics.json").is_file()
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    row = dict(zip(history[0].split(","), history[-1].split(","), strict=True))
    assert float(row["train/prior"]) > 0
    assert float(row["train/contrast"]) > 0
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["mode"] == "contrast"
