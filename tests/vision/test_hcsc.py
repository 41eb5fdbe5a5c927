from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_vision.hcsc.equations import (
    batch_negatives,
    concentrations,
    instance_keep,
    instance_logits,
    instance_loss,
    log_sums,
    member_distances,
    prototype_keep,
    prototype_logits,
    prototype_loss,
    total_loss,
)
from cl_vision.hcsc.hierarchy import build_hierarchy

GOLDEN = Path(__file__).parents[1] / "golden" / "hcsc.npz"
CASES = ("single", "multi", "nosel")
OFFICIAL = {"rtol": 1e-5, "atol": 1e-5}  # float32, as the official code runs
PAPER = {"rtol": 1e-7, "atol": 1e-7}  # float64


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


class Case:
    """The arrays of one case by their names, with the clusters of the batch looked up."""

    def __init__(self, golden: dict[str, Tensor], name: str, dtype=torch.float32) -> None:
        self.arrays = {
            key.partition("__")[2]: value for key, value in golden.items() if key.startswith(name)
        }
        self.levels = len(self["K"])
        self.temperature = float(self["T"])
        self.prototypes = [self[f"centroids_{le}"].to(dtype) for le in range(self.levels)]
        self.phi = [self[f"density_{le}"].to(dtype) for le in range(self.levels)]
        self.clusters = [self[f"im2cluster_{le}"][self["index"]] for le in range(self.levels)]
        self.queue = self["queue_before"].T.contiguous().to(dtype)
        self.key = self["k"].to(dtype)

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    def negatives(self, level: int) -> Tensor:
        largest = int(self[f"im2cluster_{level}"].max())
        return batch_negatives(self.clusters[level], largest)

    def instance_keep(self, level: int, most: float = 1.0) -> Tensor:
        prototypes, phi, c = self.prototypes[level], self.phi[level], self.clusters[level]
        sums = log_sums(self.queue, prototypes, phi, block_size=5)
        keep = instance_keep(self.queue, sums[None], prototypes[c][None], phi[c][None], most=most)
        return keep[0]

    def prototype_keep(self, level: int) -> Tensor:
        above, phi = self.prototypes[level + 1], self.phi[level + 1]
        sums = log_sums(self.prototypes[level], above, phi, block_size=3)
        p = self.clusters[level + 1]
        return prototype_keep(self.prototypes[level], sums, above[p], phi[p])


# --- golden vectors


@pytest.mark.parametrize("name", CASES)
def test_clusters_and_concentrations_equal_the_official_code(golden, name):
    case = Case(golden, name)
    raw = [case[f"raw_centroids_{level}"] for level in range(case.levels)]
    tree = build_hierarchy(case["feat"], raw)
    members, assigned = [case["feat"], *tree.prototypes], [tree.assignments[0], *tree.parents]
    for level in range(case.levels):
        torch.testing.assert_close(tree.prototypes[level], case.prototypes[level], **OFFICIAL)
        assert torch.equal(tree.assignments[level], case[f"im2cluster_{level}"])
        sums = member_distances(members[level], raw[level], assigned[level])
        phi = concentrations(*sums, case.temperature)
        torch.testing.assert_close(phi.float(), case.phi[level], **OFFICIAL)
        assert float(phi.mean()) == pytest.approx(case.temperature, rel=1e-12)


@pytest.mark.parametrize("name", ["dens0", "dens1", "dens2", "dens3"])
def test_concentrations_of_empty_and_single_clusters_equal_the_official_code(golden, name):
    values = {k.partition("__")[2]: v for k, v in golden.items() if k.startswith(name)}
    k = int(values["k"])
    counts = torch.bincount(values["assign"], minlength=k)
    sums = torch.zeros(k, dtype=torch.float64).index_add_(0, values["assign"], values["l2dist"])
    phi = concentrations(counts, sums, float(values["T"]))
    torch.testing.assert_close(phi, values["phi"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["single", "multi"])
def test_selection_equals_the_official_code(golden, name):
    case = Case(golden, name)
    for level in range(case.levels):
        keep = case.instance_keep(level, most=0.999)
        torch.testing.assert_close(keep, case[f"inst_keep_p_{level}"], **OFFICIAL)
        assert torch.equal(case[f"inst_u_{level}"] < keep, case[f"inst_mask_{level}"].bool())
        ids = case.negatives(level)
        assert torch.equal(ids, case[f"neg_proto_ids_{level}"])
        if level + 1 < case.levels:
            keep = case.prototype_keep(level)[:, ids]
            torch.testing.assert_close(keep, case[f"proto_keep_p_{level}"], **OFFICIAL)
            assert torch.equal(case[f"proto_u_{level}"] < keep, case[f"proto_mask_{level}"].bool())


def official_terms(case: Case, raw: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Instance and prototype losses of every view as the released code has them."""
    instance, prototype = [], []
    selected = bool(case["instance_selection"])
    drop = None
    if selected:
        drop = ~torch.stack([case[f"inst_mask_{le}"].bool() for le in range(case.levels)])
    for view, r in enumerate(raw):
        q = F.normalize(r, dim=1)
        logits = instance_logits(q, case.key, case.queue, case.temperature)
        on = drop if view == 0 or case["selection_on_local"] else None
        instance.append(instance_loss(logits, on, "multiply"))
        losses = []
        for level, c in enumerate(case.clusters):
            hidden = None
            name = f"proto_mask_{level}" if view == 0 else f"local_proto_mask_{view - 1}_{level}"
            if name in case.arrays:  # its columns are the official negatives
                hidden = torch.zeros(len(c), len(case.phi[level]), dtype=torch.bool)
                hidden[:, case.negatives(level)] = ~case[name].bool()
            logits = prototype_logits(q, case.prototypes[level], case.phi[level])
            losses.append(
                prototype_loss(logits, c, hidden, "multiply", negatives=case.negatives(level))
            )
        prototype.append(torch.stack(losses))
    return instance, prototype


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_the_official_code(golden, name):
    case = Case(golden, name)
    views = sum(key.startswith("raw_emb_") for key in case.arrays)
    raw = [case[f"raw_emb_{v}"].clone().requires_grad_() for v in range(views)]
    instance, prototype = official_terms(case, raw)
    for mine, theirs in ((instance[0], "loss_inst"), (prototype[0], "loss_proto")):
        torch.testing.assert_close(mine.detach().double(), case[theirs], **OFFICIAL)
    if views > 1:
        local = torch.stack(instance[1:], 1).flatten().detach()  # level-major
        torch.testing.assert_close(local.double(), case["loss_local_inst"], **OFFICIAL)
        local = torch.stack(prototype[1:]).detach()
        torch.testing.assert_close(local.double(), case["loss_local_proto"], **OFFICIAL)
    total = total_loss(instance, prototype, "sum")
    torch.testing.assert_close(total.detach().double(), case["loss_total"], **OFFICIAL)
    total.backward()
    for v in range(views):
        torch.testing.assert_close(raw[v].grad, case[f"grad_raw_{v}"], **OFFICIAL)


@pytest.mark.parametrize("name", ["single", "multi"])
def test_the_paper_equals_its_reference_in_float64(golden, name):
    case = Case(golden, name, torch.float64)
    q = case["q"].double().requires_grad_()
    logits = instance_logits(q, case.key, case.queue, case.temperature)
    instance, prototype = [], []
    for level, c in enumerate(case.clusters):
        keep = case.instance_keep(level)
        torch.testing.assert_close(keep, case[f"paper_inst_keep_p_{level}"], **PAPER)
        drop = case[f"inst_u_{level}"] >= keep
        assert torch.equal(~drop, case[f"paper_inst_mask_{level}"].bool())
        instance.append(instance_loss(logits, drop[None])[0])
        drop = None
        if level + 1 < case.levels:
            keep = case.prototype_keep(level)
            torch.testing.assert_close(keep, case[f"paper_proto_keep_p_{level}"], **PAPER)
            drop = case[f"paper_proto_u_{level}"] >= keep
            forced = drop.scatter(1, c[:, None], False)
            assert torch.equal(~forced, case[f"paper_proto_mask_{level}"].bool())
        of_level = prototype_logits(q, case.prototypes[level], case.phi[level])
        prototype.append(prototype_loss(of_level, c, drop))
    for mine, theirs in ((instance, "paper_loss_inst"), (prototype, "paper_loss_proto")):
        torch.testing.assert_close(torch.stack(mine).detach(), case[theirs], **PAPER)
    total = total_loss([torch.stack(instance)], [torch.stack(prototype)])
    torch.testing.assert_close(total.detach(), case["paper_loss_total"], **PAPER)
    total.backward()
    torch.testing.assert_close(q.grad, case["paper_grad_q"], rtol=1e-6, atol=1e-6)


# --- laws


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 8), st.integers(1, 20), st.integers(0, 999))
def test_the_drop_probabilities_of_a_key_add_up_to_one_over_all_clusters(k, r, seed):
    queue, prototypes = unit(r, 5, seed=seed), unit(k, 5, seed=seed + 1)
    phi = 0.05 + torch.rand(k, generator=torch.Generator().manual_seed(seed))
    sums = log_sums(queue, prototypes, phi, block_size=3)
    keep = instance_keep(queue, sums[None], prototypes[None], phi[None])  # a query of each cluster
    torch.testing.assert_close((1 - keep[0]).sum(0), torch.ones(r), rtol=1e-4, atol=1e-4)


def test_a_key_is_dropped_most_for_queries_of_its_own_cluster():
    prototypes, phi = torch.eye(4), torch.full((4,), 0.2)
    queue = prototypes[[2, 0]]
    sums = log_sums(queue, prototypes, phi)
    keep = instance_keep(queue, sums[None], prototypes[None], phi[None])[0]
    assert keep.argmin(0).tolist() == [2, 0]  # not the cluster that is nearest to the query
    assert keep[2, 0] < 0.03


def test_prototypes_under_the_query_s_parent_are_dropped_most():
    fine, coarse, phi = torch.eye(4), F.normalize(torch.eye(4)[:2] + torch.eye(4)[2:]), 0.1
    phis = torch.full((2,), phi)
    sums = log_sums(fine, coarse, phis)
    keep = prototype_keep(fine, sums, coarse[[1]], phis[[1]])[0]
    assert (keep[[1, 3]] < 0.01).all()
    assert (keep[[0, 2]] > 0.99).all()


def test_a_query_keeps_its_own_prototype_whatever_is_drawn():
    logits, c = (
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([2, 0, 3]),
    )
    everything = torch.ones(3, 4, dtype=torch.bool)
    assert prototype_loss(logits, c, everything) == 0
    multiplied = prototype_loss(logits, c, everything, "multiply")
    expected = torch.zeros(3, 4).scatter(1, c[:, None], logits.gather(1, c[:, None]))
    torch.testing.assert_close(multiplied, F.cross_entropy(expected, c))


@pytest.mark.parametrize("temperature", [0.2, 0.005])
def test_losses_stay_finite_when_every_negative_is_dropped(temperature):
    q = unit(4, 3, seed=0).requires_grad_()
    logits = instance_logits(q, unit(4, 3, seed=1), unit(9, 3, seed=2), temperature)
    losses = instance_loss(logits, torch.ones(2, 4, 9, dtype=torch.bool))
    assert losses.tolist() == pytest.approx([0, 0], abs=1e-5)
    losses.sum().backward()
    assert q.grad.isfinite().all()


def test_each_set_of_dropped_negatives_has_its_own_loss():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    drop = torch.rand(3, 5, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    losses = instance_loss(logits, drop)
    for mask, loss in zip(drop, losses, strict=True):
        terms = []
        for row, hidden in zip(logits.double(), mask, strict=True):
            kept = torch.cat([row[:1], row[1:][~hidden]])
            terms.append(float(kept.logsumexp(0) - row[0]))
        assert float(loss) == pytest.approx(sum(terms) / 5, rel=1e-5)


def test_released_negatives_leave_out_the_batch_s_own_and_the_last():
    assert batch_negatives(torch.tensor([1, 4, 1]), 6).tolist() == [0, 2, 3, 5]
    assert batch_negatives(torch.tensor([0, 1, 2]), 2).tolist() == []
    loss = prototype_loss(torch.eye(3), torch.arange(3), None, negatives=torch.empty(0).long())
    assert loss == 0


def test_instance_terms_alone_depend_on_the_reduction():
    instance = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0])]
    prototype = [torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0])]
    assert total_loss(instance, prototype, "mean") == 2 + 4 + 2 + 6
    assert total_loss(instance, prototype, "sum") == 6 + 4 + 2 + 6
