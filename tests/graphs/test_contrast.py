"""The attacker's loss equals GRACE's, in value and in the gradient of the moving view."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_core.losses import nt_xent
from cl_graphs.methods import contrast
from cl_graphs.methods.contrast import FixedViewLoss


def views(n, d, seed, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, d, generator=g, dtype=dtype)


def value_and_gradient(loss, h):
    h = h.clone().requires_grad_()
    value = loss(h)
    return value.item(), torch.autograd.grad(3 * value, h)[0]


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 12), st.integers(1, 5), st.floats(0.01, 5.0), st.integers(0, 1000))
def test_equals_nt_xent_with_the_first_view_held_fixed(n, d, temperature, seed):
    h1, h2 = views(n, d, seed)
    value, gradient = value_and_gradient(FixedViewLoss(h1, temperature), h2)
    expected, expected_gradient = value_and_gradient(lambda h: nt_xent(h1, h, temperature), h2)
    assert value == pytest.approx(expected, rel=1e-10, abs=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-10)


def test_blocks_give_the_loss_of_the_whole(monkeypatch):
    h1, h2 = views(11, 4, seed=0)
    whole = value_and_gradient(FixedViewLoss(h1, 0.3), h2)
    monkeypatch.setattr(contrast, "BLOCK_ENTRIES", 3 * 11)
    blocks = value_and_gradient(FixedViewLoss(h1, 0.3), h2)
    assert blocks[0] == pytest.approx(whole[0], rel=1e-12)
    torch.testing.assert_close(blocks[1], whole[1], rtol=1e-10, atol=1e-14)


def test_no_gradient_reaches_the_fixed_view():
    h1, h2 = views(5, 3, seed=1).unbind()
    h1, h2 = h1.requires_grad_(), h2.clone().requires_grad_()
    FixedViewLoss(h1, 0.5)(h2).backward()
    assert h1.grad is None
    assert h2.grad is not None


def test_identical_views_at_a_cold_temperature_stay_finite_in_float32():
    h = views(64, 8, seed=2, dtype=torch.float32)[0]
    value, gradient = value_and_gradient(FixedViewLoss(h, 0.04), h)
    assert 0 <= value < 10
    assert gradient.isfinite().all()
