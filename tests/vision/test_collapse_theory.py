"""The equations of collapse against golden arrays, loops and autograd; the toy studies' tables."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_core.evaluation import singular_values
from cl_core.runs import Run
from cl_vision.collapse.theory import (
    alpha_weights,
    distance_loss,
    layer_gradients,
    linear_step,
    nce_gradients,
    product,
    weighted_covariances,
    x_matrix,
)
from cl_vision.collapse.theory_figures import turning_point
from cl_vision.collapse.theory_pages import theory_page
from cl_vision.collapse.toy_studies import (
    growth_rates,
    implicit_regularization,
    initial_layers,
    predicted_x,
    strong_augmentation,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "directclr.npz", allow_pickle=False)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(ours, theirs, relative=1e-9):
    torch.testing.assert_close(ours, theirs, rtol=relative, atol=1e-12)


# the equations


def test_the_theory_equals_the_derived_arrays():
    x, xp, w1, w2 = (golden(f"theory__{name}") for name in ("x", "xp", "W1", "W2"))
    w = w2 @ w1
    alpha = alpha_weights(x @ w.T, xp @ w.T)
    sigma0, sigma1 = weighted_covariances(x, xp, alpha)
    assert distance_loss(x @ w.T, xp @ w.T).item() == pytest.approx(
        float(GOLDEN["theory__loss"]), rel=1e-9
    )
    close(alpha, golden("theory__alpha"))
    close(sigma0, golden("theory__Sigma0"))
    close(sigma1, golden("theory__Sigma1"))
    close(x_matrix(x, xp, w), golden("theory__X"))
    close(layer_gradients([w], x_matrix(x, xp, w))[0], golden("theory__grad_W"), 1e-6)
    grad1, grad2 = layer_gradients([w1, w2], x_matrix(x, xp, w))
    close(grad1, golden("theory__grad_W1"), 1e-6)
    close(grad2, golden("theory__grad_W2"), 1e-6)


def slow_distance_loss(z, zp):
    """The equation with loops: nothing shared with the code under test."""
    total = 0.0
    for i in range(len(z)):
        positive = float((z[i] - zp[i]) @ (z[i] - zp[i])) / 2
        terms = [-positive] + [
            -float((z[i] - z[j]) @ (z[i] - z[j])) / 2 for j in range(len(z)) if j != i
        ]
        total += positive + math.log(sum(math.exp(t) for t in terms))
    return total


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_loss_and_covariances_are_those_of_loops(n, d, seed):
    z, zp = draw(2, n, d, seed=seed)
    assert distance_loss(z, zp).item() == pytest.approx(slow_distance_loss(z, zp), rel=1e-9)
    alpha = alpha_weights(z, zp)
    close(alpha.sum(1), torch.ones(n, dtype=torch.float64))
    sigma0, sigma1 = torch.zeros(2, d, d, dtype=torch.float64)
    for i in range(n):
        sigma1 += (1 - alpha[i, i]) * torch.outer(zp[i] - z[i], zp[i] - z[i])
        for j in range(n):
            if j != i:
                sigma0 += alpha[i, j] * torch.outer(z[i] - z[j], z[i] - z[j])
    ours = weighted_covariances(z, zp, alpha)
    torch.testing.assert_close(ours, (sigma0, sigma1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gradients_of_the_layers_are_those_of_autograd(layers):
    x, xp = draw(7, 5), draw(7, 5, seed=1)
    weights = [(draw(5, 5, seed=2 + k) / 2).requires_grad_() for k in range(layers)]
    w = product(weights)
    distance_loss(x @ w.T, xp @ w.T).backward()
    plain = [weight.detach() for weight in weights]
    for ours, weight in zip(
        layer_gradients(plain, x_matrix(x, xp, product(plain))), weights, strict=True
    ):
        torch.testing.assert_close(ours, weight.grad, rtol=1e-9, atol=1e-10)


def test_gradients_of_the_studies_loss_are_those_of_autograd():
    z1, z2 = draw(6, 4).requires_grad_(), draw(6, 4, seed=1).requires_grad_()
    expected = torch.nn.functional.cross_entropy(z1 @ z2.T / 0.3, torch.arange(6))
    expected.backward()
    loss, g1, g2 = nce_gradients(z1.detach(), z2.detach(), 0.3)
    close(loss, expected.detach())
    close(g1, z1.grad)
    close(g2, z2.grad)


def test_directions_in_which_augmentation_beats_the_data_decay_under_the_flow():
    x = draw(40, 4)
    x, xp = (x + torch.tensor([0, 0, 0, 2.0]) * draw(40, 4, seed=s) for s in (1, 2))
    w = torch.eye(4, dtype=torch.float64)
    before = x_matrix(x, xp, w) / 40
    assert before[3, 3] < 0 < before[0, 0]
    for _ in range(200):
        w = w + 0.01 * w @ x_matrix(x, xp, w) / 40  # the flow, dW/dt = W X
    assert w[:, 3].norm() < 0.3
    assert w[:, :3].norm(dim=0).min() > 1


def test_the_flow_of_two_layers_conserves_their_difference_and_grows_by_size_squared():
    x = draw(30, 4)
    weights = [w[:4, :4] for w in initial_layers(2, 4, torch.Generator().manual_seed(0))]

    def difference(w1, w2):
        return w1 @ w1.T - w2.T @ w2

    start, drifts = difference(*weights), []
    for rate, steps in ((1e-3, 400), (5e-4, 800)):  # the same stretch of time
        layers = weights
        for _ in range(steps):
            gradients = layer_gradients(layers, x_matrix(x, x, product(layers)) / 30)
            layers = [w - rate * g for w, g in zip(layers, gradients, strict=True)]
        drifts.append(float((difference(*layers) - start).norm() / start.norm()))
        assert (product(layers) - product(weights)).norm() > 0.3  # something has happened
    assert drifts[0] < 0.01
    assert drifts[1] == pytest.approx(drifts[0] / 2, rel=0.1)  # all of it is the step's size


@pytest.mark.parametrize(("layers", "power"), [(1, 0), (2, 2), (3, 4)])
def test_aligned_singular_values_grow_by_their_size_to_the_power_of_twice_the_other_layers(
    layers, power
):
    sizes, measured, predicted = growth_rates(layers, seed=1)
    torch.testing.assert_close(measured, predicted, rtol=1e-5, atol=0)
    assert (measured > 0).all()  # X is positive: nothing shrinks, and yet
    x, y = sizes.log(), measured.log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    assert slope == pytest.approx(power, abs=0.4)  # v'Xv differs between directions


def test_growth_of_a_short_step_is_what_was_said():
    """The rates against singular values computed anew, without perturbation theory."""
    sizes, measured, _ = growth_rates(1, seed=2)
    generator = torch.Generator().manual_seed(2)
    u, v = (  # in the order in which growth_rates draws
        torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    weight = v * sizes @ u.T
    x = torch.randn(512, 16, generator=generator, dtype=torch.float64)
    x, xp = (
        x + 1e-3 * torch.randn(512, 16, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    time = 1e-6
    moved = weight + time * weight @ x_matrix(x, xp, weight) / 512
    rates = (torch.linalg.svdvals(moved) / sizes).log() / time
    torch.testing.assert_close(rates, measured, rtol=1e-3, atol=1e-3)


# the official toy scripts


def replay(case, weights, bias, augmented):
    x, rows, noise = golden(f"{case}__x"), golden(f"{case}__idx").long(), golden(f"{case}__eps")
    strength, rate = float(GOLDEN[f"{case}__noise"]), float(GOLDEN[f"{case}__lr"])
    history, losses = [weights], []
    for batch, eps in zip(rows, noise, strict=True):
        views = [x[batch].clone(), x[batch].clone()]
        for view, e in zip(views, eps, strict=True):
            view[:, x.shape[1] - augmented :] += strength * e
        weights, bias, loss = linear_step(weights, bias, *views, learning_rate=rate)
        history.append(weights)
        losses.append(loss)
    return history, bias, losses


def test_strong_augmentation_takes_the_official_steps():
    history, bias, losses = replay("toy1", [golden("toy1__W")[0]], golden("toy1__b0"), 8)
    for step, expected in zip(GOLDEN["toy1__W_steps"], golden("toy1__W"), strict=True):
        close(history[step][0], expected)
    close(bias, golden("toy1__bias_final"))
    close(torch.tensor(losses, dtype=torch.float64), golden("toy1__loss"))
    z = golden("toy1__x_eval") @ history[-1][0].T + bias
    close(singular_values(z, normalize=False), golden("toy1__spectrum_final"))


def test_implicit_regularisation_takes_the_official_steps():
    start = [golden("toy2__W1")[0], golden("toy2__W2")[0]]
    history, _, losses = replay("toy2", start, None, 16)
    for place, step in enumerate(GOLDEN["toy2__W_steps"]):
        close(history[step][0], golden("toy2__W1")[place])
        close(history[step][1], golden("toy2__W2")[place])
    close(torch.tensor(losses, dtype=torch.float64), golden("toy2__loss"))
    w1, w2 = history[-1]
    torch.testing.assert_close(
        torch.linalg.svdvals(w1), golden("toy2__sv1_final"), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(
        torch.linalg.svdvals(w2), golden("toy2__sv2_final"), rtol=1e-9, atol=1e-12
    )
    overlap = (torch.linalg.svd(w2)[2] @ torch.linalg.svd(w1)[0]).abs()
    torch.testing.assert_close(overlap, golden("toy2__abs_alignment_final"), rtol=1e-6, atol=1e-9)


def test_layers_start_with_the_official_singular_values():
    for weight in initial_layers(3, 16, torch.Generator().manual_seed(0)):
        torch.testing.assert_close(
            torch.linalg.svdvals(weight), golden("toy2__init_singular_values"), rtol=1e-6, atol=0
        )


# the studies

STRONG = {  # noise: windows of the weight ratio and of the effective rank, over three seeds
    0.01: ((0.95, 1.05), (14.8, 15.9)),
    1.0: ((0.38, 0.42), (11.3, 12.0)),
    3.0: ((0.07, 0.09), (8.2, 8.35)),
}


@pytest.mark.parametrize("noise", STRONG)
def test_stronger_augmentation_leaves_fewer_dimensions(noise):
    run = strong_augmentation(noise, seed=0, record=2000)
    ratios, ranks = STRONG[noise]
    assert ratios[0] <= float(run.weight_ratio[-1]) <= ratios[1]
    assert ranks[0] <= float(run.effective_ranks[-1]) <= ranks[1]
    assert run.steps.tolist() == [0, 2000]
    gap = run.spectra[-1].log10()
    plateau = float(gap[:8].mean() - gap[8:].mean())
    assert (plateau > 0.9) == (noise >= 1)


DEPTHS = {1: (16, 15.6, 16.0), 2: (10, 8.5, 9.3), 3: (5, 3.7, 5.3)}  # after 1,000 steps


@pytest.mark.parametrize("layers", DEPTHS)
def test_deeper_linear_networks_keep_fewer_dimensions(layers):
    run = implicit_regularization(layers, steps=1000, seed=0, record=500)
    alive, low, high = DEPTHS[layers]
    assert abs(int(run.alive[-1]) - alive) <= 1
    assert low <= float(run.effective_ranks[-1]) <= high
    assert run.effective_ranks[-1] > run.effective_ranks[0]
    assert len(run.layer_singular_values) == layers
    torch.testing.assert_close(
        run.product_singular_values[0], torch.linalg.svdvals(run.products[0])
    )


def test_two_layers_end_as_blocks_that_talk_only_to_themselves():
    run = implicit_regularization(2, steps=1500, seed=0, record=500)
    k = int(run.alive[-1])
    before, after = run.alignment(0), run.alignment()
    off = [float(a[:k, k:].square().mean() + a[k:, :k].square().mean()) for a in (before, after)]
    assert off[1] < off[0] / 3
    assert float(run.drift[0]) == 0
    assert 0 < float(run.drift[-1]) < 0.3


def test_x_turns_negative_where_the_noise_is_and_nowhere_else():
    negative = []
    for noise in (0.01, 0.5, 1.0, 2.0):
        x = predicted_x(noise)
        assert (x[:8, :8].diagonal() > 0).all()
        negative.append(int((torch.linalg.eigvalsh(x) < 0).sum()))
    assert negative[:2] == [0, 0]
    assert 0 < negative[2] < 8
    assert negative[3] == 8


def test_the_turning_point_is_found_between_two_strengths():
    eigenvalues = torch.tensor([[2.0, 1.0], [2.0, 0.5], [2.0, -1.5]])
    assert turning_point([0.0, 1.0, 2.0], eigenvalues) == pytest.approx(1.25)
    assert turning_point([0.0, 1.0], eigenvalues[:2]) is None


def test_a_study_is_a_function_of_its_seed():
    runs = [strong_augmentation(1.0, steps=30, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(runs[0].weights[0], runs[1].weights[0])
    assert not torch.equal(runs[0].weights[0], runs[2].weights[0])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    strong_augmentation(1.0, steps=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_studies_without_steps_noise_or_layers_are_refused():
    with pytest.raises(ValueError, match="positive steps"):
        strong_augmentation(1.0, steps=0)
    with pytest.raises(ValueError, match="noise of at least 0"):
        strong_augmentation(-1.0)
    with pytest.raises(ValueError, match="augmented must lie between 1 and 15, got 16"):
        strong_augmentation(1.0, augmented=16)
    with pytest.raises(ValueError, match="layers must be at least 1"):
        implicit_regularization(0)
    with pytest.raises(ValueError, match="batch of 2 to all samples"):
        implicit_regularization(1, batch=11, samples=10)
    alone = implicit_regularization(1, steps=1)
    with pytest.raises(ValueError, match="two layers, got one"):
        alone.alignment()
    with pytest.raises(ValueError, match="two layers, got one"):
        _ = alone.conserved


@pytest.mark.parametrize("study", ["strong_augmentation", "implicit_regularization", "both"])
def test_the_page_holds_the_figures_of_what_was_asked(study, tmp_path):
    with Run.create(tmp_path / "run", {"study": study}) as run:
        metrics = theory_page(run, study=study, steps=20, seed=0)
        run.save_metrics(metrics)
    text = (tmp_path / "run" / "report.html").read_text()
    strong, implicit = study != "implicit_regularization", study != "strong_augmentation"
    assert ("Strong augmentation" in text) == strong
    assert ("Implicit regularisation" in text) == implicit
    # Every panel is an element of its own: of two figures, and of three.
    assert text.count("<svg") == 4 * strong + 7 * implicit
    assert ("strong_augmentation/1.5/weight_ratio" in metrics) == strong
    assert ("implicit_regularization/2/effective_rank" in metrics) == implicit
    assert all(math.isfinite(value) for value in metrics.values())


def test_stronger_noise_never_helps_the_rank_of_a_short_run():
    ranks = [
        float(strong_augmentation(s, steps=300, record=300).weight_ratio[-1]) for s in (0.1, 1, 3)
    ]
    assert all(later < earlier for earlier, later in pairwise(ranks))
