"""Backbones keep their promises: widths, channels, stems, weights, feature maps."""

import copy
import sys

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from cl_core.errors import InputError
from cl_core.networks.backbones import RESNETS, build_backbone
from cl_core.networks.weights import adapt_channels


def images(n=2, channels=3, size=64, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_a_resnet_is_torchvisions_without_its_classifier():
    plain = torchvision.models.resnet18()
    encoder = build_backbone("resnet18")
    state = {k: v for k, v in plain.state_dict().items() if not k.startswith("fc.")}
    encoder.trunk.load_state_dict(state)
    plain.fc = torch.nn.Identity()
    torch.testing.assert_close(encoder.eval()(images()), plain.eval()(images()))


def test_the_bare_resnet_names_are_torchvisions():
    builders = {
        n: torchvision.models.get_model_builder(n) for n in torchvision.models.list_models()
    }
    module = "torchvision.models.resnet"
    assert set(RESNETS) == {n for n, builder in builders.items() if builder.__module__ == module}


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_a_torchvision_resnet_knows_its_width(name):
    with torch.device("meta"):
        encoder = build_backbone(name, in_channels=5)
        assert encoder(torch.empty(2, 5, 64, 64)).shape == (2, encoder.out_features)
        assert encoder.out_features == (512 if name == "resnet34" else 2048)
        assert encoder.trunk.conv1.weight.shape == (64, 5, 7, 7)


@pytest.mark.parametrize(
    "name", ["resnet10t", "test_vit", "test_convnext", "test_efficientnet", "mobilenetv3_small_050"]
)
@pytest.mark.parametrize("channels", [1, 4])
def test_a_timm_model_gives_representations_of_its_width(name, channels):
    encoder = build_backbone(name, in_channels=channels, image_size=64).eval()
    representations = encoder(images(channels=channels))
    assert representations.shape == (2, encoder.out_features)
    assert not torch.equal(representations[0], representations[1])
    assert encoder.name == f"timm/{name}"


def test_a_vision_transformer_is_built_for_the_image_size():
    assert build_backbone("test_vit").card()["image_size"] == 160
    encoder = build_backbone("timm/test_vit", image_size=48)
    assert encoder.card()["image_size"] == 48
    assert encoder.forward_features(images(size=48)).shape == (2, 1 + 3 * 3, 64)


@pytest.mark.parametrize(
    ("name", "stem", "size", "expected"),
    [
        ("resnet18", "auto", 64, "cifar"),
        ("resnet18", "auto", 65, "imagenet"),
        ("resnet18", "auto", None, "imagenet"),
        ("resnet18", "imagenet", 32, "imagenet"),
        ("timm/resnet18", "cifar", None, "cifar"),
        ("resnet10t", "auto", 32, "cifar"),
        ("test_vit", "auto", 32, "imagenet"),
    ],
)
def test_the_stem_follows_option_and_image_size(name, stem, size, expected):
    encoder = build_backbone(name, stem=stem, image_size=size, in_channels=2)
    assert encoder.card()["stem"] == expected
    if hasattr(encoder.trunk, "layer1"):
        edge = encoder.forward_stages(images(channels=2))[0].shape[-1]
        assert edge == (64 if expected == "cifar" else 16)


def test_feature_maps_are_the_stages_and_pool_to_the_representation():
    for name in ("resnet18", "timm/resnet18"):
        encoder = build_backbone(name).eval()
        maps = encoder.forward_stages(images())
        assert [tuple(m.shape[1:]) for m in maps] == [
            (64, 16, 16),
            (128, 8, 8),
            (256, 4, 4),
            (512, 2, 2),
        ]
        assert torch.equal(maps[-1], encoder.forward_features(images()))
        torch.testing.assert_close(maps[-1].mean((2, 3)), encoder(images()))


@pytest.mark.parametrize(
    ("name", "stride", "edges"),
    [("resnet18", 16, [8, 4, 4]), ("resnet18", 8, [8, 8, 8]), ("resnet50", 16, [8, 4, 4])],
)
def test_an_output_stride_dilates_every_3x3_convolution_of_the_last_stages(name, stride, edges):
    torch.manual_seed(0)
    encoder = build_backbone(name, output_stride=stride).eval()
    assert [m.shape[-1] for m in encoder.forward_stages(images())][1:] == edges
    assert encoder(images()).shape == (2, encoder.out_features)
    for stage, expected in (
        (encoder.trunk.layer3, 16 // stride),
        (encoder.trunk.layer4, 32 // stride),
    ):
        wide = [
            m for m in stage.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)
        ]
        assert {m.dilation for m in wide} == {(max(expected, 1),) * 2}
    undilated = build_backbone(name).trunk
    assert undilated.state_dict().keys() == encoder.trunk.state_dict().keys()


def test_zero_init_makes_every_residual_block_begin_as_its_shortcut():
    zero = build_backbone("resnet18", zero_init_residual=True)
    assert all(not block.bn2.weight.any() for block in (*zero.trunk.layer1, *zero.trunk.layer4))
    one = build_backbone("resnet18")
    assert all(block.bn2.weight.eq(1).all() for block in (*one.trunk.layer1, *one.trunk.layer4))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_adapted_weights_keep_the_scale_of_activations(tmp_path, channels):
    torch.manual_seed(0)
    rgb = build_backbone("resnet18").eval()
    save_file(rgb.trunk.state_dict(), tmp_path / "rgb.safetensors")
    encoder = build_backbone("resnet18", in_channels=channels, weights=tmp_path / "rgb.safetensors")
    encoder.eval()
    grey = images(n=4, channels=1)
    expected = rgb(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(grey.expand(-1, channels, -1, -1)), expected)
    # And nearly so for channels that differ by noise, as bands of one scene do.
    noisy = grey + 0.1 * torch.randn(4, channels, 64, 64)
    maps, maps_rgb = encoder.forward_stages(noisy), rgb.forward_stages(grey.expand(-1, 3, -1, -1))
    assert maps[0].std().item() == pytest.approx(maps_rgb[0].std().item(), rel=0.1)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet10t"])
def test_rgb_weights_of_timm_are_adapted_by_the_same_rule(tmp_path, name):
    plain = timm.create_model(name, num_classes=7)  # with a classifier to be dropped
    first = plain.pretrained_cfg["first_conv"] + ".weight"
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "w.pth")
    encoder = build_backbone(name, in_channels=4, weights=tmp_path / "w.pth")
    expected = adapt_channels(plain.state_dict()[first], 4)
    assert torch.equal(encoder.trunk.state_dict()[first], expected)


def test_weights_come_back_from_a_wrapped_checkpoint(tmp_path):
    source = build_backbone("resnet18", image_size=32)
    state = {f"module.encoder.{key}": value for key, value in source.state_dict().items()}
    state["module.head.layers.0.weight"] = torch.ones(2, 2)
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "last.ckpt")
    encoder = build_backbone("resnet18", weights=tmp_path / "last.ckpt")
    assert encoder.card()["stem"] == "cifar"  # read off the weights
    x = images(size=32)
    assert torch.equal(encoder.eval()(x), source.eval()(x))


def test_a_checkpoint_of_another_architecture_is_refused_in_one_line(tmp_path):
    path = tmp_path / "r50.safetensors"
    save_file(build_backbone("resnet50").state_dict(), path)
    with pytest.raises(InputError) as error:
        build_backbone("resnet18", weights=path)
    message = str(error.value)
    assert message.startswith(f"{path} does not fit resnet18: ")
    assert "198 do not belong to it (" in message
    assert "layer1.0.conv1.weight is 64x64x1x1, expected 64x64x3x3" in message
    assert "\n" not in message
    with pytest.raises(InputError, match=r"does not fit timm/test_vit: .* are missing"):
        build_backbone("test_vit", weights=path)


def test_weights_of_other_channels_or_another_stem_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(build_backbone("resnet18", in_channels=4).trunk.state_dict(), path)
    with pytest.raises(InputError, match=r"conv1.weight is 64x4x7x7, expected 64x3x7x7"):
        build_backbone("resnet18", weights=path)
    with pytest.raises(InputError, match=r"64x4x7x7, expected 64x4x3x3\); .* stem and number"):
        build_backbone("resnet18", in_channels=4, stem="cifar", weights=path)


def test_the_card_rebuilds_the_encoder():
    card = build_backbone("resnet18", in_channels=4, image_size=32).card()
    assert card == {
        "architecture": "resnet18",
        "in_channels": 4,
        "stem": "cifar",
        "image_size": 32,
        "output_stride": 32,
        "out_features": 512,
    }


def test_an_encoder_can_be_copied_for_a_momentum_update():
    encoder = build_backbone("test_resnet")
    twin = copy.deepcopy(encoder)
    twin.trunk.layer1[0].conv1.weight.data.zero_()
    assert encoder.trunk.layer1[0].conv1.weight.any()
    assert twin.card() == encoder.card()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnt50", ["unknown architecture 'resnt50'", "did you mean", "resnet50"]),
        ("timm/mobilnetv3_small_050", ["mobilenetv3_small_050"]),
        ("qqqqqqqq", ["timm.list_models()"]),
        ("resnet50.no_such_tag", ["no_such_tag"]),
        ("", ["unknown architecture ''"]),
    ],
)
def test_an_unknown_architecture_names_the_nearest(name, words):
    with pytest.raises(InputError) as error:
        build_backbone(name)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_vit", {"stem": "cifar"}, "CIFAR stem is for ResNets, and timm/test_vit is none"),
        ("test_vit", {"zero_init_residual": True}, "zero_init_residual is for ResNets"),
        ("test_vit", {"output_stride": 16}, "output_stride 16 is for torchvision's ResNets"),
        ("timm/resnet18", {"output_stride": 8}, "output_stride 8 is for torchvision's ResNets"),
        ("resnet18", {"output_stride": 8, "image_size": 32}, "with the cifar stem"),
        ("resnet18", {"weights": "a", "pretrained": True}, "not both"),
    ],
)
def test_options_that_do_not_suit_the_architecture_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        build_backbone(name, **options)


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="must be positive, got 0 and None"):
        build_backbone("resnet18", in_channels=0)
    with pytest.raises((ValueError, TypeError), match="small"):  # TypeError: beartype was faster
        build_backbone("resnet18", stem="small")
    with pytest.raises((ValueError, TypeError), match="output_stride"):
        build_backbone("resnet18", output_stride=4)
    encoder = build_backbone("test_resnet")
    with pytest.raises(ValueError, match=r"expects images \(n, 3, h, w\), got \(2, 4, 8, 8\)"):
        encoder(torch.ones(2, 4, 8, 8))
    with pytest.raises(ValueError, match=r"forward_stages is for ResNets"):
        build_backbone("test_vit", image_size=32).forward_stages(images(size=32))


@pytest.mark.parametrize("name", ["resnet18", "resnet10t"])
def test_pretrained_without_a_network_is_one_line(name, tmp_path, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"pretrained weights of .* cannot be had") as error:
        build_backbone(name, pretrained=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "module"), [("resnet18", "torchvision.models"), ("x", "timm")])
def test_a_missing_extra_says_what_to_install(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install cl-core\[images\]"):
        build_backbone(name)
