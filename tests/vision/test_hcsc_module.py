"""HCSC's training, alone and on two real ranks.

The file is also the script that the ranks run, by ``torchrun test_hcsc_module.py FOLDER``.
"""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from two_ranks import run_two_ranks

from cl_core.config import TrainerConfig
from cl_core.distributed import rank
from cl_core.errors import InputError
from cl_core.images.batches import Batch
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit
from cl_vision.hcsc.cluster_tree import cluster_tree
from cl_vision.hcsc.module import HCSC
from cl_vision.hyper import HCSCHyper, OptimizerHyper

IMAGES, QUEUE = 96, 32
TRAINER = TrainerConfig(accelerator="cpu", devices=1, progress=False, tensorboard=False)
SMALL = HCSCHyper(dim=6, queue=QUEUE, momentum=0.9, clusters=(9, 4, 2), warmup_epochs=1)


class Sample(NamedTuple):
    views: list[Tensor]
    label: int
    row: int


class Encoder(nn.Sequential):
    """Takes images of any size."""

    out_features = 12

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


class Pictures(torch.utils.data.Dataset):
    """Flat, striped two ways and chequered, under noise; views from the third on are smaller."""

    def __init__(self, views: int, noise: float = 0.3, images: int = IMAGES) -> None:
        g = torch.Generator().manual_seed(0)
        stripes = torch.tensor([1.0, -1.0] * 3).expand(1, 6, 6)
        both = [torch.ones(1, 6, 6), stripes, stripes.mT, stripes * stripes.mT]
        kinds = torch.stack(both)[torch.arange(images) % 4]
        self.pictures = kinds + 0.3 * torch.randn(images, 1, 6, 6, generator=g)
        self.views, self.noise, self.images = views, noise, images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, row: int) -> Sample:
        views = [self.pictures[row] + self.noise * torch.randn(1, 6, 6) for _ in range(self.views)]
        crops = [v if i < 2 else v[:, :4, :4] for i, v in enumerate(views)]
        return Sample(crops, row % 4, row)


class Stop(Callback):
    """Ends a training early, with its checkpoint."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.after


def clusters_of(images: int = IMAGES, shuffle: bool = False):
    plain = Pictures(1, noise=0.0, images=images)
    return make_loader(plain, batch_size=32, shuffle=shuffle, workers=0, seed=0, shard=True)


def module(hyper: HCSCHyper = SMALL, **options: object) -> HCSC:
    seed_everything(0)
    return HCSC(
        Encoder(),
        replace(hyper, **options),
        optimizer=OptimizerHyper(learning_rate=0.05),
        cluster_loader=clusters_of(),
        seed=3,
    )


def train(
    model: HCSC,
    out: Path,
    epochs: int,
    *,
    resume: bool = False,
    views: int = 2,
    precision: str = "32-true",
    stop_after: int | None = None,
):
    loader = make_loader(
        Pictures(views), batch_size=16, shuffle=True, workers=0, seed=1, drop_last=True
    )
    trainer = replace(TRAINER, checkpoint_every=1, precision=precision)
    with warnings.catch_warnings(), Run.create(out, {"seed": 1}, resume=resume) as run:
        warnings.filterwarnings("ignore", "the embedding has collapsed")
        return fit(model, loader, run=run, epochs=epochs, seed=1, trainer=trainer, resume=resume)


def clustered(**options: object) -> HCSC:
    """A module in the middle of an epoch: prototypes estimated, queue full of real keys."""
    model = module(**options)
    model.log = lambda *args, **kwargs: None
    for start in range(0, QUEUE, 16):
        batch = batch_of(range(start, start + 16))
        model.enqueue(model.keys(batch.views[1]), batch.row)
    model.estimate()
    model.clustered, model._steps = True, 0
    return model


def batch_of(rows, views: int = 2) -> Batch:
    pictures = Pictures(views)
    samples = [pictures[row] for row in rows]
    stacked = [torch.stack([sample.views[v] for sample in samples]) for v in range(views)]
    row = torch.tensor(list(rows))
    return Batch(tuple(stacked), row % 4, row)


def run_rank(folder: Path) -> None:
    model = module()
    trainer = replace(TRAINER, devices=2, strategy="ddp")
    loader = make_loader(Pictures(2), batch_size=8, shuffle=True, workers=0, seed=1, drop_last=True)
    with warnings.catch_warnings(), Run.create(folder / "run", {}) as run:
        warnings.simplefilter("ignore")
        result = fit(model, loader, run=run, epochs=3, seed=1, trainer=trainer)
    figures = result.history[-1]
    torch.save({"state": model.state_dict(), "figures": figures}, folder / f"{rank()}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    return run_two_ranks(__file__, folder)


# --- one step


def slow_loss(model: HCSC, q: Tensor, k: Tensor, batch: Batch, u: dict[str, list[Tensor]]) -> float:
    """The recommended objective with loops, in float64, for these uniform draws."""
    levels = [(le.vectors.double(), le.phi.double(), le.parents) for le in model.prototypes]
    queue, t, total = model.queue.features.double(), model.hyper.temperature, 0.0

    def p(x: Tensor, level: int, cluster: int) -> float:
        vectors, phi, _ = levels[level]
        return float((x @ vectors.T / phi).softmax(0)[cluster])

    for depth, (vectors, phi, _) in enumerate(levels):
        instance = prototype = 0.0
        for i in range(len(q)):
            own = [int(model.prototypes.assignment[batch.row[i]])]
            for _, _, parents in levels[:-1]:
                own.append(int(parents[own[-1]]))
            kept = [float(q[i] @ k[i]) / t]
            for j, n in enumerate(queue):
                if float(u["instance"][0][depth, i, j]) < 1 - p(n, depth, own[depth]):
                    kept.append(float(q[i] @ n) / t)
            instance += math.log(sum(math.exp(s) for s in kept)) - kept[0]
            s = q[i] @ vectors.T / phi
            kept = [float(s[own[depth]])]
            for c in range(len(vectors)):
                if c == own[depth]:
                    continue
                if depth + 1 < len(levels):
                    keep = min(max(1 - p(vectors[c], depth + 1, own[depth + 1]), 1e-4), 0.999)
                    if float(u["prototype"][depth][i, c]) >= keep:
                        continue
                kept.append(float(s[c]))
            prototype += math.log(sum(math.exp(v) for v in kept)) - kept[0]
        total += (instance + prototype) / len(q) / len(levels)
    return total


def test_a_step_equals_the_equations(monkeypatch):
    model = clustered()
    batch = batch_of(range(40, 52))
    g = torch.Generator().manual_seed(8)
    sizes = [9, 4]
    u = {
        "instance": [torch.rand(3, 12, QUEUE, generator=g)],
        "prototype": [torch.rand(12, size, generator=g) for size in sizes],
    }
    draws = iter([*u["instance"], *u["prototype"]])
    monkeypatch.setattr(torch, "rand_like", lambda x: next(draws))
    with torch.no_grad():
        q = F.normalize(model.projector(model.encoder(batch.views[0])), dim=1)
        k = F.normalize(model.key(batch.views[1]), dim=1)
        terms = model.objective(q, k, batch)
    expected = slow_loss(model, q.double(), k.double(), batch, u)
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)
    assert next(draws, None) is None


def test_what_is_known_of_the_queue_follows_every_step():
    model = clustered()
    for step in range(5):  # past the end of the queue
        rows = range(16 * step % IMAGES, 16 * step % IMAGES + 16)
        model.training_step(batch_of(rows), step)["loss"].backward()
    for level, sums in zip(model.prototypes, model.queue_sums, strict=True):
        expected = (model.queue.features @ level.vectors.T / level.phi).logsumexp(1)
        torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_query_encoder_alone():
    model = clustered(multi_crop=True)
    model.training_step(batch_of(range(16), views=4), 0)["loss"].backward()
    parts = [*model.encoder.parameters(), *model.projector.parameters()]
    assert all(p.grad is not None and bool(p.grad.any()) for p in parts[-2:])
    assert all(p.grad is None for p in model.key.parameters())


def test_without_both_selections_it_is_pcl():
    model = clustered(instance_selection=False, prototype_selection=False)
    batch = batch_of(range(16))
    with torch.no_grad():
        _, q = model.query(batch.views[0])
        k = model.keys(batch.views[1])
        terms = model.objective(q, k, batch)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ model.queue.features.T], 1) / 0.2
    loss = F.cross_entropy(logits, torch.zeros(16, dtype=torch.int64))
    for level, c in zip(model.prototypes, model.prototypes.clusters_of(batch.row), strict=True):
        loss = loss + F.cross_entropy(q @ level.vectors.T / level.phi, c) / 3
    torch.testing.assert_close(terms["loss"], loss, rtol=1e-5, atol=1e-6)


def test_small_crops_add_their_terms_with_the_masks_of_the_global_view():
    batch = batch_of(range(16), views=4)
    one, many, unselected = (
        clustered(multi_crop=multi, selection_on_local=on)
        for multi, on in ((False, True), (True, True), (True, False))
    )
    for model in (one, many, unselected):
        model.hyper = replace(model.hyper, prototype_selection=False)
    terms = []
    for model in (one, many, unselected):
        torch.manual_seed(4)
        with torch.no_grad():
            _, q = model.query(batch.views[0])
            torch.manual_seed(5)
            terms.append(model.objective(q, model.keys(batch.views[1]), batch))
    torch.testing.assert_close(terms[0]["instance"], terms[1]["instance"])
    crops = 2 * (terms[1]["local_instance"] + terms[1]["local_prototype"])
    torch.testing.assert_close(terms[1]["loss"], terms[0]["loss"] + crops)
    assert terms[2]["local_instance"] > terms[1]["local_instance"]  # more negatives


def test_own_old_keys_are_no_negatives():
    batch = batch_of(range(16))  # all of them are in the queue
    losses = {}
    for mask in (False, True):
        model = clustered(mask_own_keys=mask, prototype_selection=False)
        torch.manual_seed(0)
        with torch.no_grad():
            _, q = model.query(batch.views[0])
            losses[mask] = model.objective(q, model.keys(batch.views[1]), batch)["instance"]
    assert losses[True] < losses[False]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_it_trains_in_this_precision(tmp_path, precision):
    model = module(compat="official", multi_crop=True)
    result = train(model, tmp_path / "run", 2, views=4, precision=precision)
    assert math.isfinite(result.history[-1]["train/loss"])


# --- epochs


def test_the_epochs_after_the_warm_up_cluster_and_tell_what_they_found(tmp_path):
    model = module()
    history = train(model, tmp_path / "run", 4).history
    assert "clusters/seconds" not in history[0]
    assert "train/prototype" not in history[0]
    for row in history[1:]:
        assert row["clusters/level_1/empty"] == 0
        assert row["clusters/level_1/phi_min"] <= 0.2 <= row["clusters/level_1/phi_max"]
        assert row["train/prototype"] > 0
    assert "clusters/ami_to_previous" not in history[1]
    assert history[3]["clusters/ami_to_previous"] > 0.5
    last = history[-1]
    assert last["selection/base_rate"] == pytest.approx(0.25, abs=0.1)
    assert last["selection/level_1/precision"] > 2 * last["selection/base_rate"]


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path):
    whole = module()
    train(whole, tmp_path / "whole", 4)
    train(module(), tmp_path / "half", 4, stop_after=2)
    resumed = module()
    train(resumed, tmp_path / "half", 4, resume=True)
    theirs = resumed.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_prototypes_come_from_the_key_encoder_in_eval_mode_and_disturb_nothing():
    model = clustered()
    modes = [m.training for m in model.modules()]
    before = {name: value.clone() for name, value in model.key.state_dict().items()}
    state = torch.get_rng_state()
    encoded, _ = model.estimate()
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.key.state_dict().items():
        assert torch.equal(value, before[name]), name
    images = torch.stack([Pictures(1, noise=0.0)[row].views[0] for row in range(IMAGES)])
    model.key.eval()
    expected = F.normalize(model.key(images), dim=1)
    torch.testing.assert_close(encoded.features, expected, rtol=1e-5, atol=1e-6)


def test_the_warm_up_is_a_tenth_of_the_epochs_by_default():
    model = module(warmup_epochs=None)
    for epochs, warmup in ((200, 20), (4, 1)):
        model._trainer = SimpleNamespace(max_epochs=epochs)
        assert model.warmup_epochs == warmup


def test_the_cluster_tree_names_every_image(tmp_path):
    model = module()
    train(model, tmp_path / "run", 2)
    tree = cluster_tree(model, nearest=3)
    assert [len(c) for c in tree.clusters] == [IMAGES] * 3
    for depth, parents in enumerate(tree.parents):
        assert torch.equal(parents[tree.clusters[depth]], tree.clusters[depth + 1])
    assert [tuple(x.shape) for x in tree.nearest] == [(9, 3), (4, 3), (2, 3)]
    first = tree.nearest[0][:, 0]
    assert torch.equal(tree.clusters[0][first], torch.arange(9))  # the nearest is a member


# --- ranks


def test_two_ranks_train_one_model_with_one_queue_and_one_hierarchy(ranks):
    first, second = (of_rank["state"] for of_rank in ranks)
    for name, value in first.items():
        if "running" not in name and "tracked" not in name:  # those of batch norm are a rank's own
            assert torch.equal(value, second[name]), name
    assert bool((first["prototypes.assignment"] >= 0).all())
    assert bool((first["queue.ids"] >= 0).all())
    assert ranks[0]["figures"]["clusters/level_1/empty"] == 0
    assert 0.1 < ranks[0]["figures"]["selection/base_rate"] < 0.4


# --- refusals


def test_more_clusters_than_the_images_allow_are_refused():
    with pytest.raises(InputError, match="clusters 10,4: 10 clusters need 100 images or more"):
        module(clusters=(10, 4))


def test_a_warm_up_of_all_epochs_is_refused(tmp_path):
    with pytest.raises(InputError, match="warmup_epochs 2 leaves none of the 2 epochs"):
        train(module(warmup_epochs=2), tmp_path / "run", 2)


def test_images_that_were_never_clustered_are_refused():
    model = clustered()
    model.prototypes.assignment[5] = -1
    with pytest.raises(ValueError, match="must give every image of the training"):
        model.training_step(batch_of(range(16)), 0)


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
