"""Encoders and methods of a user's own: trained, saved, measured; nothing imported unasked."""

import sys

import lightning
import pytest
import torch
import torchvision
from torch import nn

from cl_core.errors import InputError
from cl_core.images.batches import as_batch, views_of
from cl_core.networks.export import load_encoder, save_encoder
from cl_core.networks.own import own_module, representation_width
from cl_vision import (
    EmbedConfig,
    EvaluateConfig,
    PretrainConfig,
    SimCLR,
    SimCLRHyper,
    embed,
    evaluate,
    pretrain,
)
from cl_vision.hyper import MoCoHyper, OptimizerHyper
from cl_vision.methods.moco import MoCo

QUICK = {"epochs": 1, "batch_size": 256, "trainer": {"progress": False, "tensorboard": False}}


class Net(nn.Module):
    """Small, and without a word of its width."""

    def __init__(self, channels=1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )

    def forward(self, images):
        return self.layers(images)


class Mine(lightning.LightningModule):
    """A method of one's own: pulls two views together, and pushes nothing apart."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def training_step(self, batch, batch_idx):
        one, other = (self.encoder(view) for view in views_of(batch, count=2))
        return (one - other).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "run"
    torch.manual_seed(0)
    net = Net()
    outcome = pretrain(
        PretrainConfig(data="digits", out=out, simclr={"hidden": 16, "dim": 8}, **QUICK),
        encoder=net,
    )
    return out, net, outcome


def test_an_own_encoder_is_trained_and_saved_with_its_import_path(run):
    out, net, outcome = run
    assert outcome.metrics["effective_rank"] > 1
    card = (out / "model.json").read_text()
    assert f'"architecture": "import:{__name__}:Net"' in card
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    again = load_encoder(out / "encoder", encoder=Net())
    assert torch.equal(again(x), net.eval()(x))


def test_an_own_encoder_is_measured_when_it_is_given_again(run, tmp_path):
    out, _, _ = run
    config = EvaluateConfig(run=out, out=tmp_path / "e", few_labels="none")
    with pytest.raises(InputError, match=r"importing it runs its code: allow that with --allow"):
        evaluate(config)
    assert not (tmp_path / "e").exists()
    metrics = evaluate(config, encoder=Net()).metrics
    assert metrics["knn_accuracy"] > 0.3
    rows = embed(EmbedConfig(run=out, out=tmp_path / "v", format="npy"), encoder=Net()).metrics
    assert rows == {"rows": 1797, "dimensions": 32}


def test_an_import_path_is_imported_only_when_it_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "mine_nets.py").write_text(
        "import pathlib\n"
        f"pathlib.Path({str(tmp_path / 'RAN')!r}).touch()\n"
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self): super().__init__(4, 3)\n"
        "value = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_nets", raising=False)
    with pytest.raises(InputError, match=r"allow that with --allow mine_nets:Net"):
        own_module("import:mine_nets:Net", allow=("other:Net",))
    assert not (tmp_path / "RAN").exists()
    assert own_module("import:mine_nets:Net", allow=("mine_nets:Net",)).out_features == 3
    for path, message in {
        "mine_nets:value": "is no class of torch.nn.Module",
        "mine_nets:Absent": "cannot be made",
        "absent_module:Net": "cannot be made",
        "os.system": "reads package.module:Class",
    }.items():
        with pytest.raises(InputError, match=message):
            own_module(f"import:{path}", allow=(path,))


def test_a_method_of_ones_own_is_trained_and_its_encoder_kept(tmp_path):
    outcome = pretrain(
        PretrainConfig(data="digits", out=tmp_path / "run", **QUICK), method=Mine(Net())
    )
    assert "Mine: 1 epochs" in outcome.lines[-1]
    assert '"method": "Mine"' in (tmp_path / "run/model.json").read_text()


def test_an_encoder_may_leave_its_width_to_be_seen():
    assert representation_width(Net(3)) == 32
    resnet = torchvision.models.resnet18()
    resnet.fc = nn.Identity()
    resnet.train()
    assert SimCLR(resnet, SimCLRHyper(hidden=16), optimizer=OptimizerHyper()).projector is not None
    assert all(part.training for part in resnet.modules())
    with pytest.raises(ValueError, match=r"maps images to rows .* pool and flatten"):
        representation_width(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match="give it an attribute out_features"):
        representation_width(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2)))


def test_an_own_encoder_is_a_folder_like_any_other(tmp_path):
    net = Net(3)
    save_encoder(tmp_path / "e", net)
    with pytest.raises(InputError, match="--allow"):
        load_encoder(tmp_path / "e")
    x = torch.rand(2, 3, 9, 9)
    assert torch.equal(load_encoder(tmp_path / "e", encoder=Net(3))(x), net.eval()(x))


@pytest.mark.parametrize("form", ["pair and labels", "pair", "with rows"])
def test_batches_come_in_the_forms_of_the_field(form):
    views, labels = list(torch.rand(2, 4, 1, 9, 9)), torch.arange(4)
    batch = {
        "pair and labels": (views, labels),
        "pair": views,
        "with rows": [views, labels, labels + 7],
    }[form]
    made = as_batch(batch)
    assert torch.equal(torch.stack(made.views), torch.stack(views))
    assert made.label.tolist() == ([-1] * 4 if form == "pair" else [0, 1, 2, 3])
    assert made.row.tolist() == ([7, 8, 9, 10] if form == "with rows" else [-1] * 4)
    module = SimCLR(Net(), SimCLRHyper(hidden=16), optimizer=OptimizerHyper())
    module.log = lambda *args, **kwargs: None
    assert torch.isfinite(module.training_step(batch, 0)["loss"])
    queue = MoCo(Net(), MoCoHyper(queue=8, dim=4), optimizer=OptimizerHyper())
    queue.log = lambda *args, **kwargs: None
    assert torch.isfinite(queue.training_step(batch, 0)["loss"])


def test_what_is_no_batch_is_said():
    with pytest.raises(ValueError, match="a batch holds views of images"):
        views_of({"x": 1})
    with pytest.raises(ValueError, match="a step needs 2 views of every image, got 3"):
        views_of(list(torch.rand(3, 2, 1, 4, 4)), count=2)
