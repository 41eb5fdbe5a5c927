"""Heat maps against the golden arrays and the class activation map they must equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cl_core.networks.backbones import build_backbone
from cl_medical.lesions.explain import grad_cam, heat_maps, overlay

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "supercon.npz", allow_pickle=False)


def test_the_heat_map_is_the_golden_one():
    act, grad = torch.from_numpy(GOLDEN["cam_act"]), torch.from_numpy(GOLDEN["cam_grad"])
    torch.testing.assert_close(
        grad_cam(act, grad), torch.from_numpy(GOLDEN["cam"]), rtol=1e-6, atol=1e-8
    )


def test_a_map_that_nothing_speaks_for_stays_zero():
    act = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    grad = torch.full_like(act, -1.0)
    assert grad_cam(act, grad).eq(0).all()
    grad[1] = 1.0
    assert grad_cam(act, grad)[1].max() == 1


def test_behind_a_linear_layer_it_is_the_class_activation_map():
    torch.manual_seed(0)
    encoder = build_backbone("resnet-4-8", image_size=32, stem="imagenet").eval()
    layer = torch.nn.Linear(8, 3)
    images = torch.randn(4, 3, 32, 32)
    classes = torch.tensor([0, 2, 1, 2])
    with torch.no_grad():
        maps = encoder.forward_features(images)
        cam = torch.einsum("nk,nkhw->nhw", layer.weight[classes], maps).clamp_min(0)
        cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)
        wanted = torch.nn.functional.interpolate(cam[:, None], (32, 32), mode="bilinear")[:, 0]
    found = heat_maps(encoder.forward_features, layer, images, classes)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_features_without_positions_are_refused():
    with pytest.raises(ValueError, match="heat maps need maps"):
        heat_maps(
            lambda x: x.flatten(1),
            torch.nn.Identity(),
            torch.zeros(1, 3, 4, 4),
            torch.tensor([0]),
        )


def test_where_the_map_is_zero_the_picture_is_unchanged():
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 6, 5), generator=g, dtype=torch.uint8)
    heat = torch.zeros(6, 5)
    heat[2, 3] = 1.0
    picture = overlay(image, heat)
    changed = (picture != image.permute(1, 2, 0).numpy()).any(axis=2)
    assert changed.sum() == 1
    assert changed[2, 3]
