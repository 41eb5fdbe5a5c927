"""Losses, weights, parameter groups and batch statistics of fine-tuning."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.training import fit
from cl_remote_sensing.evaluation.metrics import confusion_matrix, scores
from cl_remote_sensing.hyper import SegmentationHyper
from cl_remote_sensing.methods.pixel_losses import class_weights, dice_loss, focal_loss
from cl_remote_sensing.methods.segmentation import (
    Segmenter,
    evaluate_network,
    fitting_batch_size,
    reestimate_batch_norm,
)

NAMES = ("water", "field", "forest")


class Net(nn.Module):
    """The parts of a segmentation network, tiny."""

    def __init__(self, bands=2, classes=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = nn.Sequential(nn.Conv2d(bands, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.aspp = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        return self.classifier(self.aspp(self.backbone(x)))


def pixels(seed=0, b=2, k=3, h=5, w=4, ignored=0.3):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(b, k, h, w, generator=g, dtype=torch.float64)
    labels = torch.randint(k, (b, h, w), generator=g)
    labels[torch.rand(b, h, w, generator=g) < ignored] = 255
    return logits, labels


def slow_focal(logits, labels, gamma, weights):
    total, norm = 0.0, 0.0
    for b, r, c in np.ndindex(*labels.shape):
        y = int(labels[b, r, c])
        if y != 255:
            e = [math.exp(float(v)) for v in logits[b, :, r, c]]
            p = e[y] / sum(e)
            total += -weights[y] * (1 - p) ** gamma * math.log(p)
            norm += weights[y]
    return total / norm


def slow_dice(logits, labels, smooth):
    k = logits.shape[1]
    both, size_p, size_t = np.zeros(k), np.zeros(k), np.zeros(k)
    for b, r, c in np.ndindex(*labels.shape):
        y = int(labels[b, r, c])
        if y != 255:
            p = np.exp(logits[b, :, r, c].numpy())
            p /= p.sum()
            size_p += p
            both[y] += p[y]
            size_t[y] += 1
    dice = [
        (2 * both[c] + smooth) / (size_p[c] + size_t[c] + smooth) for c in range(k) if size_t[c]
    ]
    return 1 - sum(dice) / len(dice)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.floats(0, 4))
def test_focal_loss_equals_the_equation(seed, gamma):
    logits, labels = pixels(seed)
    if bool((labels == 255).all()):
        return
    weights = torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)
    expected = slow_focal(logits, labels, gamma, weights.tolist())
    value = focal_loss(logits, labels, gamma=gamma, weights=weights)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_without_focus_the_focal_loss_is_torchs_cross_entropy():
    logits, labels = pixels(1)
    weights = torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)
    expected = F.cross_entropy(logits, labels, weights, ignore_index=255)
    assert focal_loss(logits, labels, gamma=0.0, weights=weights).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.floats(0, 2))
def test_dice_loss_equals_the_equation(seed, smooth):
    logits, labels = pixels(seed)
    labels[labels == 1] = 2  # one class is absent and must not count
    if bool((labels == 255).all()):
        return
    expected = slow_dice(logits, labels, smooth)
    assert dice_loss(logits, labels, smooth=smooth).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_ignored_pixels_have_no_gradient_and_none_at_all_no_loss(loss):
    logits, labels = pixels(2)
    logits.requires_grad_()
    loss(logits, labels).backward()
    known = (labels != 255)[:, None].expand_as(logits)
    assert not logits.grad[~known].any()
    assert logits.grad[known].abs().min() > 0
    logits.grad = None
    value = loss(logits, torch.full_like(labels, 255))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_gradients_of_the_losses_are_right_and_finite_in_half_precision(loss):
    logits, labels = pixels(3, b=1, h=2, w=3)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())
    extreme = (1e4 * logits.detach()).bfloat16().requires_grad_()
    value = loss(extreme, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(extreme.grad).all()


def test_a_negative_focus_is_refused():
    with pytest.raises(ValueError, match="gamma must not be negative"):
        focal_loss(*pixels(), gamma=-1.0)


def test_inverse_weights_give_each_class_the_same_total():
    labels = [np.array([[0, 0, 0, 1], [0, 0, 255, 1]], np.uint8), torch.tensor([3, 255, 0, 0])]
    weights = class_weights(labels, 4, "inverse")
    np.testing.assert_allclose(weights, [10 / 21, 10 / 6, 1.0, 10 / 3], rtol=1e-6)


def test_median_weights_follow_the_share_where_a_class_occurs():
    labels = [np.array([0, 0, 0, 1], np.uint8), np.array([0, 0, 2, 2, 255], np.uint8)]
    share = np.array([5 / 8, 1 / 4, 2 / 4])  # of the pixels of the windows with the class
    weights = class_weights(iter(labels), 3, "median")
    np.testing.assert_allclose(weights, np.median(share) / share, rtol=1e-6)


def test_no_label_at_all_and_an_unknown_id_are_refused():
    with pytest.raises(InputError, match="no labelled pixel"):
        class_weights([np.full((2, 2), 255, np.uint8)], 3, "inverse")
    with pytest.raises(ValueError, match="the labels hold id 7, expected 0 to 2"):
        class_weights([np.array([7], np.uint8)], 3, "inverse")


def test_the_batch_is_capped_to_the_samples_and_never_one():
    assert [fitting_batch_size(n, 16) for n in (2, 3, 16, 500)] == [2, 3, 16, 16]
    with pytest.raises(InputError, match="at least 2 labelled windows, got 1"):
        fitting_batch_size(1, 16)


def scene(n=24, seed=0, size=12):
    """Windows whose class is told by the signs of two bands; a corner is unlabelled."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n, size // 4, size // 4), generator=g)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    means = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    images = means[labels].movedim(-1, 1) + 0.5 * torch.randn(n, 2, size, size, generator=g)
    labels[:, :3, :3] = 255
    return list(zip(images, labels, strict=True))


def batches_of(samples, batch_size, *, shuffle=False):
    return make_loader(samples, batch_size=batch_size, shuffle=shuffle, workers=0, seed=0)


def train(run, *, epochs, net=None, samples=None, **options):
    module = Segmenter(net or Net(), NAMES, SegmentationHyper(**options), loaded=())
    train_loader = batches_of(samples or scene(), batch_size=8, shuffle=True)
    val_loader = batches_of(scene(6, seed=9), batch_size=3)
    result = fit(
        module,
        train_loader,
        run=run,
        epochs=epochs,
        seed=0,
        trainer=TrainerConfig(accelerator="cpu", progress=False, checkpoint_every=1),
        monitor="val/kappa",
        mode="max",
        val_loader=val_loader,
    )
    return module, result


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice"])
def test_training_learns_to_tell_the_classes(tmp_path, loss):
    before = scores(evaluate_network(Net(), [scene_batch()], 3), NAMES)["kappa"]
    with Run.create(tmp_path / "run", {"loss": loss}) as run:
        module, result = train(run, epochs=8, loss=loss, learning_rate=0.02)
    rows = result.history
    assert rows[-1]["val/kappa"] > 0.85 > before + 0.3
    assert {"val/oa", "val/miou", "val/macro_f1", "val/loss"} <= set(rows[0])
    # The monitored figure is that of the validation windows with the weights of the epoch.
    confusion = evaluate_network(module.network, batches_of(scene(6, seed=9), batch_size=2), 3)
    assert scores(confusion, NAMES)["kappa"] == pytest.approx(rows[-1]["val/kappa"], abs=1e-6)
    best = torch.load(result.best, weights_only=True)["epoch"]
    kappas = [row["val/kappa"] for row in rows]
    assert kappas[best] == max(kappas)


def scene_batch():
    images, labels = zip(*scene(6, seed=9), strict=True)
    return torch.stack(images), torch.stack(labels)


def test_loaded_parts_take_their_own_learning_rate_and_both_fall_to_zero(tmp_path):
    net = Net()
    loaded = [name for name in net.state_dict() if name.startswith("backbone")]
    hyper = SegmentationHyper(learning_rate=0.01, loaded_learning_rate=0.001)
    module = Segmenter(net, NAMES, hyper, loaded=loaded)
    rates = []
    module.on_train_batch_start = lambda *_: rates.append(
        [group["lr"] for group in module.optimizers().param_groups]
    )
    with Run.create(tmp_path / "run", {}) as run:
        fit(
            module,
            batches_of(scene(8), batch_size=4),
            run=run,
            epochs=3,
            seed=0,
            trainer=TrainerConfig(accelerator="cpu", progress=False),
            val_loader=batches_of(scene(4), batch_size=4),
        )
    groups = module.optimizers().param_groups
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in net.backbone.parameters()}
    expected = [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    np.testing.assert_allclose(rates, [[0.01 * f, 0.001 * f] for f in expected], rtol=1e-6)
    assert max(group["lr"] for group in groups) < 1e-12


def test_the_published_schedule_decays_by_the_epoch(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        _, result = train(run, epochs=3, schedule="exponential", learning_rate=0.01)
    rates = [row["learning_rate"] for row in result.history]
    np.testing.assert_allclose(rates, [0.01, 0.0098, 0.009604], rtol=1e-6)


@pytest.mark.parametrize(("freeze", "parts"), [("backbone", 1), ("encoder", 2)])
def test_frozen_parts_keep_weights_and_batch_statistics(tmp_path, freeze, parts):
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with Run.create(tmp_path / "run", {}) as run:
        module, _ = train(run, epochs=2, net=net, freeze=freeze)
    reestimate_batch_norm(net, batches_of(scene(), batch_size=8), keep=module.frozen_parts)
    kept = ("backbone.", "aspp.")[:parts]
    for name, value in net.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == (not name.startswith(kept)), name


def test_a_killed_training_resumes_to_the_same_weights(tmp_path):
    with Run.create(tmp_path / "whole", {"epochs": 4}) as run:
        whole, _ = train(run, epochs=4, schedule="exponential")
    with Run.create(tmp_path / "part", {"epochs": 2}) as run:
        train(run, epochs=2, schedule="exponential")
    with Run.create(tmp_path / "part", {"epochs": 4}, resume=True) as run:
        resumed, _ = train(run, epochs=4, schedule="exponential", net=Net(seed=5))
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, rtol=0, atol=0)


def test_class_weights_are_used_and_not_saved():
    logits, labels = pixels(4)
    weights = torch.tensor([1.0, 5.0, 0.1])
    module = Segmenter(Net(), NAMES, SegmentationHyper(), class_weights=weights)
    expected = F.cross_entropy(logits.float(), labels, weights, ignore_index=255)
    torch.testing.assert_close(module.loss(logits, labels), expected)
    assert not any("class_weights" in name for name in module.state_dict())


def test_wrong_names_weights_and_too_much_frost_are_refused():
    hyper = SegmentationHyper()
    with pytest.raises(ValueError, match=r"no weights nose\.weight"):
        Segmenter(Net(), NAMES, hyper, loaded=["nose.weight"])
    with pytest.raises(ValueError, match="3 classes need as many weights"):
        Segmenter(Net(), NAMES, hyper, class_weights=torch.ones(2))
    net = Net()
    net.classifier.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is left to train"):
        Segmenter(net, NAMES, SegmentationHyper(freeze="encoder"))


def test_reestimated_statistics_are_those_of_the_images():
    net = Net()
    net.train()
    images = 3 + torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    for _ in range(3):  # stale statistics, as after training
        net(images / 5)
    batches = [images[:4], (images[4:], "labels"), images[:1]]
    net.backbone.eval()
    modes = [part.training for part in net.modules()]
    assert reestimate_batch_norm(net, batches) == 2
    assert [part.training for part in net.modules()] == modes
    norm = net.backbone[1]
    assert norm.momentum == 0.1
    with torch.no_grad():
        features = net.backbone[0](images)
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    halves = [part.var((0, 2, 3)) for part in features.split(4)]  # unbiased, batch by batch
    torch.testing.assert_close(norm.running_var, (halves[0] + halves[1]) / 2, rtol=1e-5, atol=1e-5)


def test_single_images_leave_the_statistics_alone():
    net = Net()
    before = net.backbone[1].running_mean.clone()
    with pytest.raises(ValueError, match="at least 2 images"):
        reestimate_batch_norm(net, [torch.ones(1, 2, 4, 4)])
    torch.testing.assert_close(net.backbone[1].running_mean, before)


def test_evaluation_counts_all_batches_in_eval_mode_and_ties_go_to_the_lowest_class():
    net = Net()
    batches = [(torch.randn(2, 2, 4, 4), torch.randint(3, (2, 4, 4))) for _ in range(3)]
    net.train()
    confusion = evaluate_network(net, batches, 3)
    assert net.training
    with torch.no_grad():
        net.eval()
        predicted = torch.cat([net(x).argmax(1) for x, _ in batches])
    expected = confusion_matrix(torch.cat([y for _, y in batches]), predicted, 3)
    np.testing.assert_array_equal(confusion.matrix, expected)
    ties = evaluate_network(nn.Conv2d(2, 3, 1, bias=False).requires_grad_(False), [], 3)
    assert ties.matrix.sum() == 0
    flat = nn.Conv2d(2, 3, 1)
    nn.init.zeros_(flat.weight)
    nn.init.zeros_(flat.bias)
    assert evaluate_network(flat, batches, 3).matrix[:, 1:].sum() == 0
