"""A model as a folder for a hub: complete, private of places, loaded back without a run."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import cl_vision
from cl_core.networks.backbones import build_backbone
from cl_core.runs import Run
from cl_core.transforms.scaling import Statistics
from cl_vision.cards import ProjectorCard
from cl_vision.cli import main
from cl_vision.model import ImageModel, build_saved_projector


@pytest.fixture
def run(tmp_path):
    encoder = build_backbone("resnet-4-8", in_channels=1)
    card = ProjectorCard(kind="linear", width=8, hidden=8, dim=4)
    projector = build_saved_projector(card)
    model = ImageModel.of(
        encoder, projector, method="simclr", name="SimCLR", projector_card=card,
        image_size=8, statistics=Statistics((0.5,), (0.5,)),
    )  # fmt: skip
    options = {
        "data": "/home/someone/secret project/photos",
        "out": "/home/someone/runs/a",
        "root": "/home/someone",
        "method": "simclr",
        "simclr": {"temperature": 0.5},
        "trainer": {"devices": 1},
    }
    with Run.create(tmp_path / "run", options) as run:
        run.save_model(model, model.card)
        run.save_metrics({"linear_accuracy": 0.98765, "auroc": None or float("nan")})
    return tmp_path / "run", model


def test_an_exported_model_is_whole_and_tells_no_places(run, tmp_path, capsys):
    place, model = run
    words = ["export", "--run", str(place), "--hub", str(tmp_path / "hub/plants")]
    assert main([*words, "--license", "cc-by-4.0", "--name", "Plants | <b>"]) == 0
    assert "hub/plants/README.md" in capsys.readouterr().out
    hub = tmp_path / "hub/plants"
    assert sorted(file.name for file in hub.iterdir()) == [
        "README.md", "model.json", "model.safetensors", "training.json",
    ]  # fmt: skip
    card = (hub / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-4.0"
    assert "# Plants \\| \\<b\\>" in text
    assert "| linear\\_accuracy | 0.9877 |" in text
    assert "| auroc | undefined |" in text
    assert "`photos`" in text
    everything = card + (hub / "training.json").read_text() + (hub / "model.json").read_text()
    assert "someone" not in everything
    assert json.loads((hub / "training.json").read_text())["simclr.temperature"] == 0.5
    images = torch.rand(3, 1, 8, 8)
    again = cl_vision.load(hub)
    torch.testing.assert_close(again.encoder(images), model.eval().encoder(images))
    line = next(line for line in text.splitlines() if line.startswith("model = "))
    assert line == 'model = cl_vision.load("plants")'


def test_what_cannot_be_exported_is_told(run, tmp_path, capsys):
    place, _ = run
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    assert main(["export", "--run", str(place), "--hub", str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert main(["export", "--run", str(place), "--hub", str(tmp_path / "hub")]) == 2
    assert "is not the file that model.json describes" in capsys.readouterr().err
    assert not (tmp_path / "hub").exists()
    with Run.create(tmp_path / "empty", {}) as begun:
        begun.save_metrics({})
    assert main(["export", "--run", str(tmp_path / "empty"), "--hub", str(tmp_path / "hub")]) == 2
    assert "has no model yet" in capsys.readouterr().err
