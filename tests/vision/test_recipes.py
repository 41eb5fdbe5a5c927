"""Every recipe resolves to the settings that its file says it has, and tells its source."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import cl_vision.recipes
from cl_vision.cli import main

FILES = sorted(Path(cl_vision.recipes.__file__).parent.glob("*.yaml"))

# What the papers and the released code print, read off them and not off the files.
PUBLISHED = {
    "simclr-imagenet": {"optimizer": "lars", "learning_rate": 4.8, "batch_size": 4096},
    "directclr-imagenet": {"learning_rate": 4.8, "final_factor": 0.001, "zero_init_residual": True},
    "mocov2-imagenet": {"learning_rate": 0.03, "epochs": 200, "batch_size": 256},
    "hcsc-imagenet": {"learning_rate": 0.03, "epochs": 200, "weight_decay": 1e-4},
}
OWN = {
    "directclr-imagenet": {"d0": 360, "temperature": 0.1, "negatives": "cross"},
    "mocov2-imagenet": {"queue": 65536, "momentum": 0.999, "temperature": 0.2, "dim": 128},
    "hcsc-imagenet": {"queue": 16384, "clusters": [3000, 2000, 1000], "warmup_epochs": 20},
    "hcsc-imagenet-multicrop": {"multi_crop": True, "selection_on_local": True, "queue": 16384},
    "hcsc-digits": {"queue": 512, "clusters": [60, 30, 12], "warmup_epochs": 10, "momentum": 0.99},
    "directclr-digits": {"d0": 32},
}


def resolve(name: str, capsys) -> dict[str, object]:
    own = ["pretrain", "--data", "x", "--out", "y", "--recipe", name, "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main(own)
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_recipe_resolves_and_says_its_source(file, capsys):
    options = resolve(file.stem, capsys)
    assert options["recipe"] == file.stem
    assert file.stem.startswith(options["method"])
    text = file.read_text()
    assert text.startswith("# ")
    head = " ".join(line for line in text.splitlines() if line.startswith("#"))
    assert "arXiv" in head or "this project's" in head
    written = yaml.safe_load(text)
    assert written.pop("verb") == "pretrain"
    for name, value in written.items():
        if isinstance(value, dict):
            assert {key: options[name][key] for key in value} == value, name
        elif name != "data":  # the flag is stronger
            assert options[name] == value, name


@pytest.mark.parametrize("name", sorted(PUBLISHED.keys() | OWN.keys()))
def test_recipes_have_the_published_numbers(name, capsys):
    options = resolve(name, capsys)
    for key, value in PUBLISHED.get(name, {}).items():
        assert options[key] == value, key
    group = options[options["method"]]
    for key, value in OWN.get(name, {}).items():
        assert group[key] == value, key


def test_every_method_has_a_recipe_for_each_size():
    names = {file.stem for file in FILES}
    for method in ("simclr", "directclr", "mocov2", "hcsc"):
        assert {f"{method}-{size}" for size in ("imagenet", "cifar10", "digits")} <= names
