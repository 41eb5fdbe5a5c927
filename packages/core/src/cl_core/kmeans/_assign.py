r"""The nearest centroid of every row, without the matrix of all distances.

$\arg\min_j \lVert x_i - c_j \rVert^2 = \arg\min_j \lVert c_j \rVert^2 - 2 x_i^\top c_j$: a matrix
product with a bias, visited in tiles of constant size. Rows and centroids are first moved by the
centroids' mean, which changes no distance but keeps data far from the origin from losing its
digits in the difference of two large squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl_core.matmul import affine

__all__ = ["assign", "check_values", "compute_dtype", "magnitude", "min_distances", "nearest"]

_TILE = {"cpu": 2**20}  # scores at a time: 4 MB, which stay in a core's cache
_DEVICE_TILE = 2**26  # 256 MB: enough work to hide the launches
_ROWS = 8192  # at a time, at most
_LANES = 64  # groups of the two-step minimum, a few vector registers wide


def assign(
    x: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"], *, block_size: int | None = None
) -> Int[Tensor, " n"]:
    """Return the index of the nearest centroid of every row; of equally near ones the first.

    Args:
        x: Rows, computed in float32 or wider.
        centroids: On the same device.
        block_size: Rows handled at once; changes speed and memory, not the result.

    Raises:
        ValueError: If the shapes do not fit, on NaN or infinite values, or values too large to
            square.

    Example:
        >>> assign(torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([[1.0], [8.0]])).tolist()
        [0, 0, 1]
    """
    if x.ndim != 2 or centroids.ndim != 2 or x.shape[1] != centroids.shape[1] or not len(centroids):
        raise ValueError(
            "assign needs rows (n, d) and at least one centroid (k, d), "
            f"got {tuple(x.shape)} and {tuple(centroids.shape)}"
        )
    check_values("rows", magnitude(x), x)
    check_values("centroids", magnitude(centroids), centroids)
    return nearest(x, centroids, block_size=block_size)[0]


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type that distances between rows like these are computed in."""
    return torch.promote_types(x.dtype, torch.float32)


def magnitude(values: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the largest absolute value, NaN if there is one, 0 without values."""
    if values.numel() == 0:
        return values.new_zeros((), dtype=torch.float64)
    low, high = values.detach().aminmax()
    return torch.maximum(-low, high).to(torch.float64)


def check_values(name: str, largest: Tensor, values: Tensor) -> None:
    """Refuse values whose distances are no numbers; ``largest`` is their magnitude."""
    bound = float(largest)
    if not math.isfinite(bound):
        raise ValueError(f"the {name} hold NaN or infinite values: remove or replace them")
    if 8 * values.shape[1] * bound**2 > torch.finfo(compute_dtype(values)).max:
        raise ValueError(f"the {name} hold values too large to square, {bound:g}: scale them down")


def nearest(
    x: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"], *, block_size: int | None = None
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Return each row's nearest centroid and its squared distance, which has rounding errors."""
    index = torch.empty(len(x), dtype=torch.int64, device=x.device)
    return index, _visit(x, centroids, block_size, index)


def min_distances(
    x: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"], *, block_size: int | None = None
) -> Float[Tensor, " n"]:
    """Return each row's squared distance to its nearest centroid, which has rounding errors."""
    return _visit(x, centroids, block_size, None)


def _visit(x: Tensor, centroids: Tensor, block_size: int | None, index: Tensor | None) -> Tensor:
    """Fill ``index`` if given, and return the squared distances."""
    k = len(centroids)
    if block_size is None:
        block_size = max(1, min(_ROWS, _TILE.get(x.device.type, _DEVICE_TILE) // k))
    elif block_size < 1:
        raise ValueError(f"block_size must be at least 1 row, got {block_size}")
    x, dtype = x.detach(), compute_dtype(x)
    c = centroids.detach().to(dtype)
    shift = c.mean(0)
    c = c - shift
    weight, bias = -2 * c, c.square().sum(1)
    # On the processor torch's minimum with index is ten times slower than its plain minimum.
    two_steps = x.device.type == "cpu" and index is not None and k >= 4 * _LANES
    if two_steps:
        weight, bias = _interleave(weight, bias)
    scores = affine(weight, bias)
    squares = torch.empty(len(x), dtype=dtype, device=x.device)

    def visit(start: int) -> None:
        rows = slice(start, start + block_size)
        with torch.autocast(x.device.type, enabled=False):
            z = x[rows].to(dtype) - shift
            s = scores(z)
            if index is None:
                lowest = s.amin(1)
            elif two_steps:
                lowest, index[rows] = _two_step_min(s)
            else:
                lowest, index[rows] = s.min(1)
            squares[rows] = lowest.add_(z.square().sum(1)).clamp_min_(0)

    _each(visit, range(0, len(x), block_size), torch.get_num_threads() if x.is_cpu else 1)
    return squares


def _each(visit: Callable[[int], None], starts: range, threads: int) -> None:
    """Visit every tile, each on one thread.

    Torch would rather share out each operation, and its threads then wait for each other after
    every one: several times slower as soon as other processes use the cores too.
    """
    if threads == 1 or len(starts) <= 1:
        for start in starts:
            visit(start)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(visit, starts):
                pass  # raises what a visit raised
    finally:
        torch.set_num_threads(threads)  # what threads yet to come will use


def _interleave(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Reorder centroids so that column ``t * _LANES + lane`` is centroid ``lane * depth + t``.

    A minimum over ``t`` then runs along whole vector registers, while each lane stands for
    neighbouring centroids, so that the first of equal lanes holds the first of equal centroids.
    """
    depth = -(-len(bias) // _LANES)
    padding = depth * _LANES - len(bias)
    weight = torch.cat([weight, weight.new_zeros(padding, weight.shape[1])])
    bias = torch.cat([bias, bias.new_full((padding,), float("inf"))])
    order = torch.arange(len(bias)).view(_LANES, depth).T.reshape(-1)
    return weight[order], bias[order]


def _two_step_min(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return minimum and index of each row of interleaved scores: first the lane, then within."""
    s = s.view(len(s), -1, _LANES)
    depth = s.shape[1]
    lowest, lane = s.amin(1).min(1)
    t = s.gather(2, lane.view(-1, 1, 1).expand(-1, depth, 1)).squeeze(2).argmin(1)
    return lowest, lane * depth + t
