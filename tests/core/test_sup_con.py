"""SupCon's positives and denominators against the equation in loops and the golden arrays."""

from __future__ import annotations

import math
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_core.losses import nt_xent, sup_con

GOLDEN = {
    name: np.load(Path(__file__).parents[1] / "golden" / f"{name}.npz", allow_pickle=False)
    for name in ("claws", "multidomain_seg", "supercon")
}
POSITIVES = ("class", "own")
DENOMINATORS = ("all", "own_class", "no_false_negatives")


def golden(file: str, name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[file][name])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_grad(loss, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value, x)[0]


def slow(features: Tensor, same, tau: float, positives: str, denominator: str, one: bool) -> list:
    """The loss of each anchor by the sets of the docstring; None for one that does not count.

    ``same(i, j)`` says whether sample ``i`` takes sample ``j`` for its class.
    """
    n, views, _ = features.shape
    rows = [(v, i) for v in range(views) for i in range(n)]
    z = {(v, i): (features[i, v] / features[i, v].norm()).numpy() for v, i in rows}
    losses = []
    for anchor in rows[:n] if one else rows:
        others = [k for k in rows if k != anchor]
        own = {k for k in others if k[1] == anchor[1]}
        of_class = {k for k in others if same(anchor[1], k[1])}
        p = own if positives == "own" else of_class
        a = {
            "all": set(others),
            "own_class": own | of_class,
            "no_false_negatives": set(others) - (of_class - own),
        }[denominator]
        s = {k: float(z[anchor] @ z[k]) / tau for k in others}
        if not p or not a or (len(p) == 1 and a == p):
            losses.append(None)
            continue
        top = max(s[k] for k in a)
        log_z = top + math.log(sum(math.exp(s[k] - top) for k in a))
        losses.append(log_z - sum(s[k] for k in p) / len(p))
    return losses


def same_label(labels: Tensor):
    y = labels.tolist()
    return lambda i, j: i == j or (y[i] == y[j] and y[i] != -1)


SIZES = {
    "n": st.integers(1, 6),
    "views": st.integers(1, 3),
    "tau": st.floats(0.005, 2.0),
    "positives": st.sampled_from(POSITIVES),
    "denominator": st.sampled_from(DENOMINATORS),
    "one": st.booleans(),
    "rule": st.sampled_from(["skip", "zero"]),
    "block": st.integers(1, 9),
    "seed": st.integers(0, 2**31 - 1),
}


def check(features, kept, rule, loss):
    count = len(kept) if rule == "zero" else sum(x is not None for x in kept)
    expected = sum(x for x in kept if x is not None) / max(count, 1)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(**SIZES)
def test_every_mode_of_labels_equals_the_equation(
    n, views, tau, positives, denominator, one, rule, block, seed
):
    features = draw(n, views, 4, seed=seed)
    labels = torch.randint(-1, 2, (n,), generator=torch.Generator().manual_seed(seed))
    options = {"positives": positives, "denominator": denominator, "no_positive": rule}
    contrast = "one" if one else "all"
    loss = sup_con(features, labels, tau, contrast=contrast, block_size=block, **options)
    kept = slow(features, same_label(labels), tau, positives, denominator, one)
    check(features, kept, rule, loss)


@settings(deadline=None, max_examples=50)
@given(**SIZES)
def test_every_mode_of_a_mask_equals_the_equation(
    n, views, tau, positives, denominator, one, rule, block, seed
):
    features = draw(n, views, 4, seed=seed)
    mask = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < 0.4
    options = {"positives": positives, "denominator": denominator, "no_positive": rule}
    contrast = "one" if one else "all"
    loss = sup_con(features, None, tau, mask=mask, contrast=contrast, block_size=block, **options)
    listed = mask.tolist()
    kept = slow(features, lambda i, j: listed[i][j], tau, positives, denominator, one)
    check(features, kept, rule, loss)


@pytest.mark.parametrize("tau", [0.3, 0.011])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("positives", POSITIVES)
def test_gradcheck_of_every_mode(positives, denominator, tau):
    # Lone classes, a class of two, an unlabelled sample; one view and two.
    labels = torch.tensor([0, 1, 1, 2, -1, 2, 2])
    mask = torch.rand(7, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    options = {"positives": positives, "denominator": denominator, "block_size": 4}
    for views in (1, 2):
        x = draw(7, views, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: sup_con(x, labels, tau, **options), x)
        assert torch.autograd.gradcheck(lambda x: sup_con(x, mask=mask, **options), x)


# golden arrays


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("class_all", {}),
        ("instance", {"positives": "own"}),
        (
            "instance_no_false_neg",
            {"positives": "own", "denominator": "no_false_negatives"},
        ),
        ("within_class", {"positives": "own", "denominator": "own_class"}),
    ],
)
@pytest.mark.parametrize("block", [None, 6])
def test_the_modes_of_claws(mode, options, block):
    u, weak = golden("claws", "l_u"), golden("claws", "l_weak")
    tau, n = float(GOLDEN["claws"]["l_tau"]), len(weak)

    def loss(u: Tensor) -> Tensor:  # its rows are view-major
        features = u.reshape(2, n, -1).transpose(0, 1)
        return sup_con(features, weak, tau, block_size=block, **options)

    value, grad = value_and_grad(loss, u)
    expected = golden("claws", f"l_{mode}_loss"), golden("claws", f"l_{mode}_grad_u")
    torch.testing.assert_close(value, expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, expected[1], rtol=1e-6, atol=1e-9)
    if mode == "instance":  # which is SimCLR, and what class_pair trains with
        assert value.item() == pytest.approx(nt_xent(*u.split(n), tau).item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
@pytest.mark.parametrize("block", [None, 5])
def test_a_users_mask_equals_the_reference_implementation(dtype, block):
    u, mask = golden("supercon", "a_u"), golden("supercon", "a_mask")
    assert not torch.equal(mask, mask.T)
    value, grad = value_and_grad(
        lambda u: sup_con(u, None, 0.07, mask=mask.to(dtype), block_size=block), u
    )
    expected = golden("supercon", "a_mask_loss"), golden("supercon", "a_mask_grad_u")
    torch.testing.assert_close(value, expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, expected[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", ["a", "single", "onedomain", "unbal"])
@pytest.mark.parametrize(("name", "rule"), [("exclude", "skip"), ("all", "zero")])
def test_contrast_between_domains(case, name, rule):
    h, domain = (
        golden("multidomain_seg", f"con_{case}_h"),
        golden("multidomain_seg", f"con_{case}_domain"),
    )
    tau = float(GOLDEN["multidomain_seg"][f"con_{case}_tau"])
    value, grad = value_and_grad(
        lambda h: sup_con(h[:, None], domain, tau, no_positive=rule, min_classes=2), h
    )
    expected = golden("multidomain_seg", f"con_{case}_loss_{name}")
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    expected = golden("multidomain_seg", f"con_{case}_grad_{name}")
    torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-9)


def test_contrast_between_domains_at_several_scales():
    file = GOLDEN["multidomain_seg"]
    domain, tau = golden("multidomain_seg", "conms_domain"), float(file["conms_tau"])
    for k, expected in enumerate(file["conms_loss_per_scale"]):
        features = golden("multidomain_seg", f"conms_feat{k}").requires_grad_()
        loss = sup_con(features.mean((2, 3))[:, None], domain, tau, min_classes=2)
        assert loss.item() == pytest.approx(float(expected), rel=1e-6)
        (grad,) = torch.autograd.grad(loss / len(file["conms_loss_per_scale"]), features)
        expected_grad = golden("multidomain_seg", f"conms_grad{k}")
        torch.testing.assert_close(grad, expected_grad, rtol=1e-6, atol=1e-9)


# laws


def test_an_unlabelled_sample_is_a_class_of_its_own():
    features, labels = draw(6, 2, 4), torch.tensor([0, -1, 1, 0, -1, -1])
    alone = torch.tensor([0, 5, 1, 0, 6, 7])
    for positives in POSITIVES:
        for denominator in DENOMINATORS:
            options = {"positives": positives, "denominator": denominator}
            expected = value_and_grad(lambda x, o=options: sup_con(x, alone, **o), features)
            actual = value_and_grad(lambda x, o=options: sup_con(x, labels, **o), features)
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)
    assert sup_con(features, torch.full((6,), -1)) == sup_con(features, None)


def test_labels_below_minus_one_are_classes():
    features = draw(6, 2, 4)
    low, plain = torch.tensor([-2, -3, -2, -1, -7, -3]), torch.tensor([0, 1, 0, -1, 3, 1])
    assert sup_con(features, low).item() == pytest.approx(sup_con(features, plain).item())


def test_a_mask_of_equal_labels_is_the_labels():
    features, labels = draw(6, 2, 4), torch.tensor([0, 2, 1, 0, 1, 1])
    mask = labels[:, None] == labels
    for positives in POSITIVES:
        for denominator in DENOMINATORS:
            options = {"positives": positives, "denominator": denominator}
            expected = value_and_grad(lambda x, o=options: sup_con(x, labels, **o), features)
            actual = value_and_grad(lambda x, o=options: sup_con(x, mask=mask, **o), features)
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_a_batch_of_too_few_classes_is_silent():
    features = draw(4, 1, 3)
    for labels, silent in (([1, 1, 1, -1], True), ([1, 1, 0, 0], False), ([-1] * 4, True)):
        loss = lambda x, y=labels: sup_con(x, torch.tensor(y), min_classes=2)  # noqa: E731
        value, grad = value_and_grad(loss, features)
        assert (value == 0) == silent
        assert bool((grad == 0).all()) == silent


# refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": torch.zeros(3).long(), "mask": torch.eye(3)}, "give one of the two"),
        ({"mask": torch.eye(4)}, r"mask must be \(3, 3\), .* got \(4, 4\)"),
        ({"mask": torch.eye(3) / 2}, "0 and 1 or booleans, it holds other numbers"),
        ({"positives": "all"}, 'positives must be "class" or "own", got \'all\''),
        ({"denominator": "x"}, "denominator must be \"all\", .* or .* got 'x'"),
        ({"min_classes": 2}, "min_classes=2 counts the classes of labels: give labels"),
    ],
)
def test_a_wrong_choice_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unwrap(sup_con)(draw(3, 2, 4), **options)
