r"""The layers of a ConvNet block for gradients that are taken once, on a CPU.

Nearly all the time of a condensation goes into gradients of real images, which nobody
differentiates again. That allows what PyTorch's own layers cannot do.

*Convolution.* Winograd's minimal filtering F(4 x 4, 3 x 3) (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016) computes a tile $Y$ of 4 x 4 outputs from a tile $d$ of
6 x 6 inputs and the filter $g$ by

$$Y = A^\top \bigl[ (G g G^\top) \odot (B^\top d B) \bigr] A,$$

with 36 products in place of 144: a sum over channels of elementwise products is 36 small matrix
products. Both gradients are the adjoints of the same three linear maps, so they cost as little. The
result is the convolution itself, up to rounding (about 3e-6 of its size in float32; a gradient may
differ by 1e-3, where a unit within that of the ReLU's kink falls on its other side).

*Instance norm, ReLU, average pooling* as one: the gradient of the pool is never written out, and
the gradient of the norm, an order of magnitude slower than its forward pass for images laid out
channels last, becomes two sums and two multiply-adds.

All take images laid out channels last, ``(n, h, w, c)`` in memory, and give such.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["conv3x3", "norm_relu_pool", "stem"]

_TILE = 4


def stem(
    x: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "k c 3 3"],
    bias: Float[Tensor, " k"],
    padding: int,
) -> Float[Tensor, "n k h2 w2"]:
    """Convolve images, of which no gradient is asked.

    Args:
        x: Images.
        weight: Filters.
        bias: Of each filter.
        padding: Zeros around the images.
    """
    out: Tensor = _Stem.apply(x, weight, bias, padding)
    return out


def conv3x3(
    x: Float[Tensor, "n c h w"], weight: Float[Tensor, "k c 3 3"], bias: Float[Tensor, " k"]
) -> Float[Tensor, "n k h w"]:
    """Convolve with padding 1.

    Args:
        x: Images; height and width divisible by 4, else PyTorch's own convolution does it.
        weight: Filters.
        bias: Of each filter.
    """
    if x.shape[2] % _TILE or x.shape[3] % _TILE:
        return F.conv2d(x, weight, bias, padding=1)
    out: Tensor = _Conv3x3.apply(x, weight, bias)
    return out


def norm_relu_pool(
    x: Float[Tensor, "n c h w"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
) -> Float[Tensor, "n c h2 w2"]:
    """Normalise each channel of each image, cut off below zero, average 2 x 2 pixels.

    Args:
        x: Images of even height and width.
        weight: Scale of the norm.
        bias: Its shift.
        eps: Added to the variance.
    """
    out: Tensor = _NormReluPool.apply(x, weight, bias, eps)
    return out


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        _, slope, _ = torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            None,
            [1, 1],
            [ctx.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, False],
        )
        return None, slope, _rows(grad).sum((0, 1)), None


class _Conv3x3(torch.autograd.Function):
    """Tiles are rows of matrices: ``(36, tiles, channels)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, c, h, w = x.shape
        data, filters, output = _maps(x.dtype)
        v = _transform(data, _overlapping(x), 6).view(36, -1, c)
        u = (filters @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, c, -1)
        y = _transform(output, torch.bmm(v, u), 6).view(
            _TILE, _TILE, n, h // _TILE, w // _TILE, len(weight)
        )
        ctx.save_for_backward(v, u)
        ctx.size = (n, h, w)
        out = y.permute(2, 3, 0, 4, 1, 5).reshape(n, h, w, -1)
        return out.add_(bias).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v, u = ctx.saved_tensors
        n, h, w = ctx.size
        data, filters, output = _maps(grad.dtype)
        k = grad.shape[1]
        tiles = grad.permute(0, 2, 3, 1).reshape(n, h // _TILE, _TILE, w // _TILE, _TILE, k)
        tiles = tiles.permute(2, 4, 0, 1, 3, 5).reshape(_TILE, -1)
        m = _transform(output.T, tiles, _TILE).view(36, -1, k)
        weight = filters.T @ torch.bmm(v.transpose(1, 2), m).view(36, -1)
        weight = weight.view(3, 3, -1, k).permute(3, 2, 0, 1)
        spread = _transform(data.T, torch.bmm(m, u.transpose(1, 2)), 6)
        x = _added(spread.view(6, 6, n, h // _TILE, w // _TILE, -1))
        return x, weight, _rows(grad).sum((0, 1))


class _NormReluPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, h * w, c, eps)
        y.relu_()
        ctx.save_for_backward(x, y, weight, mean, rstd)
        return F.avg_pool2d(y, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, y, weight, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        pooled = (grad.permute(0, 2, 3, 1) / 4)[:, :, None, :, None]
        pairs = y.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c)
        g = torch.ops.aten.threshold_backward(pooled.expand_as(pairs), pairs, 0)
        g = g.reshape(n, h * w, c)
        rows = _rows(x)
        total = g.sum(1)
        along = ((g * rows).sum(1) - mean * total) * rstd  # with the normalised rows
        scale = weight * rstd
        slope = -scale * rstd * along / (h * w)
        shift = -scale * total / (h * w) - slope * mean
        out = torch.addcmul(shift[:, None], rows, slope[:, None]).addcmul_(g, scale[:, None])
        return out.view(n, h, w, c).permute(0, 3, 1, 2), along.sum(0), total.sum(0), None


def _rows(x: Tensor) -> Tensor:
    """Pixels of each image as rows ``(n, h * w, c)``."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _overlapping(x: Tensor) -> Tensor:
    """The tiles of 6 x 6 pixels that 4 x 4 outputs are made of, pixel by pixel."""
    n, c, h, w = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    image, row, column, channel = padded.stride()
    return padded.as_strided(
        (6, 6, n, h // _TILE, w // _TILE, c),
        (row, column, image, _TILE * row, _TILE * column, channel),
    ).reshape(6, -1)


def _added(tiles: Tensor) -> Tensor:
    """The adjoint of :func:`_overlapping`."""
    _, _, n, rows, columns, c = tiles.shape
    h, w = _TILE * rows, _TILE * columns
    out = tiles.new_zeros(n, h + 2, w + 2, c)
    for i in range(6):
        for j in range(6):
            out[:, i : i + h - 3 : _TILE, j : j + w - 3 : _TILE] += tiles[i, j]
    return out[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _transform(matrix: Tensor, tiles: Tensor, edge: int) -> Tensor:
    """Multiply both edges of tiles, which come first, by a matrix."""
    first = matrix @ tiles.reshape(edge, -1)
    return matrix @ first.view(len(matrix), edge, -1)


@lru_cache(maxsize=4)
def _maps(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """$B^T$, $G$ for both edges at once, $A^T$; interpolation at 0, 1, -1, 2, -2 and infinity."""
    data = [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    filters = [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
    output = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    g = torch.tensor(filters, dtype=torch.float64)
    return (
        torch.tensor(data, dtype=dtype),
        torch.kron(g, g).to(dtype),
        torch.tensor(output, dtype=dtype),
    )
