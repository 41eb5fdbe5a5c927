"""LARS, the warm-up schedule and parameter groups against steps worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cl_core.optim import LARS, cosine_with_warmup, parameter_groups


def slow_lars(p, gradients, *, lr, momentum, weight_decay, trust):
    """The equations with numpy: nothing shared with the code under test."""
    mu = np.zeros_like(p)
    for g in gradients:
        if p.ndim > 1:
            g = g + weight_decay * p
            norms = np.sqrt((p**2).sum()), np.sqrt((g**2).sum())
            g = g * (trust * norms[0] / norms[1] if min(norms) > 0 else 1.0)
        mu = momentum * mu + g
        p = p - lr * mu
    return p


@pytest.mark.parametrize("shape", [(5, 4), (6,), (), (2, 3, 2)])
def test_lars_takes_the_steps_of_the_equations(shape):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=shape), rng.normal(size=(4, *shape))
    p = nn.Parameter(torch.tensor(start))
    optimizer = LARS([p], lr=0.3, momentum=0.8, weight_decay=0.05, trust_coefficient=0.02)
    for g in gradients:
        p.grad = torch.tensor(g)
        optimizer.step()
    expected = slow_lars(start, gradients, lr=0.3, momentum=0.8, weight_decay=0.05, trust=0.02)
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12)


def test_one_lars_step_by_hand():
    p = nn.Parameter(torch.tensor([[3.0, 4.0]]))  # length 5
    p.grad = torch.tensor([[0.0, 2.0]])
    LARS([p], lr=0.5, momentum=0.9, weight_decay=0.0, trust_coefficient=0.1).step()
    # ratio 0.1 * 5 / 2 = 0.25, so the step is 0.5 * 0.25 * [0, 2]
    torch.testing.assert_close(p.detach(), torch.tensor([[3.0, 3.75]]))


def test_a_matrix_at_zero_or_without_gradient_takes_a_plain_finite_step():
    zero, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    zero.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    LARS([zero, still], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(zero.detach(), torch.full((2, 2), -0.1))
    torch.testing.assert_close(still.detach(), torch.ones(2, 2))


def test_lars_leaves_the_gradient_as_it_was():
    p = nn.Parameter(torch.ones(2, 2))
    p.grad = torch.full((2, 2), 3.0)
    LARS([p], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(p.grad, torch.full((2, 2), 3.0))


def test_lars_continues_from_its_state_as_if_never_stopped():
    g = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, 3, 3, generator=g)

    def run(p, optimizer, part):
        for gradient in part:
            p.grad = gradient.clone()
            optimizer.step()

    whole = nn.Parameter(torch.ones(3, 3))
    run(whole, LARS([whole], lr=0.2), gradients)
    first = nn.Parameter(torch.ones(3, 3))
    before = LARS([first], lr=0.2)
    run(first, before, gradients[:3])
    second = nn.Parameter(first.detach().clone())
    after = LARS([second], lr=99.0)
    after.load_state_dict(before.state_dict())
    run(second, after, gradients[3:])
    assert torch.equal(second, whole)


def test_lars_returns_the_loss_of_the_closure():
    p = nn.Parameter(torch.tensor([2.0]))

    def closure():
        p.grad = None
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert LARS([p], lr=0.1).step(closure).item() == 4.0
    assert p.item() == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must not be negative"),
        ({"lr": 1.0, "momentum": 1.0}, "momentum must lie in"),
        ({"lr": 1.0, "weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"lr": 1.0, "trust_coefficient": 0.0}, "trust_coefficient must be positive"),
    ],
)
def test_lars_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LARS([nn.Parameter(torch.ones(1))], **options)


def rates(warmup_steps, total_steps, final_factor, count):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = cosine_with_warmup(
        optimizer, warmup_steps=warmup_steps, total_steps=total_steps, final_factor=final_factor
    )
    seen = []
    for _ in range(count):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_the_schedule_rises_linearly_and_falls_along_a_cosine():
    seen = rates(4, 12, 0.1, 15)
    assert seen[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert seen[8] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way down
    assert seen[6] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert seen[12:] == pytest.approx([0.2, 0.2, 0.2])  # and stays at the end


def test_the_schedule_without_warmup_starts_at_the_peak():
    assert rates(0, 2, 0.0, 3) == pytest.approx([2.0, 1.0, 0.0])


def test_the_schedule_resumes_at_its_step():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    first = cosine_with_warmup(optimizer, warmup_steps=2, total_steps=10)
    for _ in range(5):
        optimizer.step()
        first.step()
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    second = cosine_with_warmup(other, warmup_steps=2, total_steps=10)
    second.load_state_dict(first.state_dict())
    for pair in ((optimizer, first), (other, second)):
        pair[0].step()
        pair[1].step()
    assert second.get_last_lr() == first.get_last_lr() != [2.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_steps": 5, "total_steps": 5}, "below total_steps, got 5 and 5"),
        ({"warmup_steps": -1, "total_steps": 5}, "at least 0"),
        ({"warmup_steps": 0, "total_steps": 5, "final_factor": 2.0}, "final_factor must lie"),
    ],
)
def test_the_schedule_refuses_options_out_of_range(options, message):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    with pytest.raises(ValueError, match=message):
        cosine_with_warmup(optimizer, **options)


def test_norms_biases_and_scalars_do_not_decay():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LayerNorm((4, 4)), nn.Linear(4, 2), nn.PReLU()
    )
    decayed, plain = parameter_groups(net, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(net[0].weight), id(net[3].weight)}
    assert len(plain["params"]) == 7  # two biases, two of each norm, the slope


def test_frozen_parameters_are_left_out_and_shared_ones_occur_once():
    net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    net[1].weight = net[0].weight
    net[1].bias.requires_grad_(False)
    decayed, plain = parameter_groups(net, 0.1)
    assert [p is net[0].weight for p in decayed["params"]] == [True]
    assert [p is net[0].bias for p in plain["params"]] == [True]


def test_a_module_without_trainable_parameter_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(nn.ReLU(), 0.1)
