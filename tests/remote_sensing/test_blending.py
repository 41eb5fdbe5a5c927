"""Weights of overlapping windows and the strip that sums them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_remote_sensing.mapping.blending import RollingStrip, coverage, roll_up, window_weights
from cl_remote_sensing.mapping.prediction import predictor, symmetric
from cl_remote_sensing.rasters.windows import starts

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "glcnet.npz", allow_pickle=False)


def blend(tiles, height, width, size, stride, dtype):
    """A whole map from its windows ``(windows, k, t, t)``, row-major."""
    rows, cols = starts(height, size, stride), starts(width, size, stride)
    strip = RollingStrip(tiles.shape[1], size, width, dtype=dtype)
    done = []
    for number, top in enumerate(rows):
        strip.add(tiles[number * len(cols) : (number + 1) * len(cols)], cols)
        below = rows[number + 1] if number + 1 < len(rows) else height
        done.append(strip.total[:, : below - top].clone())
        strip.advance(below - top)
    weight = torch.outer(coverage(rows, size, height), coverage(cols, size, width))
    return torch.cat(done, 1) / weight.to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_blending_equals_the_golden_vectors(dtype, tolerance):
    size, stride = int(GOLDEN["blend_tile"]), int(GOLDEN["blend_stride"])
    tiles = torch.from_numpy(GOLDEN["blend_tiles"]).to(dtype)
    height, width = (int(n) for n in GOLDEN["blend_shape"])
    result = blend(tiles, height, width, size, stride, dtype)
    expected = torch.from_numpy(GOLDEN["blend_prob"]).to(dtype)
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(result.argmax(0), GOLDEN["blend_argmax"])


def test_weights_are_the_golden_window():
    size = int(GOLDEN["blend_tile"])
    a = window_weights(size, dtype=torch.float64)
    np.testing.assert_allclose(torch.outer(a, a), GOLDEN["blend_window"], rtol=1e-12)
    assert window_weights(1000).min() == pytest.approx(1e-3)
    torch.testing.assert_close(a, a.flip(0))


@pytest.mark.parametrize("case", range(5))
def test_window_starts_are_the_golden_ones(case):
    length, size, stride = (int(n) for n in GOLDEN[f"grid{case}_args"])
    assert starts(length, size, stride) == GOLDEN[f"grid{case}_starts"].tolist()


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(2, 12), st.data(), st.integers(0, 2**31 - 1)
)
def test_blended_windows_equal_sums_pixel_by_pixel(height, width, size, data, seed):
    stride = data.draw(st.integers(1, size))
    rows, cols = starts(height, size, stride), starts(width, size, stride)
    g = torch.Generator().manual_seed(seed)
    tiles = torch.rand(len(rows) * len(cols), 2, size, size, generator=g, dtype=torch.float64)
    a = [max(np.sin(np.pi * (i + 0.5) / size) ** 2, 1e-3) for i in range(size)]
    total, weight = np.zeros((2, height, width)), np.zeros((height, width))
    for number, (top, left) in enumerate((r, c) for r in rows for c in cols):
        for i in range(min(size, height - top)):
            for j in range(min(size, width - left)):
                total[:, top + i, left + j] += a[i] * a[j] * tiles[number, :, i, j].numpy()
                weight[top + i, left + j] += a[i] * a[j]
    expected = total / weight
    padded = max(width, size)
    strip = RollingStrip(2, size, padded, dtype=torch.float64)
    down, across = coverage(rows, size, height), coverage(cols, size, width)
    for number, top in enumerate(rows):
        strip.add(tiles[number * len(cols) : (number + 1) * len(cols)], cols)
        below = rows[number + 1] if number + 1 < len(rows) else height
        done = strip.total[:, : below - top, :width] / torch.outer(down[top:below], across)
        np.testing.assert_allclose(done, expected[:, top:below], rtol=1e-9)
        strip.advance(below - top)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 12))
def test_rolling_up_moves_rows_and_fills_the_freed(rows, by):
    strip = torch.arange(2 * rows * 3).reshape(2, rows, 3)
    expected = torch.cat([strip[:, by:], torch.full((2, min(by, rows), 3), -1)], 1)
    roll_up(strip, by, -1)
    torch.testing.assert_close(strip, expected)


def test_constant_windows_stay_constant_whatever_the_overlap():
    for size, stride in ((8, 8), (8, 5), (8, 3), (7, 1)):
        count = len(starts(29, size, stride)) * len(starts(31, size, stride))
        tiles = torch.tensor([0.7, 0.3]).view(1, 2, 1, 1).expand(count, 2, size, size)
        result = blend(tiles, 29, 31, size, stride, torch.float32)
        torch.testing.assert_close(result, tiles[:1, :, :1, :1][0].expand(2, 29, 31))


class Uneven(torch.nn.Module):
    """A convolution that is neither symmetric nor free of dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, x):
        return self.conv(self.dropout(x))


def test_a_predictor_gives_probabilities_in_eval_mode():
    network = Uneven().train()
    predict = predictor(network)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    p = predict(x)
    torch.testing.assert_close(p, network.conv(x).softmax(1).detach())
    assert not p.requires_grad
    low = predictor(network, autocast=torch.bfloat16)(x)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, p, rtol=0, atol=0.03)


def test_the_symmetric_average_turns_and_flips_with_its_input():
    plain = predictor(Uneven())
    average = symmetric(plain)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    for change in (lambda t: t.rot90(1, (2, 3)), lambda t: t.flip(3), lambda t: t.flip(2)):
        torch.testing.assert_close(average(change(x)), change(average(x)), rtol=0, atol=1e-6)
        assert (plain(change(x)) - change(plain(x))).abs().max() > 0.01
    torch.testing.assert_close(average(x).sum(1), torch.ones(2, 6, 6))
