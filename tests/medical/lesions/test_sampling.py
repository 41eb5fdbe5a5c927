"""The three samplers: what a batch holds, and what is used how often."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_medical.lesions.sampling import batch_quotas, lone_batch_probabilities, sampling_order

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "supercon.npz", allow_pickle=False)
#: The training images of the real set: nv, bkl, mel, bcc, akiec, vasc, df.
COUNTS = torch.tensor([1080, 222, 147, 114, 74, 34, 29])
LABELS = torch.repeat_interleave(torch.arange(7), COUNTS)


def order(sampling, seed=0, labels=LABELS, batch_size=128):
    generator = torch.Generator().manual_seed(seed)
    return sampling_order(labels, sampling, batch_size=batch_size, generator=generator)


def test_how_often_a_batch_lacks_partners_is_the_golden_figure():
    found = lone_batch_probabilities(467 / 26500, 128)
    assert found == pytest.approx(GOLDEN["p_nopos"].tolist(), rel=1e-6)


def test_the_probabilities_are_those_of_counting_all_batches():
    n, batch = 4, 3
    drawn = torch.cartesian_prod(*[torch.arange(n)] * batch)
    rare = (drawn == 0).sum(dim=1)
    none, one = lone_batch_probabilities(1 / n, batch)
    assert none == pytest.approx(float((rare == 0).double().mean()))
    assert one == pytest.approx(float((rare <= 1).double().mean()))


def test_natural_sampling_uses_every_image_once():
    assert sorted(order("natural").tolist()) == list(range(1700))
    assert not torch.equal(order("natural"), order("natural", seed=1))


def test_every_stratified_batch_holds_its_quota_of_every_class():
    quotas = batch_quotas(COUNTS, 128)
    assert quotas.tolist() == [81, 17, 11, 9, 6, 2, 2]
    batches = torch.split(order("stratified"), 128)
    assert len(batches) == 1700 // 128
    for batch in batches:
        assert torch.bincount(LABELS[batch], minlength=7).tolist() == quotas.tolist()
        assert len(set(batch.tolist())) == 128


def test_rare_classes_are_all_used_before_one_is_used_again():
    rare = [row for row in order("stratified").tolist() if LABELS[row] == 5]
    assert len(set(rare)) == len(rare) == 26
    few = torch.tensor([0] * 60 + [1] * 3)
    drawn = [row for row in order("stratified", labels=few, batch_size=8).tolist() if row >= 60]
    assert len(drawn) == 14
    for start in range(0, 12, 3):
        assert len(set(drawn[start : start + 3])) == 3


def test_sqrt_sampling_draws_a_class_by_the_root_of_its_size():
    drawn = torch.cat([order("sqrt", seed) for seed in range(40)])
    assert len(drawn) == 40 * 1700
    shares = torch.bincount(LABELS[drawn], minlength=7) / len(drawn)
    expected = COUNTS.sqrt() / COUNTS.sqrt().sum()
    # Four standard deviations of the largest share.
    assert (shares - expected).abs().max() < 4 * (0.25 / len(drawn)) ** 0.5


@pytest.mark.parametrize("sampling", ["stratified", "sqrt"])
def test_images_without_a_class_are_not_drawn(sampling):
    labels = torch.where(torch.arange(len(LABELS)) % 10 == 0, -1, LABELS)
    assert (labels[order(sampling, labels=labels)] >= 0).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(2, 40))
def test_quotas_fill_the_batch_and_never_starve_a_class(counts, batch_size):
    tally = torch.tensor(counts)
    classes = int((tally > 0).sum())
    if not classes or 2 * classes > batch_size:
        with pytest.raises(ValueError, match="cannot hold"):
            batch_quotas(tally, batch_size)
        return
    quotas = batch_quotas(tally, batch_size)
    assert int(quotas.sum()) == batch_size
    assert (quotas[tally > 0] >= 2).all()
    assert (quotas[tally == 0] == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: order("stratified", batch_size=10), "cannot hold 2 images of each of 7 classes"),
        (
            lambda: unwrap(sampling_order)(
                LABELS, "often", batch_size=8, generator=torch.Generator()
            ),
            "sampling must be natural, stratified or sqrt",
        ),
        (lambda: order("sqrt", labels=torch.tensor([-1, -1])), "needs labels"),
        (lambda: lone_batch_probabilities(1.5, 4), r"a share in \[0, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
