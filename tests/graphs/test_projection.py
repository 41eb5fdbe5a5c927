"""Projection onto the budget: the official bisection, the exact solution, and arrival in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_graphs.methods.projection import PRUNE_FROM, BudgetProjection, project_budget

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ariel.npz", allow_pickle=False)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def streamed(s, budget, piece, width=1e-3):
    """Project a flat tensor that arrives in pieces."""
    projection = BudgetProjection(budget, width)
    for start in range(0, len(s), piece):
        projection.add(s[start : start + piece], lambda at, start=start: at + start)
    keys, values = projection.finish()
    assert torch.equal(keys, keys.sort().values)
    return torch.zeros_like(s).index_put((keys,), values)


@pytest.mark.parametrize("i", range(6))
def test_projection_equals_the_official_bisection(i):
    s, (budget, width) = golden(f"bis{i}.in"), GOLDEN[f"bis{i}.hp"].tolist()
    result = project_budget(s, budget, width)
    torch.testing.assert_close(result, golden(f"bis{i}.out"), rtol=1e-12, atol=1e-12)
    in_pieces = streamed(s.flatten(), budget, 10, width).view_as(s)
    torch.testing.assert_close(in_pieces, golden(f"bis{i}.out"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("i", range(6))
def test_a_narrow_bracket_gives_the_exact_projection(i):
    s, (budget, _) = golden(f"bis{i}.in"), GOLDEN[f"bis{i}.hp"].tolist()
    result = project_budget(s, budget, 1e-13)
    torch.testing.assert_close(result, golden(f"bis{i}.exact"), rtol=0, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 200),
    st.floats(0.01, 50),
    st.floats(0.01, 300),
    st.integers(1, 60),
    st.integers(0, 1000),
)
def test_pieces_of_any_size_give_the_projection_of_the_whole(n, budget, scale, piece, seed):
    s = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    whole = project_budget(torch.cat([s, s.new_zeros(1)]), budget)[:-1]
    torch.testing.assert_close(streamed(s, budget, piece), whole, rtol=1e-9, atol=1e-9)
    assert whole.sum() <= budget + 1e-3 * n
    assert whole.min() >= 0
    assert whole.max() <= 1


def test_much_is_forgotten_on_the_way_and_the_result_stays_exact():
    n = 40 * PRUNE_FROM
    s = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5
    projection, held = BudgetProjection(30.0), 0
    for start in range(0, n, PRUNE_FROM):
        projection.add(s[start : start + PRUNE_FROM], lambda at, start=start: at + start)
        held = max(held, projection._held)
    keys, values = projection.finish()
    whole = project_budget(torch.cat([s, s.new_zeros(1)]), 30.0)[:-1]
    torch.testing.assert_close(torch.zeros_like(s).index_put((keys,), values), whole)
    assert held < 2 * PRUNE_FROM
    assert values.sum().item() == pytest.approx(30.0, abs=0.1)


def test_of_too_many_entries_the_largest_stay():
    s = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-3
    projection = BudgetProjection(5.0, limit=20)  # the sum is about 0.5: nothing binds
    for start in range(0, 1000, 30):
        projection.add(s[start : start + 30], lambda at, start=start: at + start)
    keys, values = projection.finish()
    assert torch.equal(keys, s.topk(20).indices.sort().values)
    assert torch.equal(values, s[keys])


def test_a_sum_within_the_budget_is_only_clipped():
    s = torch.tensor([-1.0, 0.3, 2.0])
    assert torch.equal(project_budget(s, 1.5), torch.tensor([0.0, 0.3, 1.0]))
    assert torch.equal(streamed(s, 1.5, 2), torch.tensor([0.0, 0.3, 1.0]))
