"""A trained encoder leaves and comes back the same, or is refused in one line."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

import cl_core
from cl_core.errors import InputError
from cl_core.networks.backbones import RESNETS, build_backbone
from cl_core.networks.export import (
    encoder_card,
    export_onnx,
    export_state_dict,
    load_encoder,
    save_encoder,
)
from cl_core.runs import Run

ABOUT = {"mean": [0.1, 0.2, 0.3, 0.4], "std": [0.5, 0.5, 0.5, 2], "classes": ["naevus", "ß"]}


def encoder(name="test_resnet", channels=4, **options):
    torch.manual_seed(0)
    return build_backbone(name, in_channels=channels, **options).eval()


def images(n=2, channels=4, size=64):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {"stem": "cifar"}),
        ("test_vit", {"image_size": 64}),
        ("resnet18", {"output_stride": 16}),
    ],
)
def test_one_line_brings_an_encoder_back(tmp_path, name, options):
    before = encoder(name, **options)
    save_encoder(tmp_path / "new" / "e", before, ABOUT)
    after = cl_core.load_encoder(tmp_path / "new" / "e")
    assert not after.training
    assert torch.equal(after(images()), before(images()))
    assert after.card() == encoder_card(before, ABOUT).record()
    assert {p.name for p in (tmp_path / "new" / "e").iterdir()} == {
        "model.safetensors",
        "model.json",
    }


def test_an_encoder_that_was_loaded_keeps_its_card_when_saved_again(tmp_path):
    save_encoder(tmp_path / "a", encoder(), ABOUT)
    save_encoder(tmp_path / "b", load_encoder(tmp_path / "a"), {"classes": ["other"]})
    card = load_encoder(tmp_path / "b").card()
    assert card["mean"] == ABOUT["mean"]
    assert card["classes"] == ["other"]
    written = json.loads((tmp_path / "b/model.json").read_text("utf-8"))
    assert written["version"] == cl_core.__version__


def test_a_run_directory_is_an_encoder_too(tmp_path):
    before = encoder()
    whole = torch.nn.ModuleDict({"encoder": before, "head": torch.nn.Linear(96, 2)})
    with Run.create(tmp_path / "run", {"epochs": 1}) as run:
        run.save_model(whole, encoder_card(before, ABOUT))
    assert torch.equal(load_encoder(tmp_path / "run")(images()), before(images()))


def test_a_saved_encoder_is_a_weight_file_for_training_on(tmp_path):
    before = encoder()
    save_encoder(tmp_path / "e", before)
    after = build_backbone("test_resnet", in_channels=4, weights=tmp_path / "e").eval()
    assert torch.equal(after(images()), before(images()))


def test_importing_cl_core_imports_no_torch():
    code = (
        "import cl_core, sys; assert 'load_encoder' in dir(cl_core); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_encoder_that_lies_there_is_kept(tmp_path):
    save_encoder(tmp_path, encoder())
    data = (tmp_path / "model.safetensors").read_bytes()
    other = build_backbone("test_resnet", in_channels=4)
    with pytest.raises(InputError, match="already holds a model"):
        save_encoder(tmp_path, other)
    assert (tmp_path / "model.safetensors").read_bytes() == data
    save_encoder(tmp_path, other, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != data
    load_encoder(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot make the folder .*file/e"):
        save_encoder(tmp_path / "file" / "e", encoder())


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"mean": [0.1] * 3, "std": [1] * 3}, r"mean must be one number per channel \(4\), got 3"),
        ({"mean": [0.1] * 4}, "mean and std belong together, only mean is given"),
        ({"mean": [0] * 4, "std": [1, 1, 0, 1]}, "std must be positive, got 0"),
        (
            {"mean": [0, 0, 0, float("nan")], "std": [1] * 4},
            r"mean\[3\] must be a number|NaN is not JSON",
        ),
        ({"mean": 0.5, "std": 0.5}, r"mean must be a list, got 0.5"),
        ({"classes": ["a", "a"]}, "classes must be distinct names"),
        ({"classes": [1, 2]}, r"classes\[0\] must be text, got 1"),
    ],
)
def test_a_card_that_cannot_be_true_is_refused_on_both_ways(tmp_path, about, message):
    with pytest.raises(InputError, match=message):
        save_encoder(tmp_path / "bad", encoder(), about)
    assert not (tmp_path / "bad").exists()
    save_encoder(tmp_path, encoder())
    edit_card(tmp_path, **about)
    with pytest.raises(InputError, match=rf"model.json is damaged.*{message}"):
        load_encoder(tmp_path)


def test_the_recipe_is_not_the_callers_to_change():
    with pytest.raises(ValueError, match="the card's in_channels is the encoder's own"):
        encoder_card(encoder(), {"in_channels": 3})


def edit_card(folder, **entries):
    path = folder / "model.json"
    card = json.loads(path.read_text("utf-8")) | entries
    path.write_text(json.dumps({k: v for k, v in card.items() if v != "drop"}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"architecture": "timm/test_resnt"}, "unknown architecture .* did you mean test_resnet"),
        ({"architecture": "drop"}, "describes no image encoder: it has no architecture"),
        ({"architecture": 3}, "architecture must be text, got 3"),
        ({"architecture": "timm/test_efficientnet"}, "does not fit the timm/test_efficientnet"),
        ({"in_channels": 3}, r"conv1.0.weight is \d+x4x3x3, expected \d+x3x3x3"),
        ({"in_channels": -4}, "must be positive, got -4"),
        ({"in_channels": "4"}, "in_channels must be a whole number, got '4'"),
        ({"stem": "cifar"}, "does not fit the timm/test_resnet of model.json"),
        ({"stem": "other"}, "stem must be 'imagenet' or 'cifar', got 'other'"),
        ({"image_size": 2.5}, "image_size must be a whole number, got 2.5"),
        ({"output_stride": 5}, "output_stride must be 8, 16 or 32, got 5"),
        ({"weights_sha256": "0"}, "is not the file that .* describes"),
    ],
)
def test_a_card_that_does_not_tell_of_the_weights_is_refused(tmp_path, entries, message):
    save_encoder(tmp_path, encoder())
    edit_card(tmp_path, **entries)
    with pytest.raises(InputError, match=message) as error:
        load_encoder(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_rgb_weights_are_not_stretched_to_a_card_of_four_channels(tmp_path):
    save_encoder(tmp_path, encoder(channels=3))
    edit_card(tmp_path, in_channels=4)
    with pytest.raises(InputError, match="x3x3x3, expected"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "model.json",
            None,
            r"has no model \(model.json is missing\)",
        ),
        ("model.json", b"", "model.json is damaged"),
        ("model.json", b"[1]", "model.json is damaged: it is no mapping"),
        ("model.json", b"\xff\xfe", "model.json is not UTF-8"),
        ("model.safetensors", None, r"model.safetensors cannot be read"),
        ("model.safetensors", b"", "model.safetensors is damaged"),
        ("model.safetensors", b"\x00" * 100, "model.safetensors is damaged"),
        ("model.safetensors", pickle.dumps({"w": 1}), "model.safetensors is damaged"),
    ],
)
def test_missing_and_damaged_files_are_named(tmp_path, file, content, message):
    save_encoder(tmp_path, encoder())
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_encoder(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_another_save_are_refused(tmp_path):
    save_encoder(tmp_path, encoder())
    state = load_file(tmp_path / "model.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"is not the file that .*model.json describes"):
        load_encoder(tmp_path)


def test_a_state_dict_loads_into_the_plain_torchvision_model():
    before = encoder("resnet18", channels=3)
    plain = torchvision.models.resnet18()
    report = plain.load_state_dict(export_state_dict(before, "torchvision"), strict=False)
    assert report.missing_keys == ["fc.weight", "fc.bias"]
    assert report.unexpected_keys == []
    plain.fc = torch.nn.Identity()
    assert torch.equal(plain.eval()(images(channels=3)), before(images(channels=3)))


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "test_vit"])
def test_a_state_dict_loads_strictly_into_the_plain_timm_model(name):
    before = encoder(name, channels=4)
    plain = timm.create_model(name, in_chans=4, num_classes=0).eval()
    plain.load_state_dict(export_state_dict(before, "timm"), strict=True)
    x = images(size=160)
    torch.testing.assert_close(plain(x), before(x))


@pytest.mark.parametrize("name", RESNETS)
def test_the_resnets_of_both_libraries_share_their_names(name):
    with torch.device("meta"):
        ours = build_backbone(name).trunk.state_dict()
        theirs = timm.create_model(name, num_classes=0).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_a_timm_resnet_can_become_torchvisions():
    before = encoder("timm/resnet18.a1_in1k", channels=3)
    plain = torchvision.models.resnet18()
    plain.load_state_dict(export_state_dict(before, "torchvision"), strict=False)
    plain.fc = torch.nn.Identity()
    torch.testing.assert_close(plain.eval()(images(channels=3)), before(images(channels=3)))


@pytest.mark.parametrize(
    ("name", "options", "library", "message"),
    [
        ("resnet18", {"channels": 4}, "torchvision", "conv1.weight is 64x4x7x7, expected 64x3x7x7"),
        ("resnet18", {"stem": "cifar"}, "timm", "conv1.weight is 64x4x3x3, expected 64x4x7x7"),
        ("test_vit", {}, "torchvision", "torchvision has no test_vit"),
    ],
)
def test_an_architecture_that_is_not_the_librarys_is_not_exported(name, options, library, message):
    with pytest.raises(InputError, match=message):
        export_state_dict(encoder(name, **options), library)


def test_an_unknown_library_is_refused():
    with pytest.raises((ValueError, TypeError), match="keras"):  # TypeError: beartype was faster
        export_state_dict(encoder(), "keras")


@pytest.mark.parametrize(
    ("name", "options"),
    [("test_resnet", {"stem": "cifar"}), ("test_vit", {"image_size": 64})],
)
def test_onnx_gives_the_same_output_for_any_batch(tmp_path, name, options):
    import onnxruntime

    model = encoder(name, **options).train()
    path = tmp_path / "größe 1.onnx"
    assert export_onnx(model, path, images(n=1)) <= 1e-4
    assert model.training  # left as it was
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model.eval()
    for n in (1, 2, 5):
        (found,) = session.run(["representations"], {"images": images(n=n).numpy()})
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(found), model(images(n=n)), atol=1e-4, rtol=0
            )


class Drawn(torch.nn.Module):
    """Answers differently each time, so that no export can agree with it."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1) + self.calls


class Branching(torch.nn.Module):
    """Takes a branch by its data, which no exporter can follow."""

    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else x.flatten(1) * 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Drawn(), "differs from the network by .* nothing is written"),
        (Branching(), "cannot be exported"),
    ],
)
def test_an_export_that_fails_leaves_no_file(tmp_path, model, message):
    with pytest.raises(InputError, match=message) as error:
        export_onnx(model, tmp_path / "a.onnx", images())
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_onnx_asks_for_its_extra_and_for_fitting_images(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"expects images \(n, 4, h, w\)"):
        export_onnx(encoder(), tmp_path / "a.onnx", images(channels=3))
    with pytest.raises(ValueError, match="must be a batch of images"):
        export_onnx(encoder(), tmp_path / "a.onnx", images(n=0))
    with pytest.raises(InputError, match="cannot write"):
        export_onnx(torch.nn.Flatten(), Path(tmp_path) / "no" / "a.onnx", images())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install cl-core\[onnx\]"):
        export_onnx(encoder(), tmp_path / "a.onnx", images())
