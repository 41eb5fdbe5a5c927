"""Retrieval against rankings in loops and scikit-learn's average precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cl_core.evaluation import retrieval_scores


def gaussian(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(n, c, seed):
    return torch.randint(c, (n,), generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())


def slow_scores(x, y, ks, gallery=None, labels=None):
    """The docstring with loops."""
    rows = list(zip(x, y, strict=True))
    found = rows if gallery is None else list(zip(gallery, labels, strict=True))
    sums, queries = {}, 0
    for i, (q, name) in enumerate(rows):
        others = [
            row for j, row in enumerate(found) if row[1] >= 0 and not (gallery is None and i == j)
        ]
        others.sort(key=lambda row: -cosine(q, row[0]))
        h = [int(label == name) for _, label in others]
        r = sum(h)
        if name < 0 or r == 0:
            continue
        queries += 1
        p = [sum(h[: i + 1]) / (i + 1) for i in range(len(h))]
        figures = {"r_precision": sum(h[:r]) / r}
        figures["map@r"] = sum(h[i] * p[i] for i in range(r)) / r
        for k in ks:
            figures[f"recall@{k}"] = float(any(h[:k]))
            figures[f"map@{k}"] = sum(h[i] * p[i] for i in range(min(k, len(h)))) / min(k, r)
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value
    return {key: value / queries for key, value in sums.items()} | {"queries": queries}


@settings(deadline=None, max_examples=25)
@given(
    st.integers(4, 14),
    st.integers(1, 4),
    st.integers(1, 16),
    st.integers(1, 20),
    st.integers(0, 2**31 - 1),
)
def test_leaving_one_out_equals_the_loops_whatever_the_block(n, c, k, block_size, seed):
    x, y = gaussian(n, 3, seed), classes(n, c, seed)
    y[:2], y[2] = 0, -1
    scores = retrieval_scores(x, y, ks=(1, k), block_size=block_size)
    assert scores == pytest.approx(slow_scores(x, y, (1, k)), rel=1e-12)


@pytest.mark.parametrize("block_size", [1, 3, 100])
def test_a_gallery_equals_the_loops(block_size):
    x, y = gaussian(9, 3, 0), classes(9, 4, 1)
    gallery, labels = gaussian(15, 3, 2), classes(15, 3, 3)
    y[0], labels[4] = -1, -1
    scores = retrieval_scores(x, y, gallery, labels, ks=(1, 2, 40), block_size=block_size)
    assert scores == pytest.approx(slow_scores(x, y, (1, 2, 40), gallery, labels), rel=1e-12)
    assert scores["queries"] == int(((y >= 0) & (y < 3)).sum()) < 8


def test_the_whole_ranking_has_scikit_learns_average_precision():
    x, y = gaussian(30, 4, 5), classes(30, 3, 6)
    total = 0.0
    for i in range(30):
        others = [j for j in range(30) if j != i]
        s = [cosine(x[i], x[j]) for j in others]
        total += average_precision_score((y[others] == y[i]).numpy(), s)
    assert retrieval_scores(x, y, ks=(29,))["map@29"] == pytest.approx(total / 30, rel=1e-12)


def test_classes_apart_are_found_and_mixed_ones_are_not():
    x = torch.eye(2).repeat_interleave(3, dim=0)
    names = ("recall@1", "map@1", "r_precision", "map@r")
    apart = retrieval_scores(x, torch.tensor([0, 0, 0, 1, 1, 1]), ks=(1,))
    assert apart == {**dict.fromkeys(names, 1.0), "queries": 6.0}
    opposite = retrieval_scores(
        torch.tensor([[1.0, 0], [-1, 0], [1, 0.1], [-1, 0.1]]),
        torch.tensor([0, 0, 1, 1]),
        ks=(1, 3),
    )
    assert opposite["recall@1"] == opposite["r_precision"] == 0.0
    assert opposite["recall@3"] == 1.0


def test_lengths_order_and_names_change_nothing():
    x, y = gaussian(20, 4, 7), classes(20, 3, 8)
    expected = retrieval_scores(x, y)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(9))
    lengths = torch.arange(1, 21)[:, None]
    moved = retrieval_scores((x * lengths)[order], (10 - y)[order])
    assert moved == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_ranked_is_refused():
    x, y = gaussian(4, 3, 0), torch.tensor([0, 0, 1, 1])
    cases = [
        ((x, torch.arange(4)), {}, "no query has another row of its class"),
        ((x, y - 5), {}, "no row is labelled"),
        ((x, y, x), {}, "gallery and gallery_labels together"),
        ((x * float("nan"), y), {}, "must be finite"),
        ((x, y), {"ks": (0,)}, r"at least 1, got \[0\] and 256"),
        ((x, y), {"ks": ()}, r"at least 1, got \[\] and 256"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            retrieval_scores(*arguments, **options)
