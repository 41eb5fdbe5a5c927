"""SimCLR's step through every projector, and a short training."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from cl_core.config import TrainerConfig
from cl_core.images import Sample
from cl_core.loader import make_loader
from cl_core.losses import nt_xent
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit
from cl_vision.hyper import OptimizerHyper, SimCLRHyper
from cl_vision.methods.contrast import two_view_loss
from cl_vision.methods.projectors import ProjectorKind
from cl_vision.methods.simclr import SimCLR

SGD = OptimizerHyper(learning_rate=0.2)


class Encoder(nn.Module):
    """A linear map of flat images, the smallest thing with ``out_features``."""

    def __init__(self, width=12):
        super().__init__()
        self.layer = nn.Linear(16, width)
        self.out_features = width

    def forward(self, x):
        return self.layer(x.flatten(1))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(n=10):
    images = draw(n, 1, 4, 4)
    views = [images + 0.1 * draw(n, 1, 4, 4, seed=seed) for seed in (1, 2)]
    return Sample(views, torch.full((n,), -1), torch.arange(n))


def module_with_log(hyper):
    """The module outside a trainer: what it would log is kept."""
    torch.manual_seed(0)
    module, logged = SimCLR(Encoder(), hyper, optimizer=SGD), {}
    module.log = lambda name, value, **_: logged.update({name: float(value.detach())})
    return module, logged


@pytest.mark.parametrize("negatives", ["all", "cross"])
@pytest.mark.parametrize("kind", get_args(ProjectorKind))
def test_a_step_is_the_loss_of_the_projected_views(kind, negatives):
    hyper = SimCLRHyper(
        projector=kind, hidden=8, dim=5, rank=4, negatives=negatives, temperature=0.2
    )
    module, logged = module_with_log(hyper)
    sample = batch()
    r1, r2 = (module.encoder(view) for view in sample.views)
    z1, z2 = module.projector(r1), module.projector(r2)
    step = module.training_step(sample, 0)
    expected = two_view_loss(z1, z2, temperature=0.2, negatives=negatives)
    torch.testing.assert_close(step["loss"], expected)
    torch.testing.assert_close(step["embedding"], r1.detach())
    assert not step["embedding"].requires_grad
    similarity = nn.functional.cosine_similarity(z1, z2).mean().item()
    assert logged["train/positive_similarity"] == pytest.approx(similarity, rel=1e-5)
    assert logged["train/loss"] == pytest.approx(expected.item(), rel=1e-5)
    step["loss"].backward()
    assert module.encoder.layer.weight.grad.abs().max() > 0
    trained = [p for p in module.projector.parameters() if p.requires_grad]
    assert bool(trained) == (kind in ("linear", "diagonal", "mlp"))
    assert all(p.grad.abs().max() > 0 for p in trained)


def test_without_projector_and_with_all_negatives_it_is_nt_xent_of_the_representation():
    module, _ = module_with_log(SimCLRHyper(projector="none", temperature=0.3))
    sample = batch()
    r1, r2 = (module.encoder(view) for view in sample.views)
    loss = module.training_step(sample, 0)["loss"]
    torch.testing.assert_close(loss, nt_xent(r1, r2, 0.3))


def test_a_projector_that_does_not_fit_the_encoder_is_refused():
    with pytest.raises(ValueError, match="width 12, got 13"):
        SimCLR(Encoder(), SimCLRHyper(projector="low_rank", rank=13), optimizer=SGD)


def train(folder, kind, optimizer=SGD):
    seed_everything(0)
    hyper = SimCLRHyper(projector=kind, hidden=8, dim=6, rank=6)
    module = SimCLR(Encoder(), hyper, optimizer=optimizer)
    images = draw(64, 1, 4, 4)

    def noisy(image):
        return image + 0.3 * torch.randn_like(image)

    rows = [Sample((noisy(image), noisy(image)), -1, row) for row, image in enumerate(images)]
    loader = make_loader(rows, batch_size=32, shuffle=True, workers=0, seed=0)
    quiet = TrainerConfig(accelerator="cpu", devices=1, progress=False, tensorboard=False)
    with Run.create(folder, {"kind": kind}) as run:
        result = fit(module, loader, run=run, epochs=12, seed=0, trainer=quiet)
    return module, [row["train/loss"] for row in result.history]


@pytest.mark.parametrize("kind", ["low_rank", "mlp"])
def test_training_lowers_the_loss_and_leaves_fixed_matrices_alone(kind, tmp_path):
    seed_everything(0)
    hyper = SimCLRHyper(projector=kind, hidden=8, dim=6, rank=6)
    start = SimCLR(Encoder(), hyper, optimizer=SGD).state_dict()
    module, losses = train(tmp_path / "run", kind)
    assert losses[-1] < losses[0] - 0.3
    changed = {
        name for name, value in module.state_dict().items() if not torch.equal(value, start[name])
    }
    assert "encoder.layer.weight" in changed
    assert ("projector.layers.weight" in start) == (kind == "low_rank")
    assert "projector.layers.weight" not in changed


def test_the_optimiser_is_the_one_asked_for(tmp_path):
    _, fast = train(tmp_path / "fast", "none", OptimizerHyper(learning_rate=0.2))
    _, still = train(tmp_path / "still", "none", OptimizerHyper(learning_rate=1e-9))
    assert fast[-1] < still[-1] - 0.3
