"""Plants drawn by code: four species on gravel, beside a coloured tag that misleads.

Species differ in the shape of their leaves alone. The gravel, the light and the tag are drawn
without regard to the species, so that whatever a model learns of them tells it nothing.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import UInt8

__all__ = ["SPECIES", "draw_plant"]

SPECIES = ("clover", "dandelion", "grass", "spurge")
"""Round lobes on stalks; long leaves from one point; thin blades; many small leaves on a stem."""

_TAGS = ((225, 60, 50), (40, 80, 210), (235, 140, 50), (240, 240, 240), (190, 60, 190))
_FINE = 4  # drawn larger and shrunk, for smooth edges


def draw_plant(
    species: str, rng: np.random.Generator, *, size: int = 64
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw one image.

    Args:
        species: One of :data:`SPECIES`.
        rng: Of everything drawn.
        size: Edge in pixels.

    Raises:
        ValueError: If the species is unknown.
    """
    if species not in SPECIES:
        raise ValueError(f"species must be one of {', '.join(SPECIES)}, got {species!r}")
    edge = size * _FINE
    image = _gravel(rng, edge)
    _tag(image, rng, edge)
    centre = edge * (0.5 + rng.uniform(-0.12, 0.12, 2))
    reach = edge * rng.uniform(0.26, 0.38)
    turn = rng.uniform(0, 2 * math.pi)
    green = np.array([rng.uniform(50, 100), rng.uniform(125, 185), rng.uniform(30, 70)])
    draw = {"clover": _clover, "dandelion": _dandelion, "grass": _grass, "spurge": _spurge}[species]
    draw(image, rng, centre, reach, turn, green)
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    lit = small.astype(np.float32) * rng.uniform(0.75, 1.2) + rng.normal(0, 4, small.shape)
    drawn: UInt8[np.ndarray, "h w 3"] = lit.clip(0, 255).astype(np.uint8)
    return drawn


def _gravel(rng: np.random.Generator, edge: int) -> np.ndarray:
    base = rng.uniform(85, 150) * np.array([1.0, 0.95, 0.88])
    coarse = rng.normal(0, 22, (edge // 12, edge // 12)).astype(np.float32)
    stones = cv2.resize(coarse, (edge, edge), interpolation=cv2.INTER_CUBIC)
    image = base + stones[..., None] + rng.normal(0, 6, (edge, edge, 1))
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))


def _tag(image: np.ndarray, rng: np.random.Generator, edge: int) -> None:
    """A bright label with bars at a border."""
    w, h = (int(edge * rng.uniform(0.22, 0.34)), int(edge * rng.uniform(0.12, 0.18)))
    if rng.random() < 0.5:
        w, h = h, w
    x = int(rng.uniform(0, edge - w))
    y = 0 if rng.random() < 0.5 else edge - h
    colour = _TAGS[int(rng.integers(len(_TAGS)))]
    cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
    for _ in range(4):
        at = int(rng.uniform(x, x + w))
        cv2.line(image, (at, y), (at, y + h), (20, 20, 20), _FINE)


def _shade(green: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    red, g, blue = (green * rng.uniform(0.88, 1.12)).clip(0, 255)
    return int(red), int(g), int(blue)


def _point(centre: np.ndarray, angle: float, distance: float) -> tuple[int, int]:
    x, y = centre + distance * np.array([math.cos(angle), math.sin(angle)])
    return int(x), int(y)


def _leaf(
    image: np.ndarray,
    at: tuple[int, int],
    length: float,
    width: float,
    angle: float,
    colour: tuple[int, int, int],
) -> None:
    axes = (max(1, int(length)), max(1, int(width)))
    cv2.ellipse(image, at, axes, math.degrees(angle), 0, 360, colour, -1, cv2.LINE_AA)


def _clover(
    image: np.ndarray,
    rng: np.random.Generator,
    centre: np.ndarray,
    reach: float,
    turn: float,
    green: np.ndarray,
) -> None:
    for k in range(3):
        angle = turn + 2 * math.pi * k / 3 + rng.normal(0, 0.12)
        cv2.line(
            image,
            _point(centre, angle, 0),
            _point(centre, angle, 0.6 * reach),
            _shade(green, rng),
            2 * _FINE,
        )
        _leaf(
            image,
            _point(centre, angle, 0.62 * reach),
            0.36 * reach,
            0.34 * reach,
            angle,
            _shade(green, rng),
        )


def _dandelion(
    image: np.ndarray,
    rng: np.random.Generator,
    centre: np.ndarray,
    reach: float,
    turn: float,
    green: np.ndarray,
) -> None:
    leaves = int(rng.integers(6, 9))
    for k in range(leaves):
        angle = turn + 2 * math.pi * k / leaves + rng.normal(0, 0.1)
        _leaf(
            image,
            _point(centre, angle, 0.5 * reach),
            0.5 * reach,
            0.13 * reach,
            angle,
            _shade(green, rng),
        )


def _grass(
    image: np.ndarray,
    rng: np.random.Generator,
    centre: np.ndarray,
    reach: float,
    turn: float,
    green: np.ndarray,
) -> None:
    for _ in range(int(rng.integers(5, 8))):
        angle = turn + rng.normal(0, 0.35) + (math.pi if rng.random() < 0.5 else 0)
        end = _point(centre, angle, 1.15 * reach)
        cv2.line(image, _point(centre, angle, 0), end, _shade(green, rng), int(1.6 * _FINE))


def _spurge(
    image: np.ndarray,
    rng: np.random.Generator,
    centre: np.ndarray,
    reach: float,
    turn: float,
    green: np.ndarray,
) -> None:
    start, end = _point(centre, turn + math.pi, 0.8 * reach), _point(centre, turn, 0.9 * reach)
    cv2.line(image, start, end, _shade(green, rng), 2 * _FINE)
    for along in np.linspace(-0.7, 0.8, int(rng.integers(5, 8))):
        foot = centre + along * reach * np.array([math.cos(turn), math.sin(turn)])
        for side in (-1, 1):
            angle = turn + side * (math.pi / 2 - 0.3)
            _leaf(
                image,
                _point(foot, angle, 0.2 * reach),
                0.19 * reach,
                0.1 * reach,
                angle,
                _shade(green, rng),
            )
