"""Class weights, focal loss and LDAM against the golden arrays, loops and their own laws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_medical.lesions.imbalance import (
    CosineClassifier,
    class_counts,
    effective_number_weights,
    focal_loss,
    inverse_frequency_weights,
    ldam_loss,
    ldam_margins,
    weighted_cross_entropy,
)

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "supercon.npz", allow_pickle=False)


def golden(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name]))


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf)[0]


def draw(seed: int, n: int = 9, c: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, c, generator=g, dtype=torch.float64), torch.randint(c, (n,), generator=g)


@pytest.mark.parametrize("gamma", [0, 2, 5])
def test_focal_loss_and_both_its_gradients_are_the_golden_ones(gamma):
    for detach, name in ((False, "true"), (True, "official")):
        logits = golden("f_logits").clone().requires_grad_()
        loss = focal_loss(
            logits, golden("f_targets"), gamma=float(gamma), alpha=0.25, detach_pt=detach
        )
        torch.testing.assert_close(loss, golden(f"f2_g{gamma}_loss"), rtol=1e-6, atol=0)
        torch.testing.assert_close(
            gradient(loss, logits), golden(f"f2_g{gamma}_grad_{name}"), rtol=1e-6, atol=1e-8
        )


def test_the_factor_of_the_official_focal_loss_passes_no_gradient():
    logits, y = draw(0)
    logits.requires_grad_()
    true, official = (
        gradient(focal_loss(logits, y, gamma=2.0, detach_pt=detach), logits)
        for detach in (False, True)
    )
    assert not torch.allclose(true, official, rtol=0.05)


def test_multiclass_focal_loss_is_the_golden_one():
    logits = golden("fm_logits").clone().requires_grad_()
    loss = focal_loss(logits, golden("fm_targets"), gamma=2.0, alpha=golden("fm_alpha"))
    torch.testing.assert_close(loss, golden("fm_g2_loss"), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradient(loss, logits), golden("fm_g2_grad_true"), rtol=1e-6, atol=1e-8
    )


def test_weights_are_the_golden_ones():
    counts = golden("w_counts").long()
    torch.testing.assert_close(
        inverse_frequency_weights(counts), golden("w_inverse"), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        effective_number_weights(counts, 0.999), golden("w_effective_beta999"), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(ldam_margins(counts), golden("ldam_margins"), rtol=1e-6, atol=0)


def test_weighted_cross_entropy_is_the_golden_one():
    logits = golden("fm_logits").clone().requires_grad_()
    loss = weighted_cross_entropy(logits, golden("fm_targets"), golden("w_inverse"))
    torch.testing.assert_close(loss, golden("wce_loss"), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient(loss, logits), golden("wce_grad"), rtol=1e-6, atol=1e-8)


def test_ldam_is_the_golden_one():
    cosines = golden("ldam_cos").clone().requires_grad_()
    loss = ldam_loss(cosines, golden("fm_targets"), golden("ldam_margins"), scale=30.0)
    torch.testing.assert_close(loss, golden("ldam_s30_loss"), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradient(loss, cosines), golden("ldam_s30_grad"), rtol=1e-6, atol=1e-8
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.floats(0, 5), st.integers(2, 6))
def test_focal_loss_equals_the_equation(seed, gamma, c):
    logits, y = draw(seed, c=c)
    alpha = [0.5 + k for k in range(c)]
    total = 0.0
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        p = math.exp(row[label]) / sum(math.exp(v) for v in row)
        total -= alpha[label] * (1 - p) ** gamma * math.log(p)
    loss = focal_loss(logits, y, gamma=gamma, alpha=alpha)
    assert loss.item() == pytest.approx(total / len(y), rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.floats(1, 60))
def test_ldam_equals_the_equation(seed, scale):
    logits, y = draw(seed)
    cosines = torch.tanh(logits)
    counts = torch.tensor([900, 81, 16, 1])
    m = [0.5 * n**-0.25 for n in counts.tolist()]
    total = 0.0
    for row, label in zip(cosines.tolist(), y.tolist(), strict=True):
        t = [scale * (v - (m[j] if j == label else 0)) for j, v in enumerate(row)]
        total += math.log(sum(math.exp(v) for v in t)) - t[label]
    loss = ldam_loss(cosines, y, ldam_margins(counts), scale=scale)
    assert loss.item() == pytest.approx(total / len(y), rel=1e-9)


def test_gradients_of_the_losses_are_those_of_finite_differences():
    logits, y = draw(3)
    logits.requires_grad_()
    margins = ldam_margins(torch.tensor([50, 20, 5, 1]))
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, y, gamma=1.5), logits)
    assert torch.autograd.gradcheck(lambda x: ldam_loss(x, y, margins, scale=7.0), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_losses_are_finite_for_certain_and_wrong_answers(dtype):
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], dtype=dtype, requires_grad=True)
    for y in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        loss = focal_loss(logits, y, gamma=0.5)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert gradient(loss, logits).isfinite().all()


def test_focal_loss_without_focus_is_cross_entropy():
    logits, y = draw(1)
    torch.testing.assert_close(focal_loss(logits, y, gamma=0.0), F.cross_entropy(logits, y))


def test_inverse_weights_give_every_class_the_same_share_and_the_images_a_mean_of_one():
    counts = torch.tensor([1080, 222, 29])
    w = inverse_frequency_weights(counts)
    assert (w * counts).tolist() == pytest.approx([1331 / 3] * 3)
    assert float((w * counts).sum() / counts.sum()) == pytest.approx(1)


def test_effective_numbers_lie_between_no_weights_and_inverse_ones():
    counts = torch.tensor([1080, 222, 29])
    assert effective_number_weights(counts, 0.0).tolist() == pytest.approx([1, 1, 1])
    inverse = inverse_frequency_weights(counts)
    nearly = effective_number_weights(counts, 1 - 1e-9)
    torch.testing.assert_close(nearly / nearly[0], inverse / inverse[0], rtol=1e-5, atol=0)


def test_a_cosine_classifier_does_not_see_lengths():
    layer = CosineClassifier(5, 3).double()
    h = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cosines = layer(h)
    torch.testing.assert_close(layer(7 * h), cosines)
    assert cosines.abs().max() <= 1
    torch.testing.assert_close(cosines, F.cosine_similarity(h[:, None], layer.weight[None], dim=2))


def test_unlabelled_images_are_not_counted():
    assert class_counts(torch.tensor([2, -1, 0, 2]), 4).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inverse_frequency_weights(torch.tensor([3, 0])), "at least one image"),
        (lambda: ldam_margins(torch.tensor([3, 0])), "at least one image"),
        (lambda: ldam_margins(torch.tensor([3, 1]), 0.0), "largest margin must be positive"),
        (lambda: effective_number_weights(torch.tensor([3, 1]), 1.0), r"beta must lie in \[0, 1\)"),
        (lambda: focal_loss(*draw(0), gamma=-1.0), "gamma must be at least 0"),
        (lambda: focal_loss(*draw(0), alpha=0.25), "one alpha stands for two classes"),
        (lambda: focal_loss(*draw(0), alpha=[1.0, 2.0]), "alpha needs 4 weights"),
        (lambda: ldam_loss(*draw(0), torch.ones(4), scale=0.0), "scale must be positive"),
        (lambda: class_counts(torch.tensor([5]), 3), "3 classes, but a label is 5"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
