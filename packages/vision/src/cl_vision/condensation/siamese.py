r"""Differentiable siamese augmentation (DSA).

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021, as in
the released code. A strategy names operations; each use picks *one* of them. While gradients are
matched, a class has one draw of parameters a step, and the identical operation is done to its real
and to its synthetic images. While a network trains on the set, each mini-batch picks an operation
and each image has parameters of its own.

Operations take ``(n, c, h, w)`` in normalised space and rows of parameters, one for all images or
one each. All are differentiable in the image.

| name | parameters | operation |
|---|---|---|
| ``brightness`` | $u$ | $x + (u - 0.5)$ |
| ``saturation`` | $u$ | $2u(x - m) + m$, $m$ the mean over channels of each pixel |
| ``contrast`` | $u$ | $(u + 0.5)(x - M) + M$, $M$ the mean of the image |
| ``color`` | $u_b, u_s, u_c$ | the three above in this order |
| ``crop`` | $t_h, t_w$ integers up to an eighth of the edge | ``out[i, j] = x[i + t_h, j + t_w]`` |
| ``cutout`` | $o_h, o_w$ integers | a box of half the edges about them becomes 0 |
| ``flip`` | $u$ | left and right change places where $u < 0.5$ |
| ``scale`` | $u_w, u_h$ | bilinear, by $s = u(1.2 - 1/1.2) + 1/1.2$; below 1 enlarges |
| ``rotate`` | $u$ | bilinear, by $(u - 0.5) \cdot 30$ degrees |

Draws come from a generator that the caller owns; no global generator is read or moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cl_vision.condensation.table import parse_strategy

__all__ = [
    "OPERATIONS",
    "Draw",
    "apply",
    "augment",
    "draw",
    "draw_of_seed",
]

_SHIFT, _BOX, _SCALE, _DEGREES = 0.125, 0.5, 1.2, 15.0


class Draw(NamedTuple):
    """An operation and its parameters.

    Attributes:
        name: The operation.
        parameters: A row for all images ``(1, p)``, or one for each ``(n, p)``.
    """

    name: str
    parameters: Tensor


def apply(x: Float[Tensor, "n c h w"], name: str, parameters: Tensor) -> Float[Tensor, "n c h w"]:
    """Do one operation.

    Args:
        x: Images, normalised.
        name: One of the names above.
        parameters: ``(1, p)`` or ``(n, p)``, as in the table: uniform draws of [0, 1), or whole
            pixels of ``crop`` and ``cutout``.

    Raises:
        ValueError: If there is no such operation, or the rows do not fit.
    """
    if name not in OPERATIONS:
        raise ValueError(f"there is no operation {name!r}; there are {', '.join(OPERATIONS)}")
    if parameters.ndim != 2 or len(parameters) not in (1, len(x)):
        raise ValueError(
            f"{name} takes a row of parameters for all {len(x)} images or one each, "
            f"got {tuple(parameters.shape)}"
        )
    return OPERATIONS[name](x, parameters.to(x.device))


def draw(
    name: str, rows: int, size: tuple[int, int], generator: torch.Generator
) -> Float[Tensor, "rows p"]:
    """Draw parameters of an operation.

    Args:
        name: The operation.
        rows: 1 for the same of all images, or the number of images.
        size: Height and width, which bound ``crop`` and ``cutout``.
        generator: On the CPU.
    """
    return _draw(name, rows, size, _repeat(generator))


def augment(strategy: str, rows: int, size: tuple[int, int], generator: torch.Generator) -> Draw:
    """Pick an operation of a strategy and draw its parameters.

    Args:
        strategy: Names joined by ``_``, each as likely.
        rows: As of :func:`draw`.
        size: As of :func:`draw`.
        generator: On the CPU.
    """
    return _augment(strategy, rows, size, _repeat(generator))


def draw_of_seed(strategy: str, rows: int, size: tuple[int, int], seed: int) -> Draw:
    """Draw as the released code does from an integer seed, the same for all images.

    It seeds anew with ``seed`` for the choice and with ``seed + 1``, ``+ 2``, ... for each draw
    after it, draws for every image and uses the first.

    Args:
        strategy: Names joined by ``_``.
        rows: Images of the batch, which the stream of draws depends on.
        size: Height and width.
        seed: Any.
    """
    name, parameters = _augment(strategy, rows, size, _counting(seed))
    return Draw(name, parameters[:1])


def _augment(
    strategy: str, rows: int, size: tuple[int, int], generators: Iterator[torch.Generator]
) -> Draw:
    names = parse_strategy(strategy)
    name = names[int(torch.randint(len(names), (1,), generator=next(generators)))]
    return Draw(name, _draw(name, rows, size, generators))


def _draw(
    name: str, rows: int, size: tuple[int, int], generators: Iterator[torch.Generator]
) -> Tensor:
    if name == "crop":
        bounds = [(-_whole(_SHIFT * edge), _whole(_SHIFT * edge) + 1) for edge in size]
    elif name == "cutout":
        bounds = [(0, edge + 1 - _whole(_BOX * edge) % 2) for edge in size]
    else:
        count = {"color": 3, "scale": 2}.get(name, 1)
        drawn = [torch.rand(rows, generator=next(generators)) for _ in range(count)]
        return torch.stack(drawn, 1)
    whole = [torch.randint(*bound, (rows,), generator=next(generators)) for bound in bounds]
    return torch.stack(whole, 1)


def _repeat(generator: torch.Generator) -> Iterator[torch.Generator]:
    while True:
        yield generator


def _counting(seed: int) -> Iterator[torch.Generator]:
    while True:
        yield torch.Generator().manual_seed(seed)
        seed += 1


def _whole(value: float) -> int:
    return int(value + 0.5)


def _column(parameters: Tensor, place: int, x: Tensor) -> Tensor:
    """One parameter of each image, to be broadcast over it."""
    return parameters[:, place].to(x.dtype)[:, None, None, None]


def _brightness(x: Tensor, p: Tensor) -> Tensor:
    return x + (_column(p, 0, x) - 0.5)


def _saturation(x: Tensor, p: Tensor) -> Tensor:
    mean = x.mean(dim=1, keepdim=True)
    return (x - mean) * (2 * _column(p, 0, x)) + mean


def _contrast(x: Tensor, p: Tensor) -> Tensor:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (_column(p, 0, x) + 0.5) + mean


def _color(x: Tensor, p: Tensor) -> Tensor:
    return _contrast(_saturation(_brightness(x, p[:, :1]), p[:, 1:2]), p[:, 2:])


def _crop(x: Tensor, p: Tensor) -> Tensor:
    h, w = x.shape[2], x.shape[3]
    rows, columns = (
        torch.arange(edge, device=x.device) + p[:, place, None] for place, edge in ((0, h), (1, w))
    )
    if len(p) == 1:  # the same window of all: a slice of the padded image
        top, left = int(p[0, 0]), int(p[0, 1])
        m = max(abs(top), abs(left))
        return F.pad(x, (m, m, m, m))[:, :, m + top : m + top + h, m + left : m + left + w]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    at = image, slice(None), rows.clamp(0, h - 1)[:, :, None], columns.clamp(0, w - 1)[:, None, :]
    return x[at].permute(0, 3, 1, 2) * inside[:, None]


def _cutout(x: Tensor, p: Tensor) -> Tensor:
    covered = []
    for place, edge in enumerate(x.shape[2:]):
        box = _whole(_BOX * edge)
        start = p[:, place, None] - box // 2
        pixels = torch.arange(edge, device=x.device)
        covered.append((pixels >= start) & (pixels < start + box))
    inside = covered[0][:, :, None] & covered[1][:, None, :]
    return x.masked_fill(inside[:, None], 0.0)


def _flip(x: Tensor, p: Tensor) -> Tensor:
    return torch.where(p[:, :1, None, None] < 0.5, x.flip(3), x)


def _scale(x: Tensor, p: Tensor) -> Tensor:
    s = p.to(x.dtype) * (_SCALE - 1 / _SCALE) + 1 / _SCALE
    return _sample(x, torch.diag_embed(s))


def _rotate(x: Tensor, p: Tensor) -> Tensor:
    t = (p[:, 0].to(x.dtype) - 0.5) * (2 * _DEGREES * math.pi / 180)
    rows = torch.stack([t.cos(), -t.sin()], 1), torch.stack([t.sin(), t.cos()], 1)
    return _sample(x, torch.stack(rows, 1))


def _sample(x: Tensor, matrix: Tensor) -> Tensor:
    """Read each image where the matrix sends its pixels; zero outside."""
    theta = F.pad(matrix, (0, 1))
    grid = F.affine_grid(theta, [len(theta), *x.shape[1:]], align_corners=False)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "saturation": _saturation,
    "contrast": _contrast,
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
"""The operations by name."""
