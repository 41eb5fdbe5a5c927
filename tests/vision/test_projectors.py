"""The projectors of the ablation: what they compute, what of them is trained, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cl_vision.methods.projectors import FirstChannels, build_projector, default_rank
from cl_vision.methods.simclr import two_view_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "directclr.npz", allow_pickle=False)
CASES = ("main", "f32", "zero")
WIDTH = 24


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def project_and_contrast(case, kind, weight, *, like):
    """The official loss of a golden case through one of our projectors with a golden weight."""
    projector = build_projector(kind, like.shape[1], dim=len(weight), rank=len(weight))
    projector = projector.to(like.dtype)
    (only,) = projector.state_dict()
    projector.load_state_dict({only: weight.to(like.dtype)})
    r1 = like.clone().requires_grad_()
    r2 = golden(f"{case}__r2").to(like.dtype)
    loss = two_view_loss(
        projector(r1),
        projector(r2),
        temperature=float(GOLDEN[f"{case}__temperature"]),
        negatives="cross",
    )
    return loss, torch.autograd.grad(loss, r1)[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("kind", "weight", "loss"),
    [
        ("linear", "linear_W", "linear_loss"),
        ("low_rank", "linear_W", "linear_loss"),  # the same map, not trained
        ("orthogonal", "orth_W", "orth_loss"),
        ("diagonal", "diag_w", "diag_loss"),
    ],
)
def test_the_loss_through_a_projector_equals_the_official_one(case, kind, weight, loss):
    r1 = golden(f"{case}__r1")
    exact = r1.double()  # the float32 case too: its references are float64 of float32 weights
    value, gradient = project_and_contrast(case, kind, golden(f"{case}__{weight}"), like=exact)
    relative = 1e-5 if case == "f32" else 1e-9
    assert value.item() == pytest.approx(float(GOLDEN[f"{case}__{loss}"]), rel=relative)
    if weight == "linear_W":
        seen = r1.abs().sum(1) > 0
        expected = golden(f"{case}__linear_grad_r1").double()
        torch.testing.assert_close(gradient[seen], expected[seen], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "trained", "rank", "out"),
    [
        ("none", 0, 24, 24),
        ("orthogonal", 0, 24, 24),
        ("diagonal", 24, 24, 24),
        ("linear", 24 * 5, 5, 5),
        ("low_rank", 0, 7, 7),
    ],
)
def test_rank_width_and_trained_weights_are_those_of_the_table(kind, trained, rank, out):
    projector = build_projector(kind, WIDTH, dim=5, rank=7)
    assert sum(p.numel() for p in projector.parameters() if p.requires_grad) == trained
    assert projector.out_features == out
    matrix = projector(torch.eye(WIDTH))
    assert matrix.shape == (WIDTH, out)
    assert int(torch.linalg.matrix_rank(matrix)) == rank


def test_fixed_matrices_are_orthonormal_follow_the_seed_and_are_saved():
    for kind, rows in (("orthogonal", WIDTH), ("low_rank", 7)):
        first, again, other = (
            build_projector(kind, WIDTH, rank=7, seed=seed)(torch.eye(WIDTH)) for seed in (3, 3, 4)
        )
        assert torch.equal(first, again)
        assert (first - other).abs().max() > 0.1
        torch.testing.assert_close(first.T @ first, torch.eye(rows), atol=1e-6, rtol=0)
    state = build_projector("low_rank", WIDTH, rank=7, seed=3).state_dict()
    target = build_projector("low_rank", WIDTH, rank=7, seed=4)
    target.load_state_dict(state)
    x = draw(5, WIDTH)
    expected = build_projector("low_rank", WIDTH, rank=7, seed=3)(x)
    torch.testing.assert_close(target(x), expected, rtol=0, atol=0)


def test_a_rotation_leaves_the_loss_as_it_is_and_a_low_rank_map_does_not():
    r1, r2 = draw(9, WIDTH), draw(9, WIDTH, seed=1)
    plain = two_view_loss(r1, r2).item()
    rotated, cut = (build_projector(kind, WIDTH, rank=4) for kind in ("orthogonal", "low_rank"))
    assert two_view_loss(rotated(r1), rotated(r2)).item() == pytest.approx(plain, rel=1e-5)
    assert abs(two_view_loss(cut(r1), cut(r2)).item() - plain) > 0.1


def test_the_diagonal_starts_as_the_identity():
    x = draw(5, WIDTH)
    assert torch.equal(build_projector("diagonal", WIDTH)(x), x)


def test_the_mlp_has_batch_norm_after_both_layers_and_no_biases():
    projector = build_projector("mlp", 6, hidden=8, dim=3)
    x = draw(20, 6)
    w1, w2 = (p for p in projector.parameters() if p.ndim == 2)
    assert (w1.shape, w2.shape) == ((8, 6), (3, 8))

    def norm(h):  # of training mode, scale 1 and shift 0
        return (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()

    expected = norm(norm(x @ w1.T).relu() @ w2.T)
    torch.testing.assert_close(projector(x), expected, rtol=1e-4, atol=1e-5)


def test_the_default_rank_is_the_papers_share():
    assert [default_rank(width) for width in (2048, 512, 128, 2)] == [360, 90, 23, 1]
    assert build_projector("low_rank", 128).out_features == 23


def test_the_first_channels_are_a_slice_without_weights():
    projector, x = FirstChannels(6, 2), draw(4, 6)
    assert torch.equal(projector(x), x[:, :2])
    assert not projector.state_dict()


@pytest.mark.parametrize("d0", [0, 7, -1])
def test_more_channels_than_there_are_are_refused(d0):
    with pytest.raises(ValueError, match=f"between 1 and the representation's width 6, got {d0}"):
        FirstChannels(6, d0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "low_rank", "rank": 25}, "rank must lie between 1 .* 24, got 25"),
        ({"kind": "low_rank", "rank": 0}, "rank must lie between 1 .* 24, got 0"),
        ({"kind": "linear", "dim": 0}, "widths must be positive, got 24 -> 0"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_projector(width=WIDTH, **options)
