"""Spectrum, effective rank and feature spread against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_core.evaluation import effective_rank, feature_std, singular_values


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "d"), [(50, 6), (5, 9)])
@pytest.mark.parametrize("normalize", [True, False])
def test_singular_values_are_those_of_the_covariance_of_unit_rows(n, d, normalize):
    x = gaussian(n, d).numpy() + 1.0
    z = x / np.linalg.norm(x, axis=1, keepdims=True) if normalize else x
    expected = np.linalg.svd(np.cov(z, rowvar=False), compute_uv=False)
    values = singular_values(torch.tensor(x), normalize=normalize)
    assert values.shape == (d,)
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-13 * expected[0])


def test_effective_rank_is_the_exponential_of_the_entropy():
    x = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    x = torch.cat([x, -x])  # covariance diagonal, proportional to 1, 4, 9
    p = [1 / 14, 4 / 14, 9 / 14]
    expected = math.exp(-sum(q * math.log(q) for q in p))
    assert effective_rank(x, normalize=False) == pytest.approx(expected, rel=1e-12)
    assert effective_rank(x) == pytest.approx(3.0, rel=1e-12)  # unit rows: all alike


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 2**31 - 1))
def test_effective_rank_never_exceeds_the_rank(rank, seed):
    x = gaussian(40, rank, seed) @ gaussian(rank, 12, seed + 1)
    assert 1 - 1e-9 <= effective_rank(x, normalize=False) <= rank + 1e-9


def test_rotating_scaling_and_reordering_change_nothing():
    x = gaussian(30, 5)
    rotation = torch.linalg.qr(gaussian(5, 5, 1)).Q
    expected = effective_rank(x)
    assert effective_rank(x @ rotation) == pytest.approx(expected, rel=1e-12)
    assert effective_rank(7 * x) == pytest.approx(expected, rel=1e-12)
    assert effective_rank(x.flip(0)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_float_type_is_measured_in_float64_off_the_gradient(dtype):
    x = gaussian(64, 8).to(dtype).requires_grad_()
    values = singular_values(x)
    assert values.dtype == torch.float64
    assert not values.requires_grad
    torch.testing.assert_close(values, singular_values(x.detach().double()))


def test_equal_rows_have_rank_zero_and_no_spread():
    x = torch.ones(10, 1) @ torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    assert effective_rank(x) == 0.0
    assert feature_std(x) == pytest.approx(0.0, abs=1e-7)
    assert effective_rank(torch.zeros(4, 3)) == 0.0


def test_feature_std_is_the_mean_spread_of_unit_rows():
    x = gaussian(20, 4)
    z = (x / x.norm(dim=1, keepdim=True)).numpy()
    assert feature_std(x) == pytest.approx(z.std(axis=0).mean(), rel=1e-12)


def test_healthy_features_spread_by_one_over_root_d():
    assert feature_std(gaussian(4000, 64)) == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("measure", [singular_values, effective_rank, feature_std])
def test_one_row_or_a_nan_is_refused(measure):
    with pytest.raises(ValueError, match="at least 2 embeddings"):
        measure(torch.ones(1, 3))
    with pytest.raises(ValueError, match="finite"):
        measure(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))
