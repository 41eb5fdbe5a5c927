"""Batches hold what their order promises, on every rank, again after a resume."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_core.loader import EpochBatches, make_loader
from cl_core.orders import Balanced, DomainWise, Order, Stratified, Weighted

SKEWED = np.repeat([0, 1, 2], [900, 84, 16])


def joint(order: Order, batch_size: int, *, epoch: int = 0, world: int = 1, seed: int = 5):
    """Steps of ranks of rows."""
    ranks = [
        order.batches(batch_size, seed=seed, epoch=epoch, rank=rank, world=world)
        for rank in range(world)
    ]
    return list(zip(*ranks, strict=True))


def counts(labels, rows) -> list[int]:
    return [int((np.asarray(labels)[rows] == name).sum()) for name in np.unique(labels)]


ORDERS = {
    "balanced": lambda labels: Balanced(labels),
    "weighted": lambda labels: Weighted(labels, power=0.5),
    "stratified": lambda labels: Stratified(labels, least=1),
    "mixed": lambda labels: DomainWise(labels),
    "alternate": lambda labels: DomainWise(labels, mixed=False),
    "cases": lambda labels: DomainWise(labels, cases=np.arange(len(labels)) // 2),
}


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(sorted(ORDERS)),
    st.lists(st.integers(0, 2), min_size=3, max_size=60),
    st.integers(3, 9),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_ranks_have_full_batches_and_no_row_in_common_while_there_are_enough(
    kind, labels, batch_size, world, epoch
):
    order = ORDERS[kind](labels)
    steps = joint(order, batch_size, epoch=epoch, world=world)
    assert len(steps) == order.count(batch_size, world)
    for parts in steps:
        assert {len(rows) for rows in parts} == {batch_size}
        together = np.concatenate(parts)
        held = Counter(np.asarray(labels)[together].tolist())
        if kind in ("stratified", "mixed", "alternate"):
            for name, count in held.items():
                if labels.count(name) >= world * max(
                    (np.asarray(labels)[rows] == name).sum() for rows in parts
                ):
                    mine = together[np.asarray(labels)[together] == name]
                    assert len(set(mine.tolist())) == count
    assert all(0 <= row < len(labels) for parts in steps for rows in parts for row in rows)


@pytest.mark.parametrize("kind", sorted(ORDERS))
def test_an_epoch_is_a_function_of_seed_and_epoch_alone(kind):
    order = ORDERS[kind](SKEWED)

    def drawn(epoch, seed=5):
        return [rows.tolist() for (rows,) in joint(order, 32, epoch=epoch, seed=seed)]

    first = [drawn(epoch) for epoch in range(3)]
    again = ORDERS[kind](SKEWED)
    assert [rows.tolist() for (rows,) in joint(again, 32, epoch=2)] == first[2]
    assert first[0] != first[1]
    assert first[0] != drawn(0, seed=6)


def test_balanced_epochs_hold_each_class_equally_often_and_spread():
    steps = joint(Balanced(SKEWED), 33)
    total = np.sum([counts(SKEWED, rows) for (rows,) in steps], axis=0)
    assert total.max() - total.min() <= 1
    for (rows,) in steps:
        assert all(9 <= count <= 13 for count in counts(SKEWED, rows))
    rare = Counter(np.concatenate([rows[SKEWED[rows] == 2] for (rows,) in steps]).tolist())
    assert len(rare) == 16
    assert max(rare.values()) - min(rare.values()) <= 1  # passes: none waits for the others


@pytest.mark.parametrize(("power", "shares"), [(1.0, SKEWED), (0.5, None)])
def test_weighted_epochs_follow_the_power_of_the_class_size(power, shares):
    sizes = np.bincount(SKEWED)
    expected = sizes**power / (sizes**power).sum()
    steps = joint(Weighted(SKEWED, power=power), 50)
    total = np.sum([counts(SKEWED, rows) for (rows,) in steps], axis=0)
    assert np.abs(total - expected * total.sum()).max() <= 1
    for (rows,) in steps:
        assert np.abs(counts(SKEWED, rows) - 50 * expected).max() <= 2
    if power == 1:
        assert sorted(np.concatenate([rows for (rows,) in steps]).tolist()) == list(range(1000))


def test_every_stratified_batch_is_alike_and_lets_rare_classes_meet():
    labels = np.repeat([0, 1], [983, 17])  # 1.7 % of 128 would be 2.2
    order = Stratified(labels)
    assert order.quotas(128).tolist() == [126, 2]
    for (rows,) in joint(order, 128):
        assert counts(labels, rows) == [126, 2]
        assert len(set(rows.tolist())) == 128
    seen = [row for (rows,) in joint(order, 128) for row in rows.tolist() if row >= 983]
    assert len(seen) == 14
    assert len(set(seen)) == 14  # a pass is not over yet


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 200), st.integers(0, 3)
)
def test_quotas_are_rounded_shares_but_never_below_the_least(sizes, batch_size, least):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = Stratified(labels, least=least)
    if least * len(sizes) > batch_size:
        with pytest.raises(ValueError, match=f"it must be at least {least * len(sizes)}"):
            order.quotas(batch_size)
        return
    quotas = order.quotas(batch_size)
    exact = batch_size * np.array(sizes) / sum(sizes)
    assert quotas.sum() == batch_size
    assert (quotas >= least).all()
    rounded = np.maximum(least, np.floor(exact + 0.5))
    if rounded.sum() == batch_size:
        assert (quotas == rounded).all()
    else:  # nothing goes the wrong way
        sign = np.sign(batch_size - rounded.sum())
        assert (sign * (quotas - rounded) >= 0).all()


def test_two_copies_of_a_rare_row_never_fill_a_batch_where_others_are_left():
    labels = np.array([0] * 40 + [1] * 3)
    for epoch in range(20):
        for (rows,) in joint(Stratified(labels, least=2, batches=30), 8, epoch=epoch):
            rare = rows[rows >= 40]
            assert len(set(rare.tolist())) == 2
        for parts in joint(Stratified(labels, least=2, batches=30), 8, epoch=epoch, world=3):
            for rows in parts:  # 6 of 3 rows: each rank at least has two of its own
                assert len(set(rows[rows >= 40].tolist())) == 2


DOMAINS = ["ankle"] * 60 + ["knee"] * 30 + ["shoulder"] * 8


def test_mixed_batches_hold_each_domain_alike_and_grouped():
    order = DomainWise(DOMAINS)
    assert order.names == ["ankle", "knee", "shoulder"]
    assert order.count(12, 1) == 15  # 60 / (12 / 3)
    for (rows,) in joint(order, 12):
        assert counts(DOMAINS, rows) == [4, 4, 4]
        assert [DOMAINS[row] for row in rows] == sorted(DOMAINS[row] for row in rows)
    ankles = np.concatenate([rows[rows < 60] for (rows,) in joint(order, 12)])
    assert sorted(ankles.tolist()) == list(range(60))


def test_what_a_batch_cannot_divide_goes_round():
    held = np.array([counts(DOMAINS, rows) for (rows,) in joint(DomainWise(DOMAINS), 8)])
    assert held.sum(1).tolist() == [8] * len(held)
    assert held.min() == 2
    assert held.max() == 3
    assert np.ptp(held.sum(0)) <= 1


def test_alternating_batches_are_of_one_domain_the_same_on_all_ranks():
    order = DomainWise(DOMAINS, mixed=False)
    steps = joint(order, 6, world=2)
    assert len(steps) == 15  # 60 / 12 of each of three
    turns = []
    for parts in steps:
        (name,) = {DOMAINS[row] for rows in parts for row in rows}
        turns.append(name)
    assert all(len(set(turns[k : k + 3])) == 3 for k in range(0, 15, 3))


def test_cases_are_drawn_before_their_rows():
    domains = np.zeros(110)
    cases = np.array(["big"] * 100 + ["small"] * 10)
    order = DomainWise(domains, cases=cases, batches=40)
    rows = np.concatenate([rows for (rows,) in joint(order, 10)])
    assert Counter(cases[rows].tolist()) == {"big": 200, "small": 200}
    assert set(Counter(rows[rows < 100].tolist()).values()) == {2}
    assert set(Counter(rows[rows >= 100].tolist()).values()) == {20}


def test_a_case_of_two_domains_is_two_cases():
    order = DomainWise([0, 0, 1], cases=["a", "b", "a"], batches=5)
    for (rows,) in joint(order, 2):
        assert 2 in rows


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(SKEWED)

    def __getitem__(self, row):
        return row, torch.rand(()).item()


def test_a_loader_reads_by_the_order_and_resumes_exactly():
    def loader(workers=0):
        order = Stratified(SKEWED, least=2)
        return make_loader(
            Rows(), batch_size=32, shuffle=True, workers=workers, seed=3, order=order
        )

    def epoch(reader):
        return torch.stack([torch.stack([c.double() for c in batch]) for batch in reader])

    first = loader()
    one, two = epoch(first), epoch(first)
    assert len(first) == len(one) == 31
    assert one[:, 0].shape == (31, 32)
    for batch in one[:, 0]:
        assert counts(SKEWED, batch.long().numpy()) == [28, 2, 2]
    again = loader(workers=2)
    again.batch_sampler.set_epoch(1)
    assert torch.equal(epoch(again), two)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("kind", sorted(ORDERS))
def test_the_ranks_of_a_loader_share_out_the_steps_of_one_process(kind, monkeypatch):
    order = ORDERS[kind](SKEWED)
    monkeypatch.setattr("cl_core.loader.world_size", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr("cl_core.loader.rank", lambda rank=rank: rank)
        sampler = EpochBatches(
            1000, batch_size=16, shuffle=True, seed=5, drop_last=True, shard=True, order=order
        )
        batches = list(sampler)
        assert len(batches) == len(sampler)
        ranks.append([batch.rows for batch in batches])
        assert len({batch.seed for batch in batches}) == len(batches)
    expected = [[rows.tolist() for rows in parts] for parts in joint(order, 16, world=2)]
    assert [list(parts) for parts in zip(*ranks, strict=True)] == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weighted([0, 1], power=2), r"power must lie in \[0, 1\], got 2"),
        (lambda: Stratified([0, 1], least=-1), "least must be 0 or more, got -1"),
        (lambda: Balanced([]), "needs rows and batches, got 0 and None"),
        (lambda: Balanced([0], batches=0), "needs rows and batches, got 1 and 0"),
        (lambda: DomainWise([0, 1], cases=["a"]), "one case per row: got 1 cases, 2 rows"),
    ],
)
def test_what_makes_no_order_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_order_that_does_not_fit_the_loader_is_refused():
    options = {"batch_size": 4, "workers": 0, "seed": 0}
    with pytest.raises(ValueError, match="say shuffle=True"):
        make_loader(range(3), shuffle=False, order=Balanced([0, 1, 1]), **options)
    with pytest.raises(ValueError, match="the order is of 2 rows, the data set has 3"):
        make_loader(range(3), shuffle=True, order=Balanced([0, 1]), **options)
    with pytest.raises(ValueError, match="batch_size 4 cannot hold 2 rows of each of the 3"):
        make_loader(range(3), shuffle=True, order=Stratified([0, 1, 2]), **options)
