"""The five modes of the contrast: reference vectors, the equation by loops, and their laws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cl_agriculture.claws import claws_loss, cosines

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "claws.npz")
WEAK = torch.from_numpy(GOLDEN["l_weak"])
MODES = ("class_all", "instance", "no_false_neg", "within_class", "class_pair")


def slow_loss(z1, z2, weak, mode, tau):
    """The equation with loops: nothing shared with the code under test."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    n, losses = len(weak), []
    for i in range(2 * n):
        own = {(i + n) % (2 * n)}
        mine = int(weak[i % n])
        same = {k for k in range(2 * n) if k != i and mine >= 0 and int(weak[k % n]) == mine}
        everything = set(range(2 * n)) - {i}
        positives = own | same if mode == "class_all" else own
        if mode == "within_class":
            rest = own | same
        else:
            rest = everything - (same - own) if mode == "no_false_neg" else everything
        if len(rest) < 2:
            continue
        total = math.log(sum(math.exp(float(z[i] @ z[a]) / tau) for a in rest))
        losses.append(-sum(float(z[i] @ z[p]) / tau - total for p in positives) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("instance", "instance"),
        ("class_all", "class_all"),
        ("within_class", "within_class"),
        ("no_false_neg", "instance_no_false_neg"),
    ],
)
def test_value_and_gradient_equal_the_reference(mode, name):
    u = torch.tensor(GOLDEN["l_u"], requires_grad=True)
    tau = float(GOLDEN["l_tau"])
    loss = claws_loss(*u.chunk(2), WEAK, contrast=mode, temperature=tau)
    loss.backward()
    assert loss.item() == pytest.approx(float(GOLDEN[f"l_{name}_loss"]), rel=1e-6)
    np.testing.assert_allclose(u.grad, GOLDEN[f"l_{name}_grad_u"], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_equals_the_equation(mode):
    generator = torch.Generator().manual_seed(1)
    z1, z2 = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    weak = torch.tensor([0, 1, -1, 0, 2, 0, -1])
    loss = claws_loss(z1, z2, weak, contrast=mode, temperature=0.3).item()
    assert loss == pytest.approx(slow_loss(z1, z2, weak, mode, 0.3), rel=1e-9)


def test_without_labels_every_mode_is_instance_contrast():
    z1, z2 = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    none = torch.full((6,), -1)
    plain = claws_loss(z1, z2, none, contrast="instance")
    for mode in ("class_all", "no_false_neg", "class_pair"):
        torch.testing.assert_close(claws_loss(z1, z2, none, contrast=mode), plain)


def test_a_class_of_one_image_has_no_contrast_within_itself():
    z1, z2 = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = claws_loss(z1, z2, torch.tensor([0, 1, 2]), contrast="within_class")
    loss.backward()
    assert loss.item() == 0


def test_sparing_the_class_in_pairs_leaves_its_rows_out_of_the_denominator():
    z1, z2 = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    weak = torch.tensor([0, 0, 1, 1, -1, 2])
    pairs = claws_loss(z1, z2, weak, contrast="class_pair", spare_class=True)
    torch.testing.assert_close(pairs, claws_loss(z1, z2, weak, contrast="no_false_neg"))
    assert pairs < claws_loss(z1, z2, weak, contrast="class_pair")


def test_bad_arguments_are_refused():
    z = torch.eye(3)
    with pytest.raises(ValueError, match="temperature must be positive"):
        claws_loss(z, z, WEAK[:3], temperature=0.0)


def test_cosines_are_those_of_the_pairs_and_of_all_others():
    z1, z2 = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    table = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T
    own, others = cosines(z1, z2)
    assert own.item() == pytest.approx(table.diag().mean().item(), abs=1e-6)
    off = table[~torch.eye(5, dtype=torch.bool)].mean()
    assert others.item() == pytest.approx(off.item(), abs=1e-6)


def test_the_reference_partner_table_pairs_within_classes():
    partner = GOLDEN["l_partner_example"]
    weak = GOLDEN["l_weak"]
    for row, other in enumerate(partner.tolist()):
        alone = weak[row] < 0 or (weak == weak[row]).sum() == 1
        assert other == row if alone else (other != row and weak[other] == weak[row])
