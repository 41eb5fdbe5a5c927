"""MONAI's networks with domains, scores by MONAI, and inference; this file imports MONAI."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cl_medical.segmentation.backbones import Plan, build_backbone, plan_levels
from cl_medical.segmentation.domain_norm import domain_layers
from cl_medical.segmentation.inference import Inference, segment_grid
from cl_medical.segmentation.native import largest_components, to_native
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.scores import score_mask
from cl_medical.segmentation.volumes import Geometry

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "multidomain_seg.npz")


def plan(architecture="dynunet", filters=(4, 8, 16), dims=2):
    levels = len(filters)
    return Plan(
        architecture=architecture,
        spatial_dims=dims,
        in_channels=1,
        filters=filters,
        strides=((1,) * dims, *((2,) * dims,) * (levels - 1)),
        kernels=((3,) * dims,) * levels,
    )


def network(dims=2, domain_norm=True):
    torch.manual_seed(0)
    return MultiDomainNetwork(
        build_backbone(plan(dims=dims)), {"a": 2, "b": 3}, domain_norm=domain_norm
    ).eval()


@pytest.mark.parametrize("case", range(10))
def test_scores_equal_the_golden_ones_empty_masks_included(case):
    spacing = GOLDEN[f"met_{case}_spacing"].tolist()
    s = score_mask(GOLDEN[f"met_{case}_pred"], GOLDEN[f"met_{case}_gt"], spacing)
    values = [
        s.dice, s.sensitivity, s.specificity, s.mssd, s.assd, s.hd95, s.ravd, s.diagonal,
    ]  # fmt: skip
    np.testing.assert_allclose(
        values, GOLDEN[f"met_{case}_values"], rtol=1e-6, atol=1e-9, equal_nan=True
    )
    assert s.failed == np.isinf(GOLDEN[f"met_{case}_values"][4])


@pytest.mark.parametrize(
    ("architecture", "filters", "layers"),
    [
        ("dynunet", (4, 8, 16, 32), 14),
        ("unet", (4, 8, 16, 32), 14),
        ("basic_unet", (4, 4, 8, 16, 32), 18),
        ("segresnet", (8, 16, 32, 64), 25),
        ("attention_unet", (4, 8, 16, 32), 20),
    ],
)
def test_every_batch_norm_of_monais_networks_is_converted(architecture, filters, layers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AttentionUnet keeps instance norms without parameters
        net = MultiDomainNetwork(
            build_backbone(plan(architecture, filters)), {"a": 2, "b": 3}, domain_norm=True
        )
    assert len(domain_layers(net)) == layers
    out = net(torch.randn(3, 1, 32, 32), [1, 0, 1], levels=(-1,))
    assert {k: tuple(v.shape) for k, v in out.logits.items()} == {
        0: (1, 2, 32, 32),
        1: (2, 3, 32, 32),
    }
    assert out.maps[0].shape[:2] == (3, filters[-1])
    assert not any(module._forward_hooks for module in net.modules())
    names = [name for name, _ in net.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(net.parameters()))  # nothing hangs in it twice


@pytest.mark.parametrize("dims", [2, 3])
def test_an_added_domain_leaves_the_others_bit_identical_and_is_small(dims):
    net = network(dims)
    x = torch.randn(2, 1, *(16,) * dims, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = net(x, "b").logits[1]
    total = sum(p.numel() for p in net.parameters())
    added = net.add_domain("new", 2, copy_of="a")
    net.train()
    for parameter in net.parameters():
        parameter.requires_grad_(any(parameter is one for one in added))
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        net(x, "new").logits[2].square().mean().backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(x, "b").logits[1], before)
        assert not torch.equal(net(x, "new").logits[2], net(x, "a").logits[0])
    assert sum(p.numel() for p in added) < 0.1 * total


def test_a_coarse_axis_is_neither_pooled_nor_reached_across_at_first():
    strides, kernels = plan_levels(4, (32, 64, 64), (4.0, 1.0, 1.0))
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))


def test_slices_and_patches_give_probabilities_of_the_whole_image():
    flat = network(2)
    image = torch.randn(1, 5, 20, 13, generator=torch.Generator().manual_seed(0))
    slabs = list(segment_grid(flat, "b", image, torch.tensor([-1.0]), Inference(patch=(16, 16))))
    p = torch.cat([one for _, one in slabs])
    assert p.shape == (5, 3, 20, 13)
    torch.testing.assert_close(p.sum(1), torch.ones(5, 20, 13))
    deep = network(3)
    inference = Inference(patch=(8, 8, 8), overlap=0.5)
    slabs = list(segment_grid(deep, "b", image[:, :, :11], torch.tensor([-1.0]), inference))
    starts = [start for start, _ in slabs]
    p = torch.cat([one for _, one in slabs])
    assert p.shape == (5, 3, 11, 13)  # thinner than the patch
    assert starts == sorted(starts)
    torch.testing.assert_close(p.sum(1), torch.ones(5, 11, 13))


def test_sliding_patches_equal_monais_sliding_window():
    from monai.inferers import sliding_window_inference

    deep = network(3)
    x = torch.randn(1, 1, 12, 16, 8, generator=torch.Generator().manual_seed(3))
    slabs = segment_grid(
        deep, "a", x[0], torch.tensor([0.0]), Inference(patch=(8, 8, 8), overlap=0.5)
    )
    own = torch.cat([one for _, one in slabs]).transpose(0, 1)

    def predict(window):
        with torch.no_grad():
            return deep(window, "a").logits[0].softmax(1)

    theirs = sliding_window_inference(x, (8, 8, 8), 4, predict, overlap=0.5, mode="gaussian")
    torch.testing.assert_close(own, theirs[0], rtol=1e-3, atol=1e-4)


def test_resampling_slab_by_slab_equals_resampling_the_volume():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(7, 2, 6, 5, generator=g)
    geometry = Geometry(np.zeros((3, 2)), (11, 9, 8), (1.0, 1.0, 1.0), (7, 6, 5))
    slabs = iter([(0, p[:3]), (3, p[3:4]), (4, p[4:])])
    made = list(to_native(slabs, geometry))
    own = torch.cat([one for _, one in made])
    whole = F.interpolate(
        p.transpose(0, 1)[None], size=(11, 9, 8), mode="trilinear", align_corners=False
    )[0].transpose(0, 1)
    torch.testing.assert_close(own, whole)
    assert [start for start, _ in made] == np.cumsum([0, *(len(o) for _, o in made[:-1])]).tolist()


def test_flips_are_averaged():
    flat = network(2)
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = Inference(patch=(16, 16))
    [(_, p)] = segment_grid(flat, "a", image, torch.zeros(1), replace(plain, tta=True))
    flipped = [(), (-1,), (-2,), (-1, -2)]
    parts = []
    for axes in flipped:
        x = image.flip(axes) if axes else image
        [(_, one)] = segment_grid(flat, "a", x, torch.zeros(1), plain)
        parts.append(one.flip(axes) if axes else one)
    torch.testing.assert_close(p, torch.stack(parts).mean(0))


def test_the_largest_piece_of_each_class_stays():
    classes = np.zeros((6, 6, 1), np.uint8)
    classes[0, :3] = 1
    classes[4, 0] = 1
    classes[5, 5] = 2
    kept = largest_components(classes, 3)
    assert kept.sum() == 5
    assert kept[4, 0] == 0
    assert kept[5, 5] == 2
