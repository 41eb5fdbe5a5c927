"""The method's equations, its step, and two real processes against one.

The file is also the script that the ranks run: ``torchrun tests/remote_sensing/test_glcnet.py
FOLDER``.
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from two_ranks import run_two_ranks

from cl_core.config import TrainerConfig
from cl_core.distributed import rank, world_size
from cl_core.loader import make_loader
from cl_core.networks.heads import build_head
from cl_core.runs import Run
from cl_core.seeding import seed_everything
from cl_core.training import fit
from cl_remote_sensing.hyper import GLCNetHyper
from cl_remote_sensing.methods.glcnet import (
    GLCNet,
    glcnet_loss,
    region_means,
    style_contrast,
    style_vector,
)
from cl_remote_sensing.networks.deeplab import ASPP, PaperDecoder
from cl_remote_sensing.networks.network import SegmentationNetwork, build_network
from cl_remote_sensing.views.two_views import TwoViews, ViewPair

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "glcnet.npz")
DTYPES = [(torch.float64, 1e-9), (torch.float32, 1e-5)]
RANKS, PAIRS, STEPS = 2, 5, 4


def golden(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name])).to(dtype)


def close(actual: Tensor, name: str, tolerance: float) -> None:
    expected = golden(name, actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def golden_head(name: str, dtype: torch.dtype) -> nn.Module:
    weights = [golden(f"{name}_{part}", dtype) for part in ("w0", "b0", "w1", "b1")]
    hidden, into = weights[0].shape
    head = build_head("mlp", into, len(weights[3]), hidden=hidden).to(dtype)
    with torch.no_grad():
        for parameter, value in zip(head.parameters(), weights, strict=True):
            parameter.copy_(value)
    return head


# The style.


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_the_global_term_and_its_gradients_are_the_golden_ones(dtype, tolerance):
    f1, f2 = (golden(f"style_f{v}", dtype).requires_grad_() for v in (1, 2))
    head = golden_head("style", dtype)
    s1, s2 = style_vector(f1), style_vector(f2)
    close(s1.detach(), "style_s1", tolerance)
    close(s2.detach(), "style_s2", tolerance)
    q, k = head(s1), head(s2)
    close(q.detach(), "style_q", tolerance)
    close(k.detach(), "style_k", tolerance)
    loss = style_contrast(q, k, float(GOLDEN["style_tau"]))
    close(loss.detach(), "style_loss", tolerance)
    loss.backward()
    close(f1.grad, "style_grad_f1", tolerance)
    close(f2.grad, "style_grad_f2", tolerance)
    close(next(head.parameters()).grad, "style_grad_w0", tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_the_styles_gradient_is_the_golden_one(dtype, tolerance):
    f1 = golden("style_f1", dtype).requires_grad_()
    (style_vector(f1) * golden("style_contr_w", dtype)).sum().backward()
    close(f1.grad, "style_contr_grad", tolerance)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 4))
@settings(deadline=None, max_examples=20)
def test_the_style_is_mean_and_unbiased_variance(b, c, h, w):
    e = draw(b, c, h, w, seed=b + 7 * c)
    s = style_vector(e)
    assert s.shape == (b, 2 * c)
    for i in range(b):
        for j in range(c):
            values = e[i, j].flatten().tolist()
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
            assert s[i, j].item() == pytest.approx(mean, abs=1e-12)
            assert s[i, c + j].item() == pytest.approx(variance, abs=1e-12)
    torch.testing.assert_close(style_vector(e, style=False), s[:, :c])


def test_the_style_does_not_know_where_things_are():
    e = draw(2, 3, 4, 4)
    shuffled = e.flatten(2)[..., torch.randperm(16)].view(2, 3, 4, 4)
    torch.testing.assert_close(style_vector(e), style_vector(shuffled))


def test_a_single_position_has_no_style_but_a_mean():
    with pytest.raises(ValueError, match="single position has no variance"):
        style_vector(draw(2, 3, 1, 1))
    assert style_vector(draw(2, 3, 1, 1), style=False).shape == (2, 3)


# The contrast.


def slow_style_contrast(z1: Tensor, z2: Tensor, tau: float, eps: float) -> float:
    z = [v / v.norm() for v in torch.cat([z1, z2])]
    n, total = len(z1), 0.0
    for i in range(2 * n):
        p = (i + n) % (2 * n)
        s = {k: float(z[i] @ z[k]) / tau for k in range(2 * n) if k != i}
        total += math.log(eps + sum(math.exp(v) for k, v in s.items() if k != p)) - s[p]
    return total / (2 * n)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("case", range(int(GOLDEN["ntx_count"])))
def test_the_contrast_and_its_gradients_are_the_golden_ones(case, dtype, tolerance):
    z1, z2 = (golden(f"ntx{case}_z{v}", dtype).requires_grad_() for v in "ij")
    tau = float(GOLDEN[f"ntx{case}_tau"])
    loss = style_contrast(z1, z2, tau)
    close(loss.detach(), f"ntx{case}_loss", tolerance)
    if dtype == torch.float32:
        close(loss.detach(), f"ntx{case}_loss_f32", 1e-5)
    loss.backward()
    close(z1.grad, f"ntx{case}_grad_zi", tolerance)
    close(z2.grad, f"ntx{case}_grad_zj", tolerance)
    textbook = style_contrast(z1, z2, tau, positive_in_denominator=True).detach()
    close(textbook, f"ntx{case}_loss_with_positive_in_denominator", tolerance)


@given(st.integers(2, 6), st.integers(1, 5), st.floats(0.05, 5), st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_the_contrast_equals_the_equation(n, d, tau, seed):
    z1, z2 = draw(2, n, d, seed=seed)
    expected = slow_style_contrast(z1, z2, tau, 1e-8)
    assert style_contrast(z1, z2, tau).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_eps_is_added_to_the_negatives():
    z = torch.eye(2, dtype=torch.float64)[:, :1].repeat(1, 2)  # one row is 0: similarity 0
    assert style_contrast(z, z, 0.5, eps=1.0).item() == pytest.approx(slow_zero(eps=1.0))


def slow_zero(eps: float) -> float:
    # Row 0 has its partner at similarity 1, row 1 (zeros) at 0; negatives are 0 everywhere.
    return (2 * (math.log(eps + 2) - 1 / 0.5) + 2 * math.log(eps + 2)) / 4


def test_the_contrast_knows_neither_order_nor_length_nor_which_view_is_first():
    z1, z2 = draw(2, 6, 4)
    loss = style_contrast(z1, z2, 0.3)
    order = torch.randperm(6)
    torch.testing.assert_close(style_contrast(z1[order], z2[order], 0.3), loss)
    torch.testing.assert_close(style_contrast(z2, z1, 0.3), loss)
    torch.testing.assert_close(style_contrast(z1 * draw(6, 1).exp(), z2, 0.3), loss)


def test_ignorance_costs_the_logarithm_of_the_negatives():
    z1, z2 = draw(2, 128, 512)
    assert style_contrast(z1, z2).item() == pytest.approx(math.log(2 * 128 - 2), abs=0.05)


def test_the_contrasts_gradient_is_that_of_its_value():
    z = draw(2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: style_contrast(z[0], z[1], 0.2), (z,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_contrast_is_finite_for_equal_rows_when_cold(dtype):
    z = torch.ones(5, 4, dtype=dtype).requires_grad_()
    loss = style_contrast(z, z, 0.01)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(8), abs=1e-3)
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize(
    ("z1", "z2", "options", "message"),
    [
        (draw(1, 3), draw(1, 3), {}, "at least 2 pairs"),
        (draw(3, 3), draw(3, 3), {"temperature": 0.0}, "positive"),
        (draw(3, 3), draw(3, 3), {"eps": 0.0}, "positive"),
    ],
)
def test_the_contrast_refuses(z1, z2, options, message):
    with pytest.raises(ValueError, match=message):
        style_contrast(z1.flatten(1), z2.flatten(1), **options)


# The regions.


def golden_centers(view: int) -> Tensor:
    return torch.stack([golden(f"sel{t}_center{view}", torch.int64) for t in range(3)])


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_the_local_term_and_its_gradients_are_the_golden_ones(dtype, tolerance):
    maps = [golden(f"loc_map{v}", dtype).requires_grad_() for v in (1, 2)]
    pools = [
        region_means(m, golden_centers(v), region_size=int(GOLDEN["sel_patch"]))
        for v, m in zip((1, 2), maps, strict=True)
    ]
    head = golden_head("loc", dtype)
    z1, z2 = (head(pool) for pool in pools)
    loss = style_contrast(z1, z2, float(GOLDEN["loc_tau"]))
    for pool in pools:
        pool.retain_grad()
    loss.backward()
    for v, pool, z in ((1, pools[0], z1), (2, pools[1], z2)):
        close(pool.detach(), f"loc_pool{v}", tolerance)
        close(z.detach(), f"loc_z{v}", tolerance)
        close(pool.grad, f"loc_grad_pool{v}", tolerance)
    close(loss.detach(), "loc_loss", tolerance)
    close(maps[0].grad.sum((-2, -1)), "loc_grad_map1_sum", tolerance)
    total = glcnet_loss(golden("style_loss", dtype), loss.detach(), float(GOLDEN["total_lambda"]))
    close(total, "total_loss", tolerance)


@pytest.mark.parametrize("low", [(7, 7), (14, 14), (56, 40)])
def test_the_means_of_coarse_features_are_those_of_features_scaled_up(low):
    features = draw(2, 3, *low).requires_grad_()
    centers = torch.tensor([[[6, 6], [50, 9], [30, 31]], [[22, 50], [49, 49], [6, 40]]])
    up = F.interpolate(features, size=(56, 56), mode="bilinear", align_corners=True)
    expected = torch.stack(
        [up[i, :, r - 6 : r + 6, c - 6 : c + 6].mean((1, 2)) for i in (0, 1) for r, c in centers[i]]
    )
    means = region_means(features, centers, region_size=12, size=56)
    torch.testing.assert_close(means, expected, rtol=1e-12, atol=1e-12)
    weights = draw(6, 3, seed=1)
    (grad,) = torch.autograd.grad((means * weights).sum(), features)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12)


def test_regions_beyond_the_border_are_refused():
    features = draw(1, 2, 16, 16)
    for center in ((3, 8), (8, 13)):
        with pytest.raises(ValueError, match="leaves the image of 16 x 16"):
            region_means(features, torch.tensor([[center]]), region_size=8)
    assert region_means(features, torch.tensor([[[4, 12]]]), region_size=8).shape == (1, 2)


# The method.


def method(hyper: GLCNetHyper | None = None, **options) -> GLCNet:
    torch.manual_seed(0)
    network = build_network(
        encoder="resnet18", bands=3, outputs=64, width=16, **({"layout": "smp"} | options)
    )
    return GLCNet(network, hyper or GLCNetHyper(region_size=8)).train()


def pairs(count: int, seed: int = 0, size: int = 32, region: int = 8) -> ViewPair:
    g = torch.Generator().manual_seed(seed)
    half = region // 2
    return ViewPair(
        torch.randn(count, 3, size, size, generator=g),
        torch.randn(count, 3, size, size, generator=g),
        torch.randint(half, size - half + 1, (count, 4, 2), generator=g),
        torch.randint(half, size - half + 1, (count, 4, 2), generator=g),
    )


def without_dropout(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0


@pytest.mark.parametrize("layout", ["smp", "paper"])
def test_a_step_is_the_papers(layout):
    model, batch = method(layout=layout), pairs(4)
    without_dropout(model)
    terms = model.objective(batch)
    network, encoded, maps = model.network, [], []
    for view in (batch.view1, batch.view2):  # batch norm sees one view after the other
        encoded.append(network.encode(view).e)
        maps.append(network(view))
    global_term = style_contrast(*(model.style_head(style_vector(e)) for e in encoded))
    rows = [
        torch.stack(
            [m[i, :, r - 4 : r + 4, c - 4 : c + 4].mean((1, 2)) for i in range(4) for r, c in at[i]]
        )
        for m, at in zip(maps, (batch.centers1, batch.centers2), strict=True)
    ]
    local_term = style_contrast(*(model.region_head(row) for row in rows))
    torch.testing.assert_close(terms["global"], global_term, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms["local"], local_term, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms["loss"], (terms["global"] + terms["local"]) / 2)
    assert terms["loss"].requires_grad
    assert not terms["embedding"].requires_grad
    torch.testing.assert_close(terms["embedding"], style_vector(encoded[0]), rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_both_views():
    model, batch = method(), pairs(4)
    views = [view.requires_grad_() for view in batch[:2]]
    model.objective(batch)["loss"].backward()
    assert all(view.grad.abs().amax((1, 2, 3)).min() > 0 for view in views)


def test_the_weight_is_that_of_the_global_term():
    model, batch = method(GLCNetHyper(region_size=8, global_weight=0.9)), pairs(4)
    terms = model.objective(batch)
    expected = 0.9 * terms["global"] + 0.1 * terms["local"]
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize(
    ("switch", "terms", "without"),
    [
        ("no_global", {"local"}, "style_head"),
        ("no_local", {"global"}, "region_head"),
        ("no_style", {"global", "local"}, None),
    ],
)
def test_switches_leave_a_term_out_and_no_weight_without_gradient(switch, terms, without):
    model = method(GLCNetHyper(region_size=8, **{switch: True}))
    found = model.objective(pairs(4))
    assert set(found) == terms | {"loss", "embedding"}
    assert found["embedding"].shape == (4, 16 if switch == "no_style" else 32)
    found["loss"].backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []  # or DistributedDataParallel would wait for it
    if without is not None:
        assert getattr(model, without) is None
        assert found["loss"].item() == pytest.approx(found[next(iter(terms))].item())


def test_the_projectors_have_the_official_number_of_weights():
    torch.manual_seed(0)
    network = build_network(encoder="resnet18", bands=3, outputs=64, layout="paper")
    model = GLCNet(network, GLCNetHyper())
    counts = [sum(p.numel() for p in m.parameters()) for m in (model.style_head, model.region_head)]
    assert counts == [147_776, 8_320]


def test_the_region_scales_with_the_view_unless_given():
    model = method(GLCNetHyper())  # 0.214 of 32 is 6
    batch = pairs(4, region=6)
    assert torch.isfinite(model.objective(batch)["loss"])
    batch.centers1[0, 0] = torch.tensor([2, 2])
    with pytest.raises(ValueError, match="region of 6 pixels"):
        model.objective(batch)


def test_images_of_one_position_are_refused():
    with pytest.raises(ValueError, match="single position"):
        method().objective(pairs(4, size=16))


def test_losses_stay_in_single_precision_under_autocast():
    model, batch = method(), pairs(4)
    without_dropout(model)
    exact = model.objective(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.network.encode(batch.view1).e.dtype == torch.bfloat16
        terms = model.objective(batch)
    terms["loss"].backward()
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert terms["loss"].item() == pytest.approx(exact["loss"].item(), abs=0.3)
    z1, z2 = draw(2, 8, 16).float()
    plain = style_contrast(z1, z2, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(style_contrast(z1, z2, 0.1), plain)


class Stages(nn.Module):
    """The image and its features at strides 2, 4 and 8, as smp's encoders give them."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 6, 8, 12)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


def tiny(**options) -> GLCNet:
    torch.manual_seed(0)
    card = {"bands": 3, "outputs": 8, "width": 8}
    network = SegmentationNetwork(
        Stages(),
        ASPP(12, 8, (1, 2, 3), dropout=0.0),
        PaperDecoder(8, 8),
        nn.Conv2d(8, 8, 1),
        card,
    )
    return GLCNet(network, GLCNetHyper(region_size=8, **options)).train()


class Tiles(Dataset[ViewPair]):
    """Tiles that differ in their texture."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        self.tiles = F.interpolate(torch.rand(16, 3, 5, 5, generator=g), size=40, mode="bilinear")
        self.make = TwoViews(
            size=32, tile=40, colors=("undefined",) * 3, region_size=8, scale=(0.6, 1.0)
        )

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, at: int) -> ViewPair:
        return self.make(self.tiles[at], torch.ones(40, 40, dtype=torch.bool))


def train(folder: Path, epochs: int) -> tuple[GLCNet, list[dict]]:
    seed_everything(0)
    model = tiny(warmup=0.1, learning_rate=5e-3)
    loader = make_loader(Tiles(), batch_size=8, shuffle=True, workers=0, seed=0)
    trainer = TrainerConfig(progress=False)
    with Run.create(folder, {"epochs": epochs}) as run:
        result = fit(model, loader, run=run, epochs=epochs, seed=0, trainer=trainer)
    return model, result.history


def test_a_short_training_lowers_both_terms(tmp_path):
    model, history = train(tmp_path / "run", 20)
    for term in ("global", "local", "loss"):
        first, last = history[0][f"train/{term}"], history[-1][f"train/{term}"]
        assert last < first - 0.2, term
    optimizer = model.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.99), 1e-5)
    assert group["lr"] == pytest.approx(0, abs=1e-9)  # the cosine's end, after the last step
    rates = [row["learning_rate"] for row in history]
    assert max(rates) == pytest.approx(5e-3, rel=0.02)
    assert rates.index(max(rates)) in (1, 2)  # 4 of 40 steps of warm-up


# Two processes.


def two_rank_batch() -> ViewPair:
    return pairs(RANKS * PAIRS, seed=5)


def train_joint(rows: slice, *, gather: bool) -> dict[str, Tensor]:
    """Steps on these rows; batch norm in eval mode, so that rows do not meet before the loss."""
    model = tiny().double().eval()
    model.gather = gather
    wrapped: nn.Module = Objective(model)
    if world_size() > 1:
        wrapped = DistributedDataParallel(wrapped)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batch = two_rank_batch()
    mine = ViewPair(*(t[rows].double() if t.is_floating_point() else t[rows] for t in batch))
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = wrapped(mine)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return {"losses": torch.stack(losses), "weights": weights}


class Objective(nn.Module):
    def __init__(self, model: GLCNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ViewPair) -> Tensor:
        return self.model.objective(batch)["loss"]


def run_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    mine = slice(rank() * PAIRS, (rank() + 1) * PAIRS)
    seen = {str(gather): train_joint(mine, gather=gather) for gather in (True, False)}
    torch.save(seen, folder / f"{rank()}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    return run_two_ranks(__file__, folder)


def test_two_ranks_train_as_one_process_with_the_joint_batch(ranks):
    joint = train_joint(slice(None), gather=True)
    for of_rank in ranks:
        for figure, expected in joint.items():
            torch.testing.assert_close(of_rank["True"][figure], expected, rtol=1e-8, atol=1e-10)


def test_without_gathering_negatives_are_each_ranks_own(ranks):
    for number, of_rank in enumerate(ranks):
        mine = slice(number * PAIRS, (number + 1) * PAIRS)
        alone = train_joint(mine, gather=True)["losses"][0]
        torch.testing.assert_close(of_rank["False"]["losses"][0], alone)
    joint = train_joint(slice(None), gather=True)["losses"][0]
    assert abs(ranks[0]["False"]["losses"][0] - joint) > 0.1


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
