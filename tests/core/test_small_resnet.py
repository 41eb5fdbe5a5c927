"""Small residual networks: built by their name, saved and rebuilt like any other encoder."""

from __future__ import annotations

import pytest
import torch

from cl_core.errors import InputError
from cl_core.networks.backbones import build_backbone
from cl_core.networks.export import export_state_dict, load_encoder, save_encoder
from cl_core.networks.small_resnet import SmallResNet, small_resnet_widths


def images(n=3, channels=1, size=8, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_name_spells_the_widths():
    encoder = build_backbone("resnet-16-32-128", in_channels=1, image_size=8)
    assert encoder.out_features == 128
    assert encoder(images()).shape == (3, 128)
    assert [m.shape for m in encoder.forward_stages(images())] == [
        (3, 16, 8, 8),
        (3, 32, 4, 4),
        (3, 128, 2, 2),
    ]


@pytest.mark.parametrize(
    "name",
    ["resnet-", "resnet-0-4", "resnet-16-", "resnet-16-x", "resnet-16--4", "resnet", "resnet-pool"],
)
def test_a_name_without_widths_is_refused_as_unknown(name):
    assert small_resnet_widths(name) is None
    with pytest.raises(InputError, match="unknown architecture"):
        build_backbone(name)


def test_the_representation_is_the_mean_of_the_last_map():
    encoder = build_backbone("resnet-8-16", in_channels=3, image_size=32).eval()
    x = images(channels=3, size=32)
    torch.testing.assert_close(encoder(x), encoder.forward_features(x).mean((2, 3)))


def test_large_images_take_the_stem_of_stride_two():
    small, large = (
        build_backbone("resnet-8-16", image_size=s).forward_features(images(channels=3, size=96))
        for s in (64, 96)
    )
    assert (small.shape[-1], large.shape[-1]) == (48, 24)


def test_pooling_behind_the_stem_is_part_of_the_name():
    x = images(channels=3, size=64)
    plain, pooled, cifar = (
        build_backbone(name, stem=stem)
        for name, stem in (
            ("resnet-4-8", "imagenet"),
            ("resnet-pool-4-8", "imagenet"),
            ("resnet-pool-4-8", "cifar"),
        )
    )
    maps = [net.forward_features(x).shape[1:] for net in (plain, pooled, cifar)]
    assert maps == [(8, 16, 16), (8, 8, 8), (8, 32, 32)]
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in pooled.state_dict().items()
    }


def test_residual_branches_start_at_zero_if_asked():
    torch.manual_seed(0)
    net = SmallResNet((4, 8), in_channels=1, zero_init_residual=True).eval()
    block = net.get_submodule("layer2")[0]
    x = images(channels=4)
    torch.testing.assert_close(block(x), block.downsample(x).relu())
    plain = SmallResNet((4, 8), in_channels=1).eval().get_submodule("layer2")[0]
    assert not torch.allclose(plain(x), plain.downsample(x).relu())


def test_a_saved_network_is_rebuilt(tmp_path):
    encoder = build_backbone("resnet-8-16", in_channels=2, image_size=16).eval()
    save_encoder(tmp_path, encoder)
    again = load_encoder(tmp_path)
    assert again.card()["architecture"] == "resnet-8-16"
    assert torch.equal(again(images(channels=2)), encoder(images(channels=2)))
    with pytest.raises(InputError, match="torchvision has no resnet-8-16"):
        export_state_dict(encoder, "torchvision")


def test_weights_are_loaded_and_a_classifier_is_dropped(tmp_path):
    from safetensors.torch import save_file

    encoder = build_backbone("resnet-8-16", in_channels=3, image_size=32).eval()
    state = {k: v.contiguous() for k, v in encoder.trunk.state_dict().items()}
    save_file(state | {"fc.weight": torch.zeros(10, 16)}, tmp_path / "weights.safetensors")
    again = build_backbone("resnet-8-16", weights=tmp_path / "weights.safetensors").eval()
    assert again.card()["stem"] == "cifar"  # of 3x3 as well, so the image size decides
    x = images(channels=3, size=32)
    torch.testing.assert_close(again(x), encoder(x))


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match="at least one stage"):
        SmallResNet(())
