"""A recipe made for more images than there are is fitted to them, and says so."""

import numpy as np
import pytest
import torch

from cl_core.errors import InputError
from cl_vision import PretrainConfig, pretrain
from cl_vision.data import open_images
from cl_vision.methods.training import resolved

GENERATOR = torch.Generator().manual_seed(0)
PHOTOS = torch.randint(0, 255, (300, 3, 16, 16), generator=GENERATOR, dtype=torch.uint8)
QUICK = {"image_size": 16, "trainer": {"progress": False, "tensorboard": False}}


def config(**options):
    return PretrainConfig(**{"data": PHOTOS, "out": "unused"} | options)


def test_batch_rate_queue_and_clusters_follow_the_images():
    fitted, notes = resolved(config(recipe="hcsc-cifar10"), open_images(PHOTOS))
    assert (fitted.batch_size, fitted.hcsc.queue, fitted.hcsc.clusters) == (64, 64, (12, 6, 2))
    assert fitted.learning_rate == pytest.approx(0.06 / 8)
    assert [note.partition(" became ")[0] for note in notes] == [
        "the recipe's batch of 512 images",
        "the recipe's clusters [2000, 1000, 400]",
        "the recipe's queue of 4,096 keys",
    ]


def test_what_the_user_gave_stays():
    given = {"batch_size": 30, "learning_rate": 0.5, "hcsc": {"queue": 120, "clusters": [9, 3]}}
    fitted, notes = resolved(config(recipe="hcsc-cifar10", **given), open_images(PHOTOS))
    assert (fitted.batch_size, fitted.learning_rate) == (30, 0.5)
    assert (fitted.hcsc.queue, fitted.hcsc.clusters) == (120, (9, 3))
    assert notes == []


def test_without_a_recipe_nothing_is_fitted_and_too_much_is_refused(tmp_path):
    options = config(method="moco", batch_size=512, out=tmp_path / "run", **QUICK)
    assert resolved(options, open_images(PHOTOS))[0].batch_size == 512
    with pytest.raises(InputError, match="batch_size"):
        pretrain(options)


def test_warm_ups_of_a_recipe_follow_the_epochs():
    made = config(recipe="hcsc-cifar10", epochs=10)
    fitted, notes = resolved(made, open_images(PHOTOS))
    assert fitted.hcsc.warmup_epochs is None
    assert notes[-1] == (
        "the recipe's 20 epochs before the first clusters became a tenth of the 10"
    )
    assert config(recipe="simclr-cifar10", epochs=4).optimizer_hyper().warmup_epochs < 4


def test_a_fitted_recipe_trains(tmp_path):
    options = config(
        recipe="hcsc-cifar10", epochs=3, backbone="resnet-8-16", out=tmp_path / "run", **QUICK
    )
    outcome = pretrain(options)
    assert np.isfinite(outcome.metrics["train/loss"])
    assert sum("became" in line for line in outcome.lines) == 4


@pytest.mark.parametrize(("rule", "batch"), [("linear", 128), ("sqrt", 64)])
def test_the_rate_may_be_scaled_to_the_batch(rule, batch):
    options = config(method="moco", batch_size=batch, lr_scaling=rule)
    assert options.optimizer_hyper().learning_rate == pytest.approx(0.03 / 2)
    fitted, notes = resolved(options, open_images(PHOTOS))
    assert notes == [f"learning rate 0.015, scaled to the batch of {batch}"]
    assert fitted.optimizer_hyper().learning_rate == pytest.approx(0.03 / 2)


def test_an_encoder_of_one_size_is_refused_small_crops_before_the_training(tmp_path):
    options = config(
        method="hcsc",
        backbone="test_vit",
        image_size=64,
        batch_size=50,
        epochs=2,
        hcsc={"multi_crop": True, "queue": 50, "warmup_epochs": 1},
        out=tmp_path / "run",
    )
    with pytest.raises(InputError, match=r"test_vit does not take images of \d+ pixels"):
        pretrain(options)
    assert not (tmp_path / "run").exists()
