"""DirectCLR: loss, blind channels, advice and training; LARS and schedule as published."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from torch import nn

from cl_core.config import TrainerConfig
from cl_core.evaluation import extract_features, knn_accuracy
from cl_core.loader import make_loader
from cl_core.networks.backbones import build_backbone
from cl_core.optim import LARS, cosine_with_warmup
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit
from cl_vision.digits import DigitViews, load_digits
from cl_vision.hyper import DirectCLRHyper, OptimizerHyper
from cl_vision.methods.directclr import DirectCLR, advice, directclr_loss, ends_in_residual_block

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "directclr.npz", allow_pickle=False)
CASES = ("main", "f32", "zero")
SGD = OptimizerHyper(learning_rate=0.1)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def views_of(case):
    return [golden(f"{case}__r{view}").clone().requires_grad_() for view in (1, 2)]


# values and gradients of the official code


@pytest.mark.parametrize("mode", ["directclr", "baseline"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_official_code(case, mode):
    r1, r2 = views_of(case)
    d0 = int(GOLDEN[f"{case}__d0"]) if mode == "directclr" else r1.shape[1]
    loss = directclr_loss(r1, r2, d0=d0, temperature=float(GOLDEN[f"{case}__temperature"]))
    relative, absolute = (1e-5, 1e-6) if case == "f32" else (1e-9, 1e-12)
    expected = float(GOLDEN[f"{case}__{mode}_loss"])
    assert loss.item() == pytest.approx(expected, rel=relative, abs=1e-12)
    compared = golden(f"{case}__{mode}_zero_rows") == 0
    for r, view in ((r1, 1), (r2, 2)):
        (gradient,) = torch.autograd.grad(loss, r, retain_graph=True)
        torch.testing.assert_close(
            gradient[compared],
            golden(f"{case}__{mode}_grad_r{view}")[compared],
            rtol=1e-4 if case == "f32" else 1e-6,
            atol=absolute,
        )
        assert torch.equal(gradient[:, d0:], torch.zeros_like(gradient[:, d0:]))


@pytest.mark.parametrize("case", CASES)
def test_nt_xent_of_the_slice_equals_the_official_code(case):
    r1, r2 = views_of(case)
    d0, temperature = int(GOLDEN[f"{case}__d0"]), float(GOLDEN[f"{case}__temperature"])
    loss = directclr_loss(r1, r2, d0=d0, temperature=temperature, negatives="all")
    relative = 1e-5 if case == "f32" else 1e-9
    assert loss.item() == pytest.approx(float(GOLDEN[f"{case}__ntxent_sub"]), rel=relative)


@pytest.mark.parametrize("case", CASES)
def test_both_directions_and_the_temperature_equal_the_official_code(case):
    r1, r2 = (r.detach() for r in views_of(case))
    relative = 1e-5 if case == "f32" else 1e-9
    both = float(GOLDEN[f"{case}__nce_full_12"] + GOLDEN[f"{case}__nce_full_21"]) / 2
    whole = directclr_loss(r1, r2, d0=r1.shape[1]).item()
    assert whole == pytest.approx(both, rel=relative)
    d0 = int(GOLDEN[f"{case}__d0"])
    directed = [one_direction(r1[:, :d0], r2[:, :d0], t) for t in (0.1, 0.5)]
    assert directed[0] == pytest.approx(float(GOLDEN[f"{case}__nce_sub_12"]), rel=relative)
    assert directed[1] == pytest.approx(float(GOLDEN[f"{case}__nce_sub_T05"]), rel=relative)
    back = one_direction(r2[:, :d0], r1[:, :d0], 0.5)
    warm = directclr_loss(r1, r2, d0=d0, temperature=0.5).item()
    assert warm == pytest.approx((directed[1] + back) / 2, rel=relative)


@pytest.mark.parametrize("case", CASES)
def test_blocks_of_shuffled_channels_equal_the_official_group_mode(case):
    r1, r2 = (r.detach() for r in views_of(case))
    order, size = golden(f"{case}__group_perm").long(), int(GOLDEN[f"{case}__group_size"])
    blocks = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    total = sum(directclr_loss(r1[:, b], r2[:, b], d0=size).item() for b in blocks)
    relative = 1e-5 if case == "f32" else 1e-9
    assert total == pytest.approx(float(GOLDEN[f"{case}__group_loss"]), rel=relative)


# the equation in loops, and its laws


def one_direction(z1, z2, tau):
    """The equation with loops: nothing shared with the code under test."""
    u1, u2 = (
        [row / max(math.sqrt(sum(v * v for v in row)), 1e-12) for row in z.double().numpy()]
        for z in (z1, z2)
    )
    total = 0.0
    for i, anchor in enumerate(u1):
        s = [float(anchor @ other) / tau for other in u2]
        total += math.log(sum(math.exp(v - max(s)) for v in s)) + max(s) - s[i]
    return total / len(u1)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 7), st.integers(1, 6), st.floats(0.05, 2.0), st.integers(0, 2**31 - 1))
def test_the_loss_is_the_mean_of_both_directions_of_the_slice(n, d0, tau, seed):
    r1, r2 = draw(2, n, 6, seed=seed)
    expected = (
        one_direction(r1[:, :d0], r2[:, :d0], tau) + one_direction(r2[:, :d0], r1[:, :d0], tau)
    ) / 2
    loss = directclr_loss(r1, r2, d0=d0, temperature=tau).item()
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-9)
    swapped = directclr_loss(r2, r1, d0=d0, temperature=tau).item()
    assert swapped == pytest.approx(loss, rel=1e-9, abs=1e-12)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = directclr_loss(r1[order], r2[order], d0=d0, temperature=tau).item()
    assert shuffled == pytest.approx(loss, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.sampled_from(["cross", "all"]), st.integers(0, 2**31 - 1))
def test_channels_beyond_d0_and_lengths_of_slices_do_not_matter(d0, negatives, seed):
    r1, r2 = draw(2, 5, 6, seed=seed)
    loss = directclr_loss(r1, r2, d0=d0, negatives=negatives)
    other = r1.clone()
    other[:, d0:] = 100 * draw(5, 6 - d0, seed=seed + 1)  # scaling before slicing would see them
    other[:, :d0] *= draw(5, 1, seed=seed + 2).abs() + 0.1
    same = directclr_loss(other, r2, d0=d0, negatives=negatives)
    assert same.item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("negatives", ["cross", "all"])
def test_the_gradient_is_that_of_finite_differences(negatives):
    r1, r2 = draw(4, 5).requires_grad_(), draw(4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: directclr_loss(a, b, d0=3, temperature=0.5, negatives=negatives), (r1, r2)
    )


@pytest.mark.parametrize("negatives", ["cross", "all"])
def test_a_slice_of_zeros_gets_no_gradient_and_leaves_the_others_theirs(negatives):
    r1, r2 = draw(5, 6), draw(5, 6, seed=1)
    r1[2, :3] = 0.0
    tiny = r1.clone()
    tiny[2, :3] = 1e-7  # a direction after all, with gradients of its own
    r1.requires_grad_()
    loss = directclr_loss(r1, r2, d0=3, negatives=negatives)
    loss.backward()
    assert torch.equal(r1.grad[2], torch.zeros(6, dtype=torch.float64))
    rest = r1.grad[[0, 1, 3, 4], :3]
    assert rest.abs().amax(1).min() > 1e-6
    assert rest.abs().max() < 1e3
    tiny.requires_grad_()
    directclr_loss(tiny, r2, d0=3, negatives=negatives).backward()
    assert tiny.grad[2, :3].abs().max() > 1e3


@pytest.mark.parametrize("negatives", ["cross", "all"])
def test_half_precision_is_contrasted_in_float32(negatives):
    r1, r2 = (draw(6, 8, seed=s, dtype=torch.float32).bfloat16() for s in (0, 1))
    exact = directclr_loss(r1.float(), r2.float(), d0=4, temperature=0.01, negatives=negatives)
    with torch.autocast("cpu", torch.bfloat16):
        loss = directclr_loss(r1, r2, d0=4, temperature=0.01, negatives=negatives)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("d0", [0, 7])
def test_more_channels_than_the_representation_has_are_refused(d0):
    with pytest.raises(ValueError, match=f"width 6, got {d0}"):
        directclr_loss(draw(4, 6), draw(4, 6), d0=d0)
    with pytest.raises(ValueError, match="width 6, got 9"):
        DirectCLR(encoder_of_width(6), DirectCLRHyper(d0=9), optimizer=SGD)


def test_one_image_has_no_negative():
    with pytest.raises(ValueError, match="at least 1 negative"):
        directclr_loss(draw(1, 4), draw(1, 4), d0=2)
    with pytest.raises(ValueError, match="at least 2 pairs"):
        directclr_loss(draw(1, 4), draw(1, 4), d0=2, negatives="all")


# advice


def encoder_of_width(width):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, width))
    net.out_features = width
    return net


class Shortcut(nn.Module):
    """A block whose branch is added to its input, in the ways people write it."""

    def __init__(self, form):
        super().__init__()
        self.branch, self.form = nn.Linear(8, 8), form

    def forward(self, x):
        if self.form == "plus":
            return x + self.branch(x)
        if self.form == "in place":
            y = self.branch(x)
            y += x
            return y
        if self.form == "torch":
            return torch.add(self.branch(x), x)
        return self.branch(x) + 1.0  # no shortcut at all


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("form", ["plus", "in place", "torch"])
def test_a_sum_before_pooling_is_a_residual_block(form):
    assert ends_in_residual_block(nn.Sequential(Shortcut(form), nn.ReLU(), nn.LayerNorm(8))) is True


def test_plain_networks_are_told_from_residual_ones():
    conv = nn.Conv2d(1, 4, 3)
    plain = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert ends_in_residual_block(plain) is False
    assert ends_in_residual_block(nn.Sequential(Shortcut("plus"), nn.Linear(8, 8))) is False
    assert ends_in_residual_block(nn.Sequential(Shortcut("constant"))) is False
    assert ends_in_residual_block(Branching()) is None


@pytest.mark.parametrize("name", ["resnet18", "resnet-8-16"])
def test_the_suites_residual_networks_are_known(name):
    assert ends_in_residual_block(build_backbone(name, image_size=32)) is True


def test_what_speaks_against_a_choice_is_told_once_each():
    encoder = build_backbone("resnet-8-64", in_channels=1, image_size=8)
    assert advice(encoder, 32, 64) == ()
    assert [("half" in note, "below 16" in note) for note in advice(encoder, 33, 64)] == [
        (True, False)
    ]
    assert [("half" in note, "below 16" in note) for note in advice(encoder, 15, 64)] == [
        (False, True)
    ]
    (note,) = advice(encoder_of_width(64), 20, 64)
    assert "does not end in a residual block: its channels from 20 on" in note


def test_a_module_warns_of_what_speaks_against_it():
    with pytest.warns(UserWarning, match="d0 4 is below 16"):
        module = DirectCLR(
            build_backbone("resnet-8-64", in_channels=1, image_size=8),
            DirectCLRHyper(d0=4),
            optimizer=SGD,
        )
    assert len(module.notes) == 1
    assert module.d0 == module.projector.out_features == 4


def test_the_default_d0_is_the_papers_share():
    encoder = build_backbone("resnet-8-512", in_channels=1, image_size=8)
    module = DirectCLR(encoder, DirectCLRHyper(), optimizer=SGD)
    assert (module.d0, module.notes) == (90, ())
    assert [p.shape for p in module.projector.parameters()] == []


# training

EPOCHS = 16


class Interrupt(Callback):
    """The user's wish to stop, in the fourth epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 3 and batch_idx == 2:
            raise KeyboardInterrupt


def train(folder, *, resume=False, callbacks=()):
    seed_everything(0)
    encoder = build_backbone("resnet-8-16-64", in_channels=1, image_size=8, zero_init_residual=True)
    module = DirectCLR(encoder, DirectCLRHyper(d0=16), optimizer=SGD)
    digits = load_digits("train")
    loader = make_loader(
        digits.views(2, DigitViews()),
        batch_size=256,
        shuffle=True,
        workers=0,
        seed=0,
        drop_last=True,
    )
    quiet = TrainerConfig(
        accelerator="cpu", devices=1, progress=False, tensorboard=False, checkpoint_every=1
    )
    with Run.create(folder, {"epochs": EPOCHS}, resume=resume) as run:
        result = fit(
            module, loader, run=run, epochs=EPOCHS, seed=0, trainer=quiet, callbacks=callbacks
        )
    return module, result


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("directclr") / "run")


def recognised(encoder):
    """kNN accuracy of held-out digits, each seen in a random view."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        train, test = (
            extract_features(
                encoder, [(DigitViews()(digits.images), torch.from_numpy(digits.table.labels))]
            )
            for digits in (load_digits("train"), load_digits("test"))
        )
    return knn_accuracy(*test, *train, k=20)


def test_training_recognises_held_out_digits_in_random_views(trained):
    module, result = trained
    seed_everything(0)
    untrained = build_backbone("resnet-8-16-64", in_channels=1, image_size=8)
    assert recognised(module.encoder) > recognised(untrained) + 0.05  # 0.44 against 0.32
    losses = [row["train/loss"] for row in result.history]
    assert losses[-1] < losses[0] - 0.5
    assert 0.5 < result.history[-1]["train/positive_similarity"] <= 1


def test_the_last_branch_is_never_taught_the_channels_beyond_d0(trained):
    module, _ = trained
    seed_everything(0)
    start = build_backbone("resnet-8-16-64", in_channels=1, image_size=8, zero_init_residual=True)
    x = draw(8, 1, 8, 8, dtype=torch.float32)
    encoder = module.encoder.train()
    r1, r2 = encoder(x), encoder(x + 0.1 * draw(8, 1, 8, 8, seed=1, dtype=torch.float32))
    encoder.zero_grad()
    directclr_loss(r1, r2, d0=16).backward()
    scale = encoder.trunk.layer3[0].bn2.weight
    assert scale.grad[:16].abs().min() > 0
    assert torch.equal(scale.grad[16:], torch.zeros(48))
    assert torch.equal(scale[16:], start.trunk.layer3[0].bn2.weight[16:])  # zero from the start
    assert (scale[:16] != 0).all()
    assert encoder.trunk.layer2[0].conv1.weight.grad.abs().max() > 0  # below, all learn


def test_a_resumed_run_ends_as_the_uninterrupted_one(trained, tmp_path):
    whole, _ = trained
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", callbacks=[Interrupt()])
    resumed, result = train(tmp_path / "run", resume=True)
    assert result.epochs == EPOCHS
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# the paper's optimiser and schedule


def test_lars_takes_the_official_steps():
    decay, momentum, trust = (float(v) for v in GOLDEN["lars__hp_wd_momentum_eta"])
    parameters = [nn.Parameter(golden(f"lars__p{i}_0").clone()) for i in range(3)]
    optimizer = LARS(
        parameters, lr=1.0, momentum=momentum, weight_decay=decay, trust_coefficient=trust
    )
    for step, rate in enumerate(GOLDEN["lars__lrs"]):
        optimizer.param_groups[0]["lr"] = float(rate)
        for i, p in enumerate(parameters):
            p.grad = golden(f"lars__g{i}_{step}").clone()
        optimizer.step()
        for i, p in enumerate(parameters):
            expected = golden(f"lars__p{i}_{step + 1}")
            torch.testing.assert_close(p.detach(), expected, rtol=1e-6, atol=1e-9)
            mu = optimizer.state[p]["momentum_buffer"]
            expected = golden(f"lars__mu{i}_{step + 1}")
            torch.testing.assert_close(mu, expected, rtol=1e-6, atol=1e-9)


def test_the_schedule_is_the_official_one():
    base, epochs, steps = GOLDEN["sched__base_epochs_steps"]
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=float(base))
    total = int(epochs * steps)
    schedule = cosine_with_warmup(
        optimizer, warmup_steps=int(10 * steps), total_steps=total, final_factor=1e-3
    )
    rates = []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, GOLDEN["sched__lr"], rtol=1e-9)
