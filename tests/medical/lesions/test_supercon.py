"""The two stages: the loss of the paper, an encoder that stage 2 leaves alone, and the views."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from cl_core import training
from cl_core.config import TrainerConfig
from cl_core.evaluation.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from cl_core.images import Sample
from cl_core.losses import sup_con
from cl_core.networks.backbones import build_backbone
from cl_core.networks.heads import build_head
from cl_core.runs import Run
from cl_core.transforms import IMAGENET
from cl_medical.lesions.augment import Dermoscopy, augmented_view, plain_view
from cl_medical.lesions.hyper import OptimizerHyper, Stage1Hyper
from cl_medical.lesions.operating import choose_positive, decisions
from cl_medical.lesions.sampling import batch_order, lone_batch_probabilities
from cl_medical.lesions.supercon import Classification, Representation, collapsed_floor

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "supercon.npz", allow_pickle=False)


def golden(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name]))


def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_backbone("resnet-4-8", image_size=16, stem="imagenet")


def batch(n: int = 8, views: int = 2, seed: int = 0) -> Sample:
    g = torch.Generator().manual_seed(seed)
    images = tuple(torch.randn(n, 3, 16, 16, generator=g) for _ in range(views))
    return Sample(images, torch.arange(n) % 3, torch.arange(n))


def fit(module: L.LightningModule, batches: list[Sample], out: Path, epochs: int = 1) -> None:
    trainer = TrainerConfig(accelerator="cpu", devices=1, tensorboard=False, progress=False)
    with Run.create(out, {}) as run:
        loader, first = (
            torch.utils.data.DataLoader(part, batch_size=None, collate_fn=lambda x: x)
            for part in (batches, batches[:1])
        )
        val = first if isinstance(module, Classification) else None
        training.fit(
            module, loader, run=run, epochs=epochs, seed=0, trainer=trainer, val_loader=val
        )


@pytest.mark.parametrize("name", ["a_all_t07", "a_one_t07", "a_all_t10_b07", "a_all_t50_b50"])
def test_the_loss_of_stage_1_is_the_official_one(name):
    u = golden("a_u").clone().requires_grad_()
    tau = int(name.split("_t")[1][:2]) / 100
    base = int(name.split("_b")[1]) / 100 if "_b" in name else tau
    contrast = "one" if "one" in name else "all"
    loss = sup_con(u, golden("a_labels"), tau, base_temperature=base, contrast=contrast)
    torch.testing.assert_close(loss, golden(f"{name}_loss"), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, u)[0], golden(f"{name}_grad_u"), rtol=1e-6, atol=1e-8
    )


def anchors(z: Tensor, y: Tensor, tau: float, base: float, *, one: bool) -> tuple[list, list]:
    """The loss and the number of positives of each anchor, by loops; NaN for a lone one."""
    rows = z.transpose(0, 1).flatten(0, 1)
    labels = y.repeat(z.shape[1]).tolist()
    losses, positives = [], []
    for i in range(len(z) if one else len(rows)):
        others = [k for k in range(len(rows)) if k != i]
        s = {k: float(rows[i] @ rows[k]) / tau for k in others}
        log_sum = max(s.values()) + np.log(sum(np.exp(v - max(s.values())) for v in s.values()))
        own = [k for k in others if labels[k] == labels[i]]
        positives.append(len(own))
        mean = sum(s[k] for k in own) / len(own) if own else np.nan
        losses.append(tau / base * (log_sum - mean))
    return losses, positives


@pytest.mark.parametrize(
    ("name", "tau", "base", "one"),
    [
        ("a_all_t07", 0.07, 0.07, False),
        ("a_one_t07", 0.07, 0.07, True),
        ("a_all_t10_b07", 0.1, 0.07, False),
        ("a_all_t50_b50", 0.5, 0.5, False),
    ],
)
def test_every_anchor_and_the_gradient_of_unit_rows_are_the_official_ones(name, tau, base, one):
    z = golden("a_z")
    losses, positives = anchors(z, golden("a_labels"), tau, base, one=one)
    assert losses == pytest.approx(GOLDEN[f"{name}_per_anchor"].tolist(), rel=1e-6)
    assert positives == GOLDEN[f"{name}_npos"].tolist()
    z = z.clone().requires_grad_()
    contrast = "one" if one else "all"
    loss = sup_con(z, golden("a_labels"), tau, base_temperature=base, contrast=contrast)
    assert loss.item() == pytest.approx(float(np.mean(losses)), rel=1e-6)
    # Ours passes through the normalisation, which takes out what is along a row.
    free = golden(f"{name}_grad_z")
    tangent = free - (free * z.detach()).sum(dim=2, keepdim=True) * z.detach()
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], tangent, rtol=1e-6, atol=1e-8)


def test_lone_anchors_are_nan_in_the_official_code_and_left_out_or_zero_here():
    u, y, tau = golden("b_u"), golden("b_labels"), float(GOLDEN["b_tau"])
    losses, positives = anchors(torch.nn.functional.normalize(u, dim=2), y, tau, tau, one=False)
    assert losses == pytest.approx(GOLDEN["b_per_anchor"].tolist(), rel=1e-6, nan_ok=True)
    assert positives == GOLDEN["b_npos"].tolist()
    assert np.isnan(GOLDEN["b_official_loss"])
    for rule, name in (("skip", "b_mean_valid_loss"), ("zero", "b_mean_all_loss")):
        found = sup_con(u, y, tau, no_positive=rule)
        assert found.item() == pytest.approx(float(GOLDEN[name]), rel=1e-6)
    lone = sup_con(golden("c_all_lone_u"), golden("c_all_lone_labels"), 0.1)
    assert lone.item() == float(GOLDEN["c_all_lone_loss"])


def test_the_projection_head_is_the_golden_one():
    head = build_head("supcon", 6, 5).double()
    first, second = (part for part in head.layers if isinstance(part, torch.nn.Linear))
    with torch.no_grad():
        for layer, number in ((first, 1), (second, 2)):
            layer.weight.copy_(golden(f"h_W{number}"))
            layer.bias.copy_(golden(f"h_b{number}"))
        z = torch.nn.functional.normalize(head(golden("h_x")), dim=1)
    torch.testing.assert_close(z, golden("h_z"), rtol=1e-6, atol=1e-8)


def test_stage_1_contrasts_both_views_of_one_forward_pass():
    module = Representation(encoder(), Stage1Hyper(dim=4), optimizer=OptimizerHyper())
    module.log_dict = lambda *args, **options: None  # as without a trainer
    module.train()
    sample = batch()
    torch.manual_seed(1)
    found = module.training_step(sample, 0)["loss"]
    other = Representation(encoder(), Stage1Hyper(dim=4), optimizer=OptimizerHyper())
    other.load_state_dict(module.state_dict())
    for norm in other.modules():  # the statistics of the batch count, not those kept
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = None
    z = other.head(other.encoder(torch.cat(list(sample.views))))
    wanted = sup_con(torch.stack(z.chunk(2), dim=1), sample.label, 0.07)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_without_labels_stage_1_is_simclr():
    module = Representation(encoder(), Stage1Hyper(), optimizer=OptimizerHyper(), labels=False)
    module.log_dict = lambda *args, **options: None
    sample = batch()
    changed = sample._replace(label=torch.zeros(8, dtype=torch.int64))
    module.eval()
    first, second = (module.training_step(one, 0)["loss"] for one in (sample, changed))
    assert torch.equal(first, second)
    module.labels = True
    assert not torch.isclose(module.training_step(changed, 0)["loss"], first)


def test_the_floor_of_a_batch_is_the_loss_of_collapsed_classes():
    y = torch.tensor([0, 0, 0, 1, 1])
    z = torch.nn.functional.one_hot(y, 2).double()[:, None]
    loss = sup_con(z, y, 0.01)  # so cold that other classes vanish
    assert collapsed_floor(y).item() == pytest.approx(loss.item(), rel=1e-6)
    assert collapsed_floor(torch.tensor([1, 2])).item() == 0


def cross_entropy(logits: Tensor, y: Tensor, progress: float) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, y)


def test_stage_2_in_linear_mode_leaves_every_bit_of_the_encoder_as_it_was(tmp_path):
    trunk = encoder().train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    layer = torch.nn.Linear(8, 3)
    weight = layer.weight.detach().clone()
    module = Classification(
        trunk,
        layer,
        cross_entropy,
        optimizer=OptimizerHyper(learning_rate=0.5, weight_decay=0.1, schedule="constant"),
        finetune="linear",
    )
    fit(module, [batch(seed=seed) for seed in range(4)], tmp_path / "run", epochs=2)
    after = trunk.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(layer.weight, weight)


@pytest.mark.parametrize(("finetune", "learns"), [("partial", {"layer2"}), ("full", None)])
def test_other_modes_train_what_they_say(finetune, learns, tmp_path):
    trunk = encoder()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    module = Classification(
        trunk,
        torch.nn.Linear(8, 3),
        cross_entropy,
        optimizer=OptimizerHyper(learning_rate=0.5, schedule="constant"),
        finetune=finetune,
        encoder_learning_rate=0.1,
    )
    fit(module, [batch(seed=seed) for seed in range(3)], tmp_path / "run")
    changed = {
        name.split(".")[1]
        for name, value in trunk.state_dict().items()
        if not torch.equal(before[name], value)
    }
    assert changed == (learns or {"conv1", "bn1", "layer1", "layer2"})


def test_stage_1_learns_to_tell_classes_apart(tmp_path):
    g = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(6):
        y = torch.arange(24) % 3
        colour = torch.eye(3)[y][:, :, None, None].expand(-1, -1, 16, 16)
        views = tuple(colour + 0.3 * torch.randn(24, 3, 16, 16, generator=g) for _ in range(2))
        samples.append(Sample(views, y, torch.arange(24)))
    module = Representation(
        encoder(),
        Stage1Hyper(dim=8),
        optimizer=OptimizerHyper(learning_rate=0.1, schedule="constant"),
        classes=("a", "b", "c"),
    )
    fit(module, samples, tmp_path / "run", epochs=10)
    module.eval()
    with torch.no_grad():
        h = torch.nn.functional.normalize(module.encoder(samples[0].views[0]), dim=1)
    same = samples[0].label[:, None] == samples[0].label[None]
    cosines = h @ h.T
    assert cosines[same].mean() - cosines[~same].mean() > 0.3


@pytest.mark.parametrize("library", ["albumentations", "torchvision"])
@pytest.mark.parametrize("augmentation", ["official", "recommended"])
def test_views_are_random_by_torchs_generator_and_leave_the_image_alone(augmentation, library):
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    kept = image.clone()
    view = augmented_view(24, IMAGENET, augmentation=augmentation, library=library)
    torch.manual_seed(5)
    draws = [view(image) for _ in range(6)]
    torch.manual_seed(5)
    assert torch.equal(view(image), draws[0])
    assert len({draw.numpy().tobytes() for draw in draws}) == 6
    assert all(draw.shape == (3, 24, 24) and draw.isfinite().all() for draw in draws)
    assert torch.equal(image, kept)


def test_turns_and_flips_of_albumentations_are_independent():
    """Seeded by its own way, its steps share one seed, and both flips happen together."""
    view = Dermoscopy(8, IMAGENET, "official")
    gradient = torch.arange(8, dtype=torch.uint8)[None, None].expand(3, 8, 8) * 30
    torch.manual_seed(0)
    flipped = grey = both = 0
    colour = gradient.clone()
    colour[0] = 250 - colour[0]
    for _ in range(300):
        x = view.steps.transforms  # the flip's own draw beside that of the grey
        seed = int(torch.randint(2**31, ()))
        import random

        state = np.random.Generator(np.random.PCG64(seed)), random.Random(seed)
        view.steps.set_random_state(*state)
        flips, greys = (step.py_random.random() < 0.5 for step in (x[3], x[2]))
        flipped, grey, both = flipped + flips, grey + greys, both + (flips and greys)
    assert 0.15 < both / 300 < 0.35  # a quarter; a half if they were one draw
    assert 0.4 < flipped / 300 < 0.6
    assert 0.4 < grey / 300 < 0.6


def test_the_plain_view_resizes_both_sides_and_grey_or_deep_images_pass():
    image = torch.randint(0, 256, (3, 45, 60), dtype=torch.uint8)
    assert plain_view(32, None)(image).shape == (3, 32, 32)
    deep = torch.rand(3, 40, 40)
    assert augmented_view(16, IMAGENET)(deep).shape == (3, 16, 16)


def test_calibration_is_the_golden_one():
    logits, y = golden("mc_logits"), golden("mc_y")
    temperature = fit_temperature(logits, y)
    assert temperature == pytest.approx(float(GOLDEN["mc_temp"]), rel=1e-4)
    nll = torch.nn.functional.cross_entropy
    assert float(nll(logits, y)) == pytest.approx(float(GOLDEN["mc_nll"]), rel=1e-6)
    assert float(nll(logits / temperature, y)) == pytest.approx(
        float(GOLDEN["mc_nll_cal"]), rel=1e-6
    )
    p = logits.softmax(1).numpy()
    found = expected_calibration_error(p, y.numpy())
    assert found == pytest.approx(float(GOLDEN["mc_ece15"]), rel=1e-6)
    assert brier_score(p, y.numpy()) == pytest.approx(float(GOLDEN["mc_brier"]), rel=1e-6)
    assert int(reliability_bins(p, y.numpy()).size.sum()) == len(y)
    score = GOLDEN["m_score"]
    half = brier_score(np.stack([1 - score, score], 1), GOLDEN["m_y"]) / 2
    assert half == pytest.approx(float(GOLDEN["m_brier"]), rel=1e-6)


def test_the_class_that_is_looked_for_and_what_is_decided():
    assert choose_positive(["akiec", "mel", "nv"], None) == "mel"
    assert choose_positive(["0", "1"], None) == "1"
    assert choose_positive(["a", "b", "c"], None) is None
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]])
    names = ["a", "mel", "c"]
    assert decisions(p, names, positive="mel", threshold=0.3) == ["mel", "mel"]
    assert decisions(p, names, positive="mel", threshold=0.31) == ["not mel", "mel"]
    assert decisions(p, names, positive=None, threshold=None) == ["a", "mel"]


def test_how_often_a_batch_lacks_partners_and_the_orders_that_help():
    found = lone_batch_probabilities(467 / 26500, 128)
    assert found == pytest.approx(GOLDEN["p_nopos"].tolist(), rel=1e-6)
    labels = torch.tensor([0] * 60 + [1] * 4).numpy()
    assert batch_order(labels, "natural", batch_size=8) is None
    order = batch_order(labels, "stratified", batch_size=8)
    (first, *_) = order.batches(8, seed=0, epoch=0, rank=0, world=1)
    assert (labels[first] == 1).sum() == 2
    drawn = np.concatenate(
        batch_order(labels, "sqrt", batch_size=8).batches(8, seed=0, epoch=0, rank=0, world=1)
    )
    assert (labels[drawn] == 1).mean() == pytest.approx(2 / (2 + 60**0.5), abs=0.05)
