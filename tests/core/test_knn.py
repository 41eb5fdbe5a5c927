"""Weighted nearest neighbours against the vote with loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_core.evaluation import knn_accuracy, knn_predict, knn_votes


def gaussian(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(n, c, seed):
    return torch.randint(c, (n,), generator=torch.Generator().manual_seed(seed))


def slow_votes(queries, bank, labels, k, temperature, c, skip_self=False):
    """The vote with loops, unscaled: nothing shared with the code under test."""
    votes = torch.zeros(len(queries), c, dtype=torch.float64)
    for i, q in enumerate(queries):
        s = [
            (float(q @ x / q.norm() / x.norm()), int(label))
            for j, (x, label) in enumerate(zip(bank, labels, strict=True))
            if not (skip_self and i == j) and label >= 0
        ]
        for similarity, label in sorted(s, reverse=True)[:k]:
            votes[i, label] += math.exp(similarity / temperature)
    return votes / votes.sum(dim=1, keepdim=True)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 9),
    st.integers(2, 12),
    st.integers(1, 15),
    st.integers(1, 20),
    st.integers(0, 2**31 - 1),
)
def test_votes_equal_the_loops_whatever_the_block(n, m, k, block_size, seed):
    q, x, y = gaussian(n, 3, seed), gaussian(m, 3, seed + 1), classes(m, 4, seed)
    votes = knn_votes(q, x, y, k=k, temperature=0.5, num_classes=4, block_size=block_size)
    torch.testing.assert_close(votes, slow_votes(q, x, y, k, 0.5, 4), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("block_size", [1, 4, 100])
def test_leaving_one_out_means_that_no_row_votes_for_itself(block_size):
    x, y = gaussian(12, 3, 0), classes(12, 3, 1)
    votes = knn_votes(x, x, y, k=4, temperature=0.2, leave_one_out=True, block_size=block_size)
    expected = slow_votes(x, x, y, 4, 0.2, 3, skip_self=True)
    torch.testing.assert_close(votes, expected, rtol=1e-10, atol=1e-12)
    right = (expected.argmax(dim=1) == y).double().mean().item()
    assert knn_accuracy(x, y, k=4, temperature=0.2, block_size=block_size) == pytest.approx(right)


def test_leaving_one_out_skips_unlabelled_rows_but_still_labels_them():
    x, y = gaussian(10, 3, 2), classes(10, 2, 3)
    y[[1, 4]] = -1
    votes = knn_votes(x, x, y, k=3, leave_one_out=True)
    expected = slow_votes(x, x, y, 3, 0.07, 2, skip_self=True)
    torch.testing.assert_close(votes, expected, rtol=1e-9, atol=1e-12)


def test_a_duplicate_counts_in_leave_one_out_though_the_row_itself_does_not():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert knn_accuracy(x, torch.tensor([0, 0, 1, 1]), k=1) == 1.0
    assert knn_accuracy(x, torch.tensor([0, 1, 0, 1]), k=1) == 0.0


def test_a_cold_temperature_trusts_the_nearest_and_stays_finite():
    q, x, y = gaussian(20, 5, 4), gaussian(50, 5, 5), classes(50, 3, 6)
    nearest = y[(torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(x).T).argmax(1)]
    for dtype in (torch.float64, torch.float32):
        cold = knn_votes(q.to(dtype), x.to(dtype), y, temperature=1e-4)
        assert torch.isfinite(cold).all()
        assert torch.equal(cold.argmax(1), nearest)


def test_the_length_of_rows_does_not_matter():
    q, x, y = gaussian(9, 4, 7), gaussian(30, 4, 8), classes(30, 3, 9)
    assert torch.equal(knn_predict(q, x, y, k=5), knn_predict(q * 100, x * 0.01, y, k=5))


def test_accuracy_ignores_rows_without_label():
    q, x, y = gaussian(6, 4, 10), gaussian(30, 4, 11), classes(30, 2, 12)
    truth = knn_predict(q, x, y, k=3)
    truth[0] = 1 - truth[0]
    assert knn_accuracy(q, truth, x, y, k=3) == pytest.approx(5 / 6)
    truth[0] = -1
    assert knn_accuracy(q, truth, x, y, k=3) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k and block_size must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"num_classes": 1}, "num_classes is 1, but a label is 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        knn_votes(torch.ones(1, 2), torch.ones(2, 2), torch.tensor([0, 1]), **options)


def test_a_bank_without_labels_and_half_a_bank_are_refused():
    with pytest.raises(ValueError, match="0 labelled rows"):
        knn_votes(torch.ones(1, 2), torch.ones(2, 2), torch.tensor([-1, -1]))
    with pytest.raises(ValueError, match="bank and bank_labels together"):
        knn_accuracy(torch.ones(1, 2), torch.tensor([0]), torch.ones(2, 2))
    with pytest.raises(ValueError, match="no row is labelled"):
        knn_accuracy(torch.ones(2, 2), torch.tensor([-1, -1]))
