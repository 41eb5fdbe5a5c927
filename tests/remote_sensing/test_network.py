from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from cl_core.errors import InputError
from cl_core.networks.weights import adapt_channels
from cl_remote_sensing.networks.deeplab import ASPP, use_short_taps
from cl_remote_sensing.networks.network import (
    SegmentationNetwork,
    build_network,
    load_backbone,
    load_parts,
)

LAYOUTS = ("smp", "paper")


def small(**options) -> SegmentationNetwork:
    torch.manual_seed(options.pop("seed", 0))
    options = {"encoder": "resnet18", "bands": 4, "outputs": 64, "width": 16} | options
    return build_network(**options)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_papers_layout_has_the_official_number_of_weights():
    network = build_network(encoder="resnet50", bands=4, outputs=64, layout="paper")
    counts = {name: sum(p.numel() for p in part) for name, part in network.parts().items()}
    assert counts == {"backbone": 23_511_168, "encoder": 15_535_104, "decoder": 1_320_096}
    assert len(network.state_dict()) == 374
    official = [key for key in network.state_dict() if key.split(".")[0] in ("backbone", "aspp")]
    assert len(official) == 354
    convs = [m for m in network.backbone.trunk.layer4.modules() if isinstance(m, nn.Conv2d)]
    assert {(c.stride, c.dilation) for c in convs if c.kernel_size == (3, 3)} == {((1, 1), (2, 2))}


def test_the_smp_layout_answers_as_smp_does():
    torch.manual_seed(0)
    expected = smp.DeepLabV3Plus(
        "resnet18",
        encoder_weights=None,
        in_channels=4,
        classes=5,
        decoder_channels=16,
        decoder_atrous_rates=(6, 12, 18),
    ).eval()
    network = small(outputs=5).eval()
    x = images(2, 4, 64, 96)
    torch.testing.assert_close(network(x), expected(x), rtol=0, atol=0)
    assert sum(p.numel() for p in network.parameters()) == sum(
        p.numel() for p in expected.parameters()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [16, 8])
def test_features_have_the_stated_resolutions(layout, stride):
    network = small(layout=layout, output_stride=stride, bands=2, outputs=3).eval()
    encoded = network.encode(images(2, 2, 64, 96))
    assert encoded.low.shape == (2, 64, 16, 24)
    assert encoded.e.shape == (2, 16, 64 // stride, 96 // stride)
    assert encoded.size == (64, 96)
    low = network.decode(encoded, upsample=False)
    assert low.shape == (2, 3, 16, 24)
    expected = F.interpolate(low, size=(64, 96), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network.decode(encoded), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(73, 70), (33, 48)])
def test_images_of_any_size_are_mapped(layout, shape):
    network = small(layout=layout, outputs=3).eval()
    assert network(images(1, 4, *shape)).shape == (1, 3, *shape)


@pytest.mark.parametrize("bands", [1, 3, 7])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_number_of_bands_learns(layout, bands):
    network = small(layout=layout, bands=bands).train()
    network(images(2, bands, 64, 64)).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert silent == []


def test_the_pyramid_pools_the_whole_map():
    torch.manual_seed(0)
    aspp = ASPP(3, 4, (6, 12, 18)).eval()
    x = images(2, 3, 5, 5)
    parts = [branch(x) for branch in aspp.branches]
    pooled = F.interpolate(
        aspp.pool(F.adaptive_avg_pool2d(x, 1)), size=(5, 5), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(aspp(x), aspp.project(torch.cat([*parts, pooled], 1)))
    assert [b[0].dilation for b in aspp.branches] == [(1, 1), (6, 6), (12, 12), (18, 18)]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("edge", [4, 6, 7, 13])
def test_skipped_taps_change_neither_result_nor_gradient(edge, groups):
    torch.manual_seed(0)
    holder = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=6, dilation=6, groups=groups, bias=False, dtype=torch.float64)
    )
    weight = holder[0].weight
    x = images(2, 4, edge, edge - 1).double().requires_grad_()
    expected = holder(x)
    grads = torch.autograd.grad(expected.square().sum(), (x, weight))
    use_short_taps(holder)
    assert holder[0].weight is weight
    assert list(holder.state_dict()) == ["0.weight"]
    out = holder(x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), (x, weight)), grads)


def test_the_papers_layout_is_initialised_by_he():
    network = small(layout="paper", encoder="resnet34", bands=5)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 20_000:
            fan_in = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), name
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norms_have_the_momentum_asked_for(layout):
    for momentum in (0.1, 0.9):
        network = small(layout=layout, bn_momentum=momentum)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {m.momentum for m in norms} == {momentum}


def test_dropout_belongs_to_fine_tuning():
    def rates(**options) -> list[float]:
        network = small(layout="paper", **options)
        return [m.p for m in network.decoder.modules() if isinstance(m, nn.Dropout)]

    assert rates() == [0.0, 0.0]
    assert rates(fine_tuning=True) == [0.5, 0.1]
    aspp = [m.p for m in small(layout="paper").aspp.modules() if isinstance(m, nn.Dropout)]
    assert aspp == [0.5]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_card_rebuilds_the_network(layout):
    network = small(layout=layout, output_stride=8, bn_momentum=0.3, fine_tuning=True)
    again = build_network(**network.card)
    assert again.card == network.card
    again.load_state_dict(network.state_dict())
    x = images(1, 4, 32, 32)
    assert torch.equal(again.eval()(x), network.eval()(x))
    network.card["bands"] = 9  # a copy
    assert network.card["bands"] == 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_weight_is_in_one_part(layout):
    network = small(layout=layout)
    parts = [id(p) for part in network.parts().values() for p in part]
    assert sorted(parts) == sorted(id(p) for p in network.parameters())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("parts", "modules"),
    [
        ("backbone", {"backbone"}),
        ("encoder", {"backbone", "aspp"}),
        ("all", {"backbone", "aspp", "decoder"}),
    ],
)
def test_parts_are_handed_on_by_name(layout, parts, modules):
    source = small(layout=layout, seed=1).state_dict()
    target = small(layout=layout, outputs=5, fine_tuning=True, seed=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    done = load_parts(target, source, parts=parts)
    assert {key.split(".")[0] for key in done.loaded} == modules
    assert set(done.loaded) | set(done.fresh) == set(before)
    assert not set(done.loaded) & set(done.fresh)
    after = target.state_dict()
    assert all(torch.equal(after[key], source[key]) for key in done.loaded)
    assert all(torch.equal(after[key], before[key]) for key in done.fresh)
    assert any(not torch.equal(after[key], before[key]) for key in done.loaded)


def test_the_last_layer_is_never_loaded_and_a_methods_prefix_is_taken_off():
    source = {f"network.{key}": value for key, value in small(seed=1).state_dict().items()}
    source |= {"style_head.layers.0.weight": torch.zeros(3, 3)}
    done = load_parts(small(seed=2), source, parts="all")
    assert {key for key in done.fresh if not key.startswith("classifier.")} == set()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"bands": 3}, "trained on 3 bands, this network sees 4"),
        ({"encoder": "resnet34"}, "do not belong to it"),  # though it has all that is wanted
        ({"layout": "paper"}, "does not fit this network"),
        ({"width": 24}, "another shape"),
    ],
)
def test_parts_of_another_network_are_refused(source, message):
    target = small()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = small(**source).state_dict()
    with pytest.raises(InputError, match=message):
        load_parts(target, state)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bands", [3, 4])
def test_torchvisions_weights_fill_the_backbone(tmp_path, layout, bands):
    torch.manual_seed(3)
    trained = resnet18(weights=None)
    torch.save(trained.state_dict(), tmp_path / "resnet18.pth")
    network = small(layout=layout, bands=bands)
    load_backbone(network, tmp_path / "resnet18.pth")
    state = {
        key.removeprefix("backbone.").removeprefix("trunk."): value
        for key, value in network.state_dict().items()
        if key.startswith("backbone.")
    }
    assert torch.equal(state["layer4.1.conv2.weight"], trained.layer4[1].conv2.weight)
    assert torch.equal(state["conv1.weight"], adapt_channels(trained.conv1.weight, bands).detach())


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match="resnet34"):
        load_backbone(small(encoder="resnet34"), tmp_path / "resnet18.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet19"}, "did you mean .*resnet18"),
        ({"encoder": "resnet19", "layout": "paper"}, "did you mean"),
        ({"encoder": "vgg11"}, "vgg11 cannot be used at output stride 16"),
        ({"encoder": "tu-no_such_network"}, "tu-no_such_network"),
    ],
)
def test_encoders_that_cannot_be_had_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": 0}, "positive"),
        ({"output_stride": 32}, "16 or 8"),
        ({"bn_momentum": 0.0}, "bn_momentum"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_wrong_bands_and_lone_images_are_refused():
    network = small().train()
    with pytest.raises(ValueError, match=r"images \(b, 4, h, w\), got \(2, 3, 32, 32\)"):
        network(images(2, 3, 32, 32))
    with pytest.raises(ValueError, match="at least 2 images"):
        network(images(1, 4, 32, 32))
