from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cl_vision.condensation import legacy_augmentation as legacy
from cl_vision.condensation.chunks import match_classes
from cl_vision.condensation.convnet import ConvNet
from cl_vision.condensation.dynamics import (
    feature_cosines,
    gradient_share,
    kernel_distance,
    tangent_kernel,
)
from cl_vision.condensation.gradient_distance import gradient_distance, row_distances
from cl_vision.condensation.loop import Loop, outer_iteration
from cl_vision.condensation.matching import (
    class_gradients,
    dc_loss,
    dcc_loss,
    mean_gradient,
    uses_contrast,
)
from cl_vision.condensation.siamese import apply, draw_of_seed
from cl_vision.condensation.table import STRATEGY

ARRAYS = np.load(Path(__file__).parents[2] / "golden" / "dcc.npz", allow_pickle=False)
OPERATIONS = ("brightness", "saturation", "contrast", "crop", "cutout", "flip", "scale", "rotate")
KINDS = ("color", "crop", "cutout", "flip", "scale", "rotate")


def golden(name: str) -> Tensor:
    return torch.from_numpy(np.array(ARRAYS[name]))


def network(prefix: str, *shape, **options) -> ConvNet:
    made = ConvNet(*shape, **options).double()
    names = sorted(
        n for n in ARRAYS.files if n.startswith(f"{prefix}p") and n[len(prefix) + 1].isdigit()
    )
    with torch.no_grad():
        for parameter, name in zip(made.parameters(), names, strict=True):
            parameter.copy_(golden(name))
    return made


@pytest.mark.parametrize("kind", ["conv", "linear", "ln3d", "norm1d", "bias", "edge"])
def test_distance_and_its_derivative(kind):
    gs = golden(f"dist_{kind}_gs").requires_grad_()
    distance = gradient_distance([gs], [golden(f"dist_{kind}_gr")])
    (slope,) = torch.autograd.grad(distance, gs)
    assert distance.item() == pytest.approx(float(golden(f"dist_{kind}_value")), rel=1e-9)
    torch.testing.assert_close(slope, golden(f"dist_{kind}_dgs"), rtol=1e-9, atol=1e-12)


def test_rows_at_the_edges():
    rows = row_distances(golden("dist_edge_gs"), golden("dist_edge_gr"))
    torch.testing.assert_close(rows, golden("dist_edge_rows"), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_metrics_of_a_whole_list(metric):
    kinds = ("conv", "norm1d", "bias", "linear")
    gs, gr = ([golden(f"dist_{kind}_{side}") for kind in kinds] for side in ("gs", "gr"))
    found = gradient_distance(gs, gr, metric=metric)
    assert found.item() == pytest.approx(float(golden(f"match_{metric}")), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "norm", "activation"),
    [("in3", "instance", "relu"), ("mnist", "instance", "relu"), ("gn", "group", "leakyrelu")],
)
def test_networks(name, norm, activation):
    channels, classes, width, depth, h, w = golden(f"net_{name}_cfg").tolist()
    made = network(
        f"net_{name}_",
        channels,
        classes,
        (h, w),
        width=width,
        depth=depth,
        norm=norm,
        activation=activation,
    )
    x = golden(f"net_{name}_x").double()
    torch.testing.assert_close(made(x), golden(f"net_{name}_logits"), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(made.embed(x), golden(f"net_{name}_feat"), rtol=1e-8, atol=1e-10)


def losses_case(name):
    prefix = f"loss_{name}_"
    classes, ipc, width, depth, size = golden(f"{prefix}cfg").tolist()
    norm = "group" if name == "b" else "instance"
    made = network(prefix, 3, classes, (size, size), width=width, depth=depth, norm=norm)
    real = list(golden(f"{prefix}x_real").double().split(golden(f"{prefix}nreal").tolist()))
    x = golden(f"{prefix}x_syn").double().requires_grad_()
    synthetic = list(x.split(ipc))
    plain = real, list(x.detach().split(ipc))
    if name == "dsa":

        def augmented(label, images):
            kind = KINDS[int(golden(f"{prefix}kind")[label])]
            known = {"color": "color_u", "crop": "crop_t", "cutout": "cutout_o"}
            if kind in known:
                return apply(images, kind, golden(prefix + known[kind])[label : label + 1])
            return apply(images, kind, torch.tensor([[0.2]], dtype=torch.float64))  # a flip

        real = [augmented(k, images) for k, images in enumerate(real)]
        synthetic = [augmented(k, images) for k, images in enumerate(synthetic)]
    return prefix, made, real, synthetic, x, plain


@pytest.mark.parametrize("name", ["a", "b", "dsa"])
def test_losses_and_image_gradients(name):
    prefix, made, real, synthetic, x, plain = losses_case(name)
    for kind, loss in (("dc", dc_loss), ("dcc", dcc_loss)):
        value = loss(made, real, synthetic)
        (slope,) = torch.autograd.grad(value, x, retain_graph=True)
        assert value.item() == pytest.approx(float(golden(f"{prefix}{kind}_loss")), rel=1e-8)
        torch.testing.assert_close(slope, golden(f"{prefix}{kind}_dx"), rtol=1e-7, atol=1e-9)
    real_mean = mean_gradient(class_gradients(made, real))
    own_mean = mean_gradient(class_gradients(made, synthetic))
    for k, (a, b) in enumerate(zip(real_mean, own_mean, strict=True)):
        torch.testing.assert_close(a, golden(f"{prefix}greal_sum_{k:02d}"), rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(b, golden(f"{prefix}gsyn_sum_{k:02d}"), rtol=1e-8, atol=1e-12)
        layer = gradient_distance([b], [a]).item()
        assert layer == pytest.approx(float(golden(f"{prefix}dcc_per_layer")[k]), rel=1e-8)
    share = gradient_share(made, synthetic[0].detach(), real)
    torch.testing.assert_close(share, golden(f"{prefix}diag_dot_share"), rtol=1e-8, atol=0)
    cosines = feature_cosines(made.embed, plain[1][0], plain[0])
    torch.testing.assert_close(cosines, golden(f"{prefix}diag_feat_cos"), rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", ["a", "b", "dsa"])
@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("chunks", [(None, None), (2, 1), (3, 5), (99, 99)])
def test_chunks_give_the_same_gradient(name, contrast, chunks):
    prefix, made, real, synthetic, x, _ = losses_case(name)
    found = match_classes(
        made, real, synthetic, contrast=contrast, real_chunk=chunks[0], syn_chunk=chunks[1]
    )
    (slope,) = torch.autograd.grad(torch.cat(synthetic), x, found.gradient)
    kind = "dcc" if contrast else "dc"
    assert found.loss.item() == pytest.approx(float(golden(f"{prefix}{kind}_loss")), rel=1e-12)
    error = (slope - golden(f"{prefix}{kind}_dx")).norm() / slope.norm()
    assert error < 1e-13
    assert found.averaged.item() == pytest.approx(float(golden(f"{prefix}dcc_loss")), rel=1e-12)


def test_loop():
    classes, ipc, _, width, depth, size, inner, epochs, ow, iw, outer, contrast = golden(
        "loop_cfg"
    ).tolist()
    made = network("loop_", 3, classes, (size, size), width=width, depth=depth)
    batches = iter(golden("loop_x_real").double())
    images = golden("loop_x_syn0").double().requires_grad_()
    loop = Loop(
        inner_loop=inner,
        network_epochs=epochs,
        outer_warmup=ow,
        inner_warmup=iw,
        contrast=bool(contrast),
    )
    steps = outer_iteration(
        images,
        torch.arange(classes).repeat_interleave(ipc),
        made,
        torch.optim.SGD([images], lr=0.1, momentum=0.5),
        loop,
        outer=outer,
        real_batches=lambda: list(next(batches)),
        generator=torch.Generator(),
    )
    assert [used for *_, used in steps] == golden("loop_contrastive_used").bool().tolist()
    losses = torch.stack([loss for loss, *_ in steps])
    torch.testing.assert_close(losses, golden("loop_losses"), rtol=1e-6, atol=0)
    torch.testing.assert_close(images.detach(), golden("loop_x_syn_final"), rtol=1e-6, atol=1e-9)
    weights = torch.cat([p.detach().flatten() for p in made.parameters()])
    torch.testing.assert_close(weights, golden("loop_final_params"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["ipc1", "ipc10", "ipc50", "toy"])
def test_warm_up(name):
    outer_warmup, inner_warmup, inner = golden(f"sched_{name}_cfg").tolist()
    found = [
        [
            uses_contrast(o, i, outer_warmup=outer_warmup, inner_warmup=inner_warmup)
            for i in range(inner)
        ]
        for o in golden("sched_outer_idx").tolist()
    ]
    assert found == golden(f"sched_{name}").bool().tolist()


def test_tangent_kernels():
    kernels = []
    for place, when in enumerate(("before", "after")):
        made = network(f"kv_{when}_", 3, 3, (8, 8), width=3, depth=2)
        kernel = tangent_kernel(made, golden("kv_x").double())
        torch.testing.assert_close(kernel, golden(f"kv_K{place}"), rtol=1e-8, atol=1e-10)
        kernels.append(kernel)
    assert kernel_distance(*kernels) == pytest.approx(float(golden("kv_distance")), rel=1e-8)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_augmentation(operation):
    for draws in ("siam", "indep"):
        y = apply(golden("aug_x"), operation, golden(f"aug_{operation}_{draws}_draw"))
        torch.testing.assert_close(y, golden(f"aug_{operation}_{draws}_y"), rtol=0, atol=2e-5)
    if f"aug_{operation}_siam_vjp" in ARRAYS.files:
        x = golden("aug_x").requires_grad_()
        y = apply(x, operation, golden(f"aug_{operation}_siam_draw")[:1])
        (slope,) = torch.autograd.grad((y * golden("aug_cotangent")).sum(), x)
        torch.testing.assert_close(slope, golden(f"aug_{operation}_siam_vjp"), rtol=0, atol=1e-4)


def test_draws_of_an_integer_seed():
    x = golden("aug_x")[:2]
    for k, seed in enumerate(golden("dsa_seed").tolist()):
        drawn = draw_of_seed(STRATEGY, 2, (16, 16), seed)
        assert drawn.name == KINDS[int(golden("dsa_choice")[k])]
        torch.testing.assert_close(apply(x, *drawn), golden("dsa_y")[k], rtol=0, atol=2e-5)


def test_legacy_augmentation():
    x = golden("legacy_x")[0]
    mean = x.mean((1, 2))
    found = {
        "crop": legacy.crop(x, mean, *golden("legacy_crop_draw").tolist()),
        "scale": legacy.scale(x, *golden("legacy_scale_draw").tolist()),
        "rotate": legacy.rotate(x, mean, golden("legacy_rotate_draw").item()),
    }
    for name, y in found.items():
        torch.testing.assert_close(y, golden(f"legacy_{name}_y")[0], rtol=0, atol=1e-4)


def test_every_group_of_vectors_is_read():
    groups = {name.split("_")[0] for name in ARRAYS.files}
    read = {"dist", "match", "net", "loss", "loop", "sched", "kv", "aug", "dsa", "legacy"}
    assert groups == read
