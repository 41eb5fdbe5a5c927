"""Options become the method, the encoder and the loaders that they name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_vision.config import PretrainConfig
from cl_vision.data import open_images
from cl_vision.hcsc.module import HCSC
from cl_vision.hyper import DirectCLRHyper, HCSCHyper, MoCoHyper, SimCLRHyper
from cl_vision.methods.directclr import DirectCLR
from cl_vision.methods.moco import MoCo
from cl_vision.methods.simclr import SimCLR
from cl_vision.methods.training import ShareBatch, Training, build_encoder, resolved
from cl_vision.model import ImageModel


def options(method: str = "simclr", **more) -> PretrainConfig:
    given = {
        "data": "digits",
        "out": Path("unused"),
        "method": method,
        "backbone": "resnet-4-24",
        "batch_size": 50,
        "simclr": SimCLRHyper(hidden=16, dim=8),
        "moco": MoCoHyper(queue=100, dim=8),
        "hcsc": HCSCHyper(queue=100, dim=8),
    }
    return PretrainConfig(**(given | more))


@pytest.fixture(scope="module")
def digits():
    return open_images("digits").training()


def training(config: PretrainConfig, digits, path: Path) -> Training:
    seed_everything(config.seed)
    return Training.of(resolved(config, digits)[0], digits, Run(path))


@pytest.mark.parametrize(
    ("method", "kind"),
    [("simclr", SimCLR), ("directclr", DirectCLR), ("moco", MoCo), ("hcsc", HCSC)],
)
def test_the_method_is_built_saved_and_rebuilt(digits, tmp_path, method, kind):
    made = training(options(method), digits, tmp_path)
    assert type(made.module) is kind
    model = made.model().eval()
    again = ImageModel.rebuild(model.card)
    again.load_state_dict(model.state_dict())
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    r = model.encoder(x)
    torch.testing.assert_close(again.eval().encoder(x), r)
    torch.testing.assert_close(again.project(r.detach()), model.project(r.detach()))
    assert model.encoder is made.module.encoder
    batch = next(iter(made.loader))
    assert (len(batch.views), len(batch.row)) == (2, 50)


@pytest.mark.parametrize(
    "projector", ["none", "linear", "orthogonal", "low_rank", "diagonal", "mlp"]
)
def test_every_projector_is_named_saved_and_rebuilt(digits, tmp_path, projector):
    hyper = SimCLRHyper(projector=projector, hidden=16, dim=8, rank=6)
    model = training(options(simclr=hyper), digits, tmp_path).model().eval()
    again = ImageModel.rebuild(model.card)
    again.load_state_dict(model.state_dict())
    r = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.project(r), model.project(r))
    names = {"none": "SimCLR (no projector)", "mlp": "SimCLR"}
    told = names.get(projector, f"SimCLR ({projector.replace('_', '-')} projector)")
    assert model.name == told


def test_what_depends_on_method_and_images_is_filled_in(digits):
    by_step, by_epoch = (resolved(options(m), digits)[0] for m in ("directclr", "hcsc"))
    assert (by_step.learning_rate, by_step.schedule) == (0.1, "step")
    assert (by_epoch.learning_rate, by_epoch.schedule) == (0.03, "epoch")
    assert (by_step.zero_init_residual, by_epoch.zero_init_residual) == (True, False)
    assert by_epoch.hcsc.clusters == (57, 28, 11)  # 1,437 images
    assert (by_step.image_size, by_step.channels) == (8, 1)
    assert resolved(options(backbone=None), digits)[0].backbone == "resnet-16-32-128"
    assert resolved(by_epoch, digits)[0] == by_epoch


def test_warm_ups_follow_the_epochs_until_they_are_given():
    assert options(epochs=40).optimizer_hyper().warmup_epochs == 4
    assert options(epochs=400).optimizer_hyper().warmup_epochs == 10
    assert options(epochs=400, warmup_epochs=2).optimizer_hyper().warmup_epochs == 2
    assert options("moco", epochs=400).optimizer_hyper().warmup_epochs == 0


def test_residual_branches_start_at_zero_where_published(digits):
    for method, zero in (("directclr", True), ("moco", False)):
        encoder = build_encoder(resolved(options(method), digits)[0], 1)
        weight = encoder.trunk.get_submodule("layer2.0.bn2").weight
        assert bool((weight == 0).all()) is zero


def test_the_same_seed_builds_the_same_start(digits, tmp_path):
    one, same, other = (
        training(options(seed=seed), digits, tmp_path).module.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_batch_is_shared_among_the_devices(digits, tmp_path):
    made = training(options(), digits, tmp_path)
    share = next(c for c in made.callbacks if isinstance(c, ShareBatch))
    share.setup(SimpleNamespace(world_size=5), made.module, "fit")
    assert {len(batch.row) for batch in made.loader} == {10}
    with pytest.raises(InputError, match=r"multiple of their number, 4"):
        share.setup(SimpleNamespace(world_size=4), made.module, "fit")


def test_what_does_not_fit_is_the_users_fault(digits, tmp_path):
    with pytest.raises(InputError, match="24, got 25"):
        training(options("directclr", directclr=DirectCLRHyper(d0=25)), digits, tmp_path)
    with pytest.raises(InputError, match="queue 49 is smaller"):
        training(options("moco", moco=MoCoHyper(queue=49)), digits, tmp_path)
    with pytest.raises(InputError, match="145 clusters"):
        training(options("hcsc", hcsc=HCSCHyper(queue=100, clusters=(145, 3))), digits, tmp_path)


def test_a_long_queue_and_a_small_slice_are_told(digits, tmp_path):
    made = training(options("moco", moco=MoCoHyper(queue=1500)), digits, tmp_path)
    assert any("1,500 keys is longer than the 1,437 images" in note for note in made.notes)
    made = training(options("directclr", directclr=DirectCLRHyper(d0=4)), digits, tmp_path)
    assert any("d0 4 is below" in note for note in made.notes)
