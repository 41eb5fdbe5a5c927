"""The losses against their equations in loops, the golden arrays, and their own laws."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cl_core.losses import info_nce, nt_xent, sup_con

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "supercon.npz", allow_pickle=False)
WARM, COLD = 0.3, 0.011  # on both sides of 1 / 32, where the running maximum takes over


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grads(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The value, then the gradient of each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], **tolerance) -> None:
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, **tolerance)


# the equations with loops: nothing shared with the code under test


def unit(x: Tensor) -> list[Tensor]:
    return [row / row.norm() for row in x]


def log_sum(terms: list[float]) -> float:
    top = max(terms)
    return top + math.log(sum(math.exp(t - top) for t in terms))


def slow_nt_xent(z1: Tensor, z2: Tensor, tau: float) -> float:
    z, n, total = unit(torch.cat([z1, z2])), len(z1), 0.0
    for i in range(2 * n):
        s = {k: float(z[i] @ z[k]) / tau for k in range(2 * n) if k != i}
        total += log_sum(list(s.values())) - s[(i + n) % (2 * n)]
    return total / (2 * n)


def slow_info_nce(query: Tensor, keys: Tensor, tau: float, bank: Tensor, in_batch: bool) -> float:
    q, k, extra, total = unit(query), unit(keys), unit(bank), 0.0
    for i in range(len(q)):
        candidates = [k[i], *extra] + [k[j] for j in range(len(k)) if in_batch and j != i]
        s = [float(q[i] @ x) / tau for x in candidates]
        total += log_sum(s) - s[0]
    return total / len(q)


def slow_sup_con(features: Tensor, labels: Tensor, tau: float, tau0: float, one: bool) -> list:
    n, views, _ = features.shape
    rows = [(i, v) for v in range(views) for i in range(n)]
    z = {(i, v): features[i, v] / features[i, v].norm() for i, v in rows}
    losses = []
    for i in rows[:n] if one else rows:
        s = {k: float(z[i] @ z[k]) / tau for k in rows if k != i}
        label = labels[i[0]]
        positives = [k for k in s if k[0] == i[0] or (labels[k[0]] == label and label != -1)]
        if positives:
            log_z = log_sum(list(s.values()))
            losses.append(tau / tau0 * sum(log_z - s[p] for p in positives) / len(positives))
        else:
            losses.append(None)
    return losses


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(2, 6),
    d=st.integers(1, 5),
    tau=st.floats(0.005, 5.0),
    block=st.integers(1, 14),
    seed=st.integers(0, 2**31 - 1),
)
def test_nt_xent_equals_the_equation(n, d, tau, block, seed):
    z1, z2 = draw(2, n, d, seed=seed)
    loss = nt_xent(z1, z2, tau, block_size=block).item()
    assert loss == pytest.approx(slow_nt_xent(z1, z2, tau), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(2, 6),
    q=st.integers(0, 7),
    tau=st.floats(0.005, 5.0),
    in_batch=st.booleans(),
    block=st.integers(1, 8),
    seed=st.integers(0, 2**31 - 1),
)
def test_info_nce_equals_the_equation(n, q, tau, in_batch, block, seed):
    query, keys = draw(2, n, 3, seed=seed)
    bank = draw(q, 3, seed=seed + 1)
    in_batch = in_batch or q == 0
    loss = info_nce(query, keys, tau, negatives=bank, in_batch=in_batch, block_size=block).item()
    slow = slow_info_nce(query, keys, tau, bank, in_batch)
    assert loss == pytest.approx(slow, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 6),
    views=st.integers(1, 3),
    tau=st.floats(0.005, 2.0),
    one=st.booleans(),
    zero=st.booleans(),
    block=st.integers(1, 9),
    seed=st.integers(0, 2**31 - 1),
)
def test_sup_con_equals_the_equation(n, views, tau, one, zero, block, seed):
    features = draw(n, views, 4, seed=seed)
    labels = torch.randint(-1, 2, (n,), generator=torch.Generator().manual_seed(seed))
    slow = slow_sup_con(features, labels, tau, 0.07, one)
    kept = [loss for loss in slow if loss is not None]
    count = len(slow) if zero else len(kept)
    loss = sup_con(
        features,
        labels,
        tau,
        base_temperature=0.07,
        contrast="one" if one else "all",
        no_positive="zero" if zero else "skip",
        block_size=block,
    )
    assert loss.item() == pytest.approx(sum(kept) / max(count, 1), rel=1e-9, abs=1e-9)


# golden arrays


@pytest.mark.parametrize(
    ("name", "features", "labels", "options"),
    [
        ("a_all_t07", "a_u", "a_labels", {"temperature": 0.07}),
        ("a_one_t07", "a_u", "a_labels", {"temperature": 0.07, "contrast": "one"}),
        ("a_all_t10_b07", "a_u", "a_labels", {"temperature": 0.1, "base_temperature": 0.07}),
        ("a_all_t50_b50", "a_u", "a_labels", {"temperature": 0.5, "base_temperature": 0.5}),
        ("simclr_t07", "a_u", None, {"temperature": 0.07}),
        ("v3", "v3_u", "a_labels", {"temperature": 0.07}),
        ("b_mean_valid", "b_u", "b_labels", {"temperature": 0.1}),
        ("b_mean_all", "b_u", "b_labels", {"temperature": 0.1, "no_positive": "zero"}),
        ("s", "s_u", "a_labels", {"temperature": 0.01, "base_temperature": 0.07}),
    ],
)
@pytest.mark.parametrize("block", [None, 5])
def test_sup_con_equals_the_reference_implementation(name, features, labels, options, block):
    y = None if labels is None else golden(labels)
    value, grad = grads(lambda u: sup_con(u, y, block_size=block, **options), golden(features))
    torch.testing.assert_close(value, golden(f"{name}_loss"), rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, golden(f"{name}_grad_u"), rtol=1e-6, atol=1e-8)


def test_sup_con_of_near_identical_views_at_a_cold_temperature_is_stable_in_float32():
    loss = sup_con(golden("s_u").float(), golden("a_labels"), 0.01, base_temperature=0.07)
    assert loss.item() == pytest.approx(float(GOLDEN["s_loss"]), rel=1e-3)


@pytest.mark.parametrize("rule", ["skip", "zero"])
def test_sup_con_without_any_positive_is_zero_with_zero_gradient(rule):
    u, y = golden("c_all_lone_u"), golden("c_all_lone_labels")
    for rows in (u, u[:1]):
        y = y[: len(rows)]
        value, grad = grads(lambda x, y=y: sup_con(x, y, 0.1, no_positive=rule), rows)
        assert value == 0
        assert torch.equal(grad, torch.zeros_like(rows))


# gradients and tiles


def dense_nt_xent(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    z, n = F.normalize(torch.cat([z1, z2]), dim=1), len(z1)
    s = (z @ z.T / tau).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(s, torch.arange(2 * n).roll(n))


def dense_info_nce(q: Tensor, k: Tensor, bank: Tensor, tau: float, in_batch: bool) -> Tensor:
    q, k, bank = (F.normalize(x, dim=1) for x in (q, k, bank))
    s = q @ k.T / tau
    others = torch.cat([s if in_batch else s.diagonal()[:, None], q @ bank.T / tau], 1)
    return (others.logsumexp(1) - s.diagonal()).mean()


def dense_sup_con(features: Tensor, labels: Tensor, tau: float) -> Tensor:
    n, views, d = features.shape
    z, y = F.normalize(features.reshape(n * views, d), dim=1), labels.repeat_interleave(views)
    self = torch.eye(n * views, dtype=torch.bool)
    s = (z @ z.T / tau).masked_fill(self, float("-inf"))
    positive = (y[:, None] == y) & ~self
    log_p = (s - s.logsumexp(1, keepdim=True)).masked_fill(~positive, 0)
    count = positive.sum(1)
    return -(log_p.sum(1)[count > 0] / count[count > 0]).mean()


@pytest.mark.parametrize("tau", [WARM, COLD])
@pytest.mark.parametrize("block", [1, 2, 5, 7, 13, 16, 26, 27, None])
def test_tiles_of_any_size_give_the_dense_values_and_gradients(block, tau):
    a, b, bank, tight = draw(13, 4), draw(13, 4, seed=1), draw(9, 4, seed=2), {"rtol": 1e-9}
    tight["atol"] = 1e-12
    assert_same(
        grads(lambda x, y: nt_xent(x, y, tau, block_size=block), a, b),
        grads(lambda x, y: dense_nt_xent(x, y, tau), a, b),
        **tight,
    )
    for in_batch in (False, True):
        assert_same(
            grads(
                lambda x, y, z, mode=in_batch: info_nce(
                    x, y, tau, negatives=z, in_batch=mode, block_size=block
                ),
                *(a, b, bank),
            ),
            grads(lambda x, y, z, m=in_batch: dense_info_nce(x, y, z, tau, m), a, b, bank),
            **tight,
        )
    none = bank[:0]
    assert_same(
        grads(lambda x, y: info_nce(x, y, tau, symmetric=True, block_size=block), a, b),
        grads(
            lambda x, y: (
                (dense_info_nce(x, y, none, tau, True) + dense_info_nce(y, x, none, tau, True)) / 2
            ),
            *(a, b),
        ),
        **tight,
    )
    labels = torch.arange(13) % 5
    assert_same(
        grads(lambda x: sup_con(x, labels, tau, block_size=block), torch.stack([a, b], 1)),
        grads(lambda x: dense_sup_con(x, labels, tau), torch.stack([a, b], 1)),
        **tight,
    )


@pytest.mark.parametrize("tau", [0.5, 0.02])
def test_float32_agrees_with_the_dense_float64_formula_to_1e_5(tau):
    a, b = draw(700, 32), draw(700, 32, seed=1)
    tiled = grads(lambda x, y: nt_xent(x, y, tau, block_size=512), a.float(), b.float())
    dense = grads(lambda x, y: dense_nt_xent(x, y, tau), a, b)
    assert tiled[0].item() == pytest.approx(dense[0].item(), rel=1e-5)
    for x, y in zip(tiled[1:], dense[1:], strict=True):
        assert (x - y).norm() <= 1e-5 * y.norm()


@pytest.mark.parametrize("tau", [WARM, COLD])
def test_gradcheck(tau):
    a, b, bank = (draw(4, 3, seed=s).requires_grad_() for s in range(3))
    labels = torch.tensor([0, 1, 0, 2])

    def supervised(x: Tensor, contrast: str) -> Tensor:
        return sup_con(x.reshape(4, 1, 3), labels, tau, contrast=contrast, block_size=3)

    check = torch.autograd.gradcheck
    assert check(lambda x, y: nt_xent(x, y, tau, block_size=3), (a, b))
    assert check(lambda x, y: info_nce(x, y, tau, symmetric=True, block_size=3), (a, b))
    assert check(lambda x, y, z: info_nce(x, y, tau, negatives=z), (a, b, bank))
    assert check(lambda x: supervised(x, "all"), a)
    assert check(lambda x: supervised(x, "one"), a)


def test_backward_twice_through_a_retained_graph_gives_the_same_gradient():
    a = draw(5, 3).requires_grad_()
    for tau in (WARM, COLD):
        loss = nt_xent(a, draw(5, 3, seed=1), tau)
        first = torch.autograd.grad(loss, a, retain_graph=True)
        assert torch.equal(torch.autograd.grad(loss, a)[0], first[0])


def test_a_second_derivative_is_refused():
    a, b = draw(2, 4, 3).requires_grad_()
    message = "differentiated once only: its second derivative is not implemented"
    for loss in (
        lambda a: nt_xent(a, b),
        lambda a: info_nce(a, b, symmetric=True),
        lambda a: sup_con(a[:, None], torch.tensor([0, 0, 1, 1])),
    ):
        (gradient,) = torch.autograd.grad(loss(a), a, create_graph=True)
        assert torch.equal(gradient, torch.autograd.grad(loss(a), a)[0])
        with pytest.raises(RuntimeError, match=message):
            gradient.square().sum().backward()


# laws


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 7), seed=st.integers(0, 2**31 - 1), tau=st.sampled_from([WARM, COLD]))
def test_order_scale_rotation_and_swapped_views_change_nothing(n, seed, tau):
    a, b = draw(2, n, 4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    labels = torch.randint(0, 3, (n,), generator=generator)
    scale = torch.rand(n, 1, generator=generator, dtype=torch.float64) + 0.1
    rotation, _ = torch.linalg.qr(draw(4, 4, seed=seed + 1))

    def losses(x: Tensor, y: Tensor, labels: Tensor) -> list[float]:
        both = torch.stack([x, y], 1)
        return [
            nt_xent(x, y, tau).item(),
            info_nce(x, y, tau, symmetric=True).item(),
            sup_con(both, labels, tau).item(),
            info_nce(x, y, tau, negatives=torch.cat([y.flip(0)])).item(),
        ]

    expected = losses(a, b, labels)
    close = {"rel": 1e-9, "abs": 1e-9}
    assert losses(a[order], b[order], labels[order]) == pytest.approx(expected, **close)
    assert losses(a * scale, b / scale, labels) == pytest.approx(expected, **close)
    assert losses(a @ rotation, b @ rotation, labels) == pytest.approx(expected, **close)
    assert losses(a, b, 7 - 3 * labels) == pytest.approx(expected, **close)
    assert losses(b, a, labels)[:3] == pytest.approx(expected[:3], **close)


def test_sup_con_without_labels_is_nt_xent():
    a, b = draw(2, 6, 4)
    assert sup_con(torch.stack([a, b], 1), None, 0.2) == pytest.approx(nt_xent(a, b, 0.2).item())


def test_a_bank_replaces_the_batch_unless_asked_otherwise():
    q, k, bank = draw(3, 5, 4)
    alone = info_nce(q, k, negatives=bank)
    assert alone == info_nce(q, k, negatives=bank, in_batch=False)
    assert alone < info_nce(q, k, negatives=bank, in_batch=True)
    assert info_nce(q[:1], k[:1], negatives=bank).isfinite()


def test_detached_keys_get_no_gradient_and_change_none_of_the_queries():
    q, k = draw(5, 4).requires_grad_(), draw(5, 4, seed=1).requires_grad_()
    both = torch.autograd.grad(info_nce(q, k), (q, k))
    (alone,) = torch.autograd.grad(info_nce(q, k.detach()), q)
    torch.testing.assert_close(alone, both[0], rtol=1e-12, atol=1e-15)
    assert both[1].abs().max() > 0


# precision, devices, tools


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tau", [0.5, 0.01])
def test_half_precision_is_finite_for_random_and_for_identical_rows(dtype, tau):
    labels = torch.arange(40) % 4
    for rows in (draw(40, 8), torch.ones(40, 8)):
        x = rows.to(dtype)
        for loss in (
            lambda a, b: nt_xent(a, b, tau),
            lambda a, b: info_nce(a, b, tau, symmetric=True),
            lambda a, b: sup_con(torch.stack([a, b], 1), labels, tau),
        ):
            value, *gradients = grads(loss, x, x)
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert all(g.dtype == dtype and g.isfinite().all() for g in gradients)
    collapsed = nt_xent(torch.ones(40, 8, dtype=dtype), torch.ones(40, 8, dtype=dtype), tau)
    assert collapsed.item() == pytest.approx(math.log(79), rel=1e-4)


@pytest.mark.parametrize("tau", [0.01, 0.001])
def test_far_rows_at_a_cold_temperature_do_not_vanish(tau):
    # exp((-1 - 1) / tau) is 0 in float32: each row is opposite to all others, partner included.
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.0], [0.0, -1.0]])
    value, grad, _ = grads(lambda x, y: nt_xent(x, y, tau, block_size=1), a, b)
    assert value.item() == pytest.approx(math.log(2) + 1 / tau, rel=1e-5)
    assert grad.isfinite().all()


def test_autocast_does_not_lower_the_precision():
    a, b = draw(20, 8).float(), draw(20, 8, seed=1).float()
    labels = torch.arange(20) % 3
    for loss in (
        lambda x, y: nt_xent(x, y, 0.1, block_size=16),
        lambda x, y: info_nce(x, y, 0.1, negatives=y.detach(), in_batch=True),
        lambda x, y: sup_con(torch.stack([x, y], 1), labels, 0.1),
    ):
        expected = grads(loss, a, b)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = grads(loss, a, b)
        for x, y in zip(actual, expected, strict=True):
            assert torch.equal(x, y)


# a learnable temperature


@pytest.mark.parametrize("tau", [WARM, COLD])
def test_a_learnable_temperature_gets_the_gradient_of_the_dense_formula(tau):
    a, b, bank = (draw(6, 4, seed=seed) for seed in range(3))
    labels, t = torch.tensor([0, 1, 0, 2, 1, 0]), torch.tensor(tau, dtype=torch.float64)
    tight = {"rtol": 1e-9, "atol": 1e-12}
    for ours, dense in (
        (nt_xent, dense_nt_xent),
        (
            lambda a, b, t: info_nce(a, b, t, symmetric=True),
            lambda a, b, t: (
                (dense_info_nce(a, b, bank[:0], t, True) + dense_info_nce(b, a, bank[:0], t, True))
                / 2
            ),
        ),
        (
            lambda a, b, t: info_nce(a, b, t, negatives=bank, in_batch=True),
            lambda a, b, t: dense_info_nce(a, b, bank, t, True),
        ),
        (
            lambda a, b, t: sup_con(torch.stack([a, b], 1), labels, t),
            lambda a, b, t: dense_sup_con(torch.stack([a, b], 1), labels, t),
        ),
        (
            lambda a, b, t: sup_con(torch.stack([a, b], 1), labels, t, base_temperature=0.07),
            lambda a, b, t: dense_sup_con(torch.stack([a, b], 1), labels, t) * t / 0.07,
        ),
    ):
        assert_same(grads(ours, a, b, t), grads(dense, a, b, t), **tight)
        assert_same(
            grads(ours, a, b, t[None]), (*grads(ours, a, b, t)[:3], dense_grad(ours, a, b, t))
        )


def dense_grad(loss: Callable[..., Tensor], a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return grads(loss, a, b, t)[3][None]


# torch.func and the compiler


def test_torch_func_gives_the_gradients_of_backward():
    a, b = draw(2, 3, 6, 4)
    labels = torch.tensor([0, 1, 0, -1, 1, 0])
    for loss in (
        lambda a, b: nt_xent(a, b, 0.3, block_size=5),
        lambda a, b: info_nce(a, b, 0.01, symmetric=True),
        lambda a, b: sup_con(torch.stack([a, b], 1), labels, denominator="own_class"),
    ):
        one_by_one = [grads(loss, x, y) for x, y in zip(a, b, strict=True)]
        values = torch.func.vmap(loss)(a, b)
        of_each = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(a, b)
        assert_same(
            (values, *of_each), tuple(torch.stack(x) for x in zip(*one_by_one, strict=True))
        )
        alone = torch.func.grad(loss)(a[0], b[0])
        torch.testing.assert_close(alone, one_by_one[0][1])


def test_vmap_takes_a_temperature_for_each_element():
    a, b = draw(2, 6, 4)
    taus = torch.tensor([0.5, 0.1, 0.01], dtype=torch.float64)
    values = torch.func.vmap(lambda t: nt_xent(a, b, t))(taus)
    expected = torch.stack([nt_xent(a, b, float(t)) for t in taus])
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=0)


COMPILED = """
import torch
from cl_core.losses import info_nce, nt_xent, sup_con
labels, t = torch.arange(20) % 3, torch.tensor(0.1)
for dtype in (torch.float32, torch.float64):
    for loss in (
        lambda x, y: nt_xent(2 * x, y, 0.5, block_size=16).sin(),
        lambda x, y: info_nce(2 * x, y, 0.01, negatives=y, in_batch=True, block_size=16) * 2,
        lambda x, y: sup_con(torch.stack([2 * x, y], 1), labels, block_size=16) * 2,
        lambda x, y: nt_xent(x, y, t * 2),
    ):
        results = []
        for f in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
            draw = torch.Generator().manual_seed(0)
            x, y = (torch.randn(20, 4, generator=draw, dtype=dtype).requires_grad_() for _ in "xy")
            value = f(x, y)
            results.append((value, *torch.autograd.grad(value, (x, y))))
        torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
"""


@pytest.mark.slow
def test_a_compiled_training_step_gives_the_same_values_without_a_graph_break():
    # In a process of its own: the tests' shape checks are what breaks the graph.
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], check=True)


# precision


def exact_nt_xent(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """The loss as log(1 + sum of e^(negative - positive)): exact in float64 however small it is."""
    z, n = F.normalize(torch.cat([z1, z2]), dim=1), len(z1)
    partner = torch.arange(2 * n).roll(n)
    apart = ((z - z[partner]) ** 2).sum(1) / 2
    s = (z @ z.T - 1 + apart[:, None]) / tau
    left_out = torch.eye(2 * n, dtype=torch.bool) | (partner[:, None] == torch.arange(2 * n))
    return F.softplus(s.masked_fill(left_out, -math.inf).logsumexp(1)).mean()


@pytest.mark.parametrize("noise", [1.0, 0.1, 0.02])
@pytest.mark.parametrize("tau", [0.5, 0.1, 0.05, 0.02, 0.01])
def test_a_nearly_solved_problem_keeps_its_digits_in_float32(tau, noise):
    a = draw(256, 64)
    b = a + noise * draw(256, 64, seed=1)
    exact = grads(lambda x, y: exact_nt_xent(x, y, tau), a, b)
    stacked = lambda x, y: sup_con(torch.stack([x, y], 1), None, tau)  # noqa: E731
    for loss in (lambda x, y: nt_xent(x, y, tau), stacked):
        value, *gradients = grads(loss, a.float(), b.float())
        # A similarity of float32 rows is known to some 1e-7 / tau, and so is e to its power.
        assert value.item() == pytest.approx(exact[0].item(), rel=3e-7 / tau)
        for g, h in zip(gradients, exact[1:], strict=True):
            assert (g - h).norm() <= (3e-6 + 3e-7 / tau) * h.norm()


MEMORY = """
import torch
from cl_core.losses import info_nce, nt_xent, sup_con
from peak_memory import peak_bytes
def step(n):
    a, b = torch.randn(2, n, 16, requires_grad=True).unbind()
    nt_xent(a, b, 0.5).backward()
    nt_xent(a, b, 0.01, block_size=512).backward()
    sup_con(torch.stack([a, b], 1), torch.arange(n) % 10).backward()
    info_nce(a, b, symmetric=True).backward()
step(64)
before = peak_bytes()
step(6000)
print(peak_bytes() - before)
"""


def test_memory_is_far_below_the_similarity_matrix():
    run = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    # The 12,000 x 12,000 matrix alone is 576 MB, and a dense loss holds several.
    assert int(run.stdout) < 150e6


# refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: nt_xent(x, x[:2]), r"pair row by row as \(n, d\), got \(3, 4\) and \(2, 4\)"),
        (lambda x: nt_xent(x[0], x[0]), r"pair row by row as \(n, d\), got \(4,\) and \(4,\)"),
        (lambda x: nt_xent(x[:1], x[:1]), "at least 2 pairs, got 1: a lone pair has no negative"),
        (lambda x: nt_xent(x, x, 0.0), "temperature must be positive and finite, got 0.0"),
        (lambda x: nt_xent(x, x, math.nan), "temperature must be positive and finite, got nan"),
        (lambda x: nt_xent(x, x, block_size=0), "block_size must be at least 1 row, got 0"),
        (lambda x: info_nce(x, x[:, :2]), r"got \(3, 4\) and \(3, 2\)"),
        (lambda x: info_nce(x, x, -1.0), "temperature must be positive and finite, got -1.0"),
        (lambda x: info_nce(x, x, negatives=x[:, :2]), r"negatives must be \(q, 4\)"),
        (lambda x: info_nce(x, x, negatives=x, symmetric=True), "a bank holds keys only"),
        (lambda x: info_nce(x[:1], x[:1]), "at least 1 negative each, got 1 queries and 0"),
        (lambda x: info_nce(x, x, in_batch=False), "got 3 queries and 0 negatives"),
        (lambda x: sup_con(x, None), r"features must be \(n, v, d\)"),
        (lambda x: sup_con(x[:0, None], None), r"none of them 0, got \(0, 1, 4\)"),
        (lambda x: sup_con(x[None], torch.zeros(3, dtype=torch.int64)), r"labels must be \(1,\)"),
        (lambda x: sup_con(x[:, None], torch.zeros(3)), "integers, .* torch.float32"),
        (lambda x: sup_con(x[:, None], None, 0.0), "temperature must be positive"),
        (
            lambda x: sup_con(x[:, None], None, base_temperature=0.0),
            "base_temperature must be positive and finite, got 0.0",
        ),
        (lambda x: sup_con(x[:, None], None, contrast="two"), "contrast must be .* got 'two'"),
        (lambda x: sup_con(x[:, None], None, no_positive="x"), "no_positive must be .* got 'x'"),
    ],
)
def test_a_wrong_call_is_refused_with_what_was_expected(call, message, monkeypatch):
    # Past the shape checker, if the test run has one: the functions themselves must refuse.
    for loss in (nt_xent, info_nce, sup_con):
        monkeypatch.setitem(globals(), loss.__name__, unwrap(loss))
    with pytest.raises(ValueError, match=message):
        call(draw(3, 4))
