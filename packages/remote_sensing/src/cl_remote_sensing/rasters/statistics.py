"""Statistics of each band over valid pixels, in one streaming pass of constant memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_remote_sensing.rasters.raster import Pixels, Scene
from cl_remote_sensing.rasters.windows import Window

__all__ = ["BandStatistics", "band_statistics"]

QUANTILES = (0.02, 0.98)
SAMPLE = 2**18
"""Pixels kept for the quantiles of wide types: their rank errs by 0.03 % (one sigma)."""

APPROXIMATE_PIXELS = 2**22
"""Pixels of a scene that an approximation reads at least, if the scene has as many."""


@dataclass(frozen=True, kw_only=True)
class BandStatistics:
    """Per band, over the valid pixels, in the raster's units.

    Attributes:
        count: Valid pixels.
        minimum: Smallest value.
        maximum: Largest value.
        mean: Arithmetic mean.
        std: Standard deviation of the population (divided by ``count``).
        low: 2 % quantile.
        high: 98 % quantile.
        notes: What the user should be told of how they were taken.
    """

    count: tuple[int, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def constant(self) -> tuple[int, ...]:
        """Positions of the bands that have one value everywhere, and so say nothing."""
        pairs = zip(self.minimum, self.maximum, strict=True)
        return tuple(place for place, (low, high) in enumerate(pairs) if low == high)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON."""
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> BandStatistics:
        """The inverse of :meth:`to_dict`."""
        return cls(**{name: tuple(value) for name, value in card.items()})


def band_statistics(
    scenes: Sequence[Scene],
    windows: Sequence[tuple[int, Window]] | None = None,
    *,
    approximate: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> BandStatistics:
    """Measure the bands of scenes over their valid pixels, in one pass.

    Integers of 8 and 16 bits are counted value by value (65,536 bins), so that all figures are
    exact. For wider types mean and variance of the windows are merged in float64 (Chan, Golub and
    LeVeque 1979) and the quantiles are those of a random sample of 262,144 pixels, drawn the same
    every time; with fewer pixels they are exact.

    Args:
        scenes: With the same bands and type, as ``open_scenes`` gives them.
        windows: Which windows of which scene (its position) to measure; pixels in two windows
            count twice. By default all pixels once.
        approximate: Read overviews, and of a scene without any an even choice of its windows. The
            notes tell which, and how much.
        progress: Called with the windows read so far and their number.

    Raises:
        InputError: If no pixel is valid, or a file is damaged.
    """
    if windows is None:
        windows = [
            (place, window) for place, scene in enumerate(scenes) for window in scene.blocks()
        ]
    notes: tuple[str, ...] = ()
    factors = [1] * len(scenes)
    if approximate:
        windows, factors, notes = _thin(scenes, windows)
    kind = np.dtype(scenes[0].dtype)
    bands = len(scenes[0].bands)
    tally: _Tally = _Counts(kind, bands) if _countable(kind) else _Moments(bands)
    for done, (place, window) in enumerate(windows, start=1):
        factor = factors[place]
        shape = (-(-window.height // factor), -(-window.width // factor)) if factor > 1 else None
        tally.add(_valid_values(scenes[place].read(window, shape=shape)))
        if progress is not None:
            progress(done, len(windows))
    if tally.count == 0:
        files = ", ".join(dict.fromkeys(scene.path for scene in scenes[:3]))
        raise InputError(
            f"{files}: no valid pixel in {len(windows)} windows (all nodata, transparent or not "
            "finite); check the nodata value, or use other rasters"
        )
    return tally.result(notes)


def _valid_values(pixels: Pixels) -> NDArray[Any]:
    """The valid pixels' values, ``(c, n)``."""
    values, valid = pixels
    return values.reshape(len(values), -1) if valid.all() else values[:, valid]


def _thin(
    scenes: Sequence[Scene], windows: Sequence[tuple[int, Window]]
) -> tuple[list[tuple[int, Window]], list[int], tuple[str, ...]]:
    """Fewer windows, or windows to be shrunk, scene by scene."""
    kept: list[tuple[int, Window]] = []
    factors, notes = [], []
    of_scene: list[list[Window]] = [[] for _ in scenes]
    for place, window in windows:
        of_scene[place].append(window)
    for place, (scene, own) in enumerate(zip(scenes, of_scene, strict=True)):
        excess = sum(window.height * window.width for window in own) / APPROXIMATE_PIXELS
        overviews = scene.handle().overviews(scene.bands[0])
        fitting = [factor for factor in overviews if factor * factor <= excess]
        step = 1 if fitting else max(int(excess), 1)
        factors.append(max(fitting, default=1))
        kept += [(place, window) for window in own[::step]]
        if fitting:
            notes.append(f"{scene.path}: statistics from the overview 1:{factors[-1]}")
        elif step > 1:
            notes.append(f"{scene.path}: statistics from every {step}th window, without overviews")
    return kept, factors, tuple(notes)


def _countable(kind: np.dtype[Any]) -> bool:
    return kind.kind in "ui" and kind.itemsize <= 2


class _Tally(Protocol):
    """What is kept of the pixels seen."""

    count: int

    def add(self, values: NDArray[Any]) -> None: ...

    def result(self, notes: tuple[str, ...]) -> BandStatistics: ...


class _Counts:
    """How often each value occurs in each band; for types of at most 65,536 values."""

    def __init__(self, kind: np.dtype[Any], bands: int) -> None:
        self.first = int(np.iinfo(kind).min)
        self.unsigned = np.dtype(f"u{kind.itemsize}")
        self.bins = np.zeros((bands, 2 ** (8 * kind.itemsize)), np.int64)
        self.count = 0

    def add(self, values: NDArray[Any]) -> None:
        self.count += values.shape[1]
        for band, row in zip(self.bins, values, strict=True):
            band += np.bincount(np.ascontiguousarray(row).view(self.unsigned), minlength=len(band))

    def result(self, notes: tuple[str, ...]) -> BandStatistics:
        # The bins of a signed type lie in the order of its bit patterns: 0, 1, ..., -2, -1.
        bins = np.roll(self.bins, self.first, axis=1) if self.first else self.bins
        value = np.arange(bins.shape[1], dtype=np.float64) + self.first
        mean = bins @ value / self.count
        variance = [row @ (value - m) ** 2 / self.count for row, m in zip(bins, mean, strict=True)]
        reached = np.cumsum(bins, axis=1)

        def at_rank(rank: float) -> tuple[float, ...]:
            return tuple(float(value[np.searchsorted(row, max(rank, 1))]) for row in reached)

        low, high = (at_rank(quantile * self.count) for quantile in QUANTILES)
        return BandStatistics(
            count=(self.count,) * len(bins),
            minimum=at_rank(1),
            maximum=at_rank(self.count),
            mean=tuple(mean.tolist()),
            std=tuple(np.sqrt(variance).tolist()),
            low=low,
            high=high,
            notes=notes,
        )


class _Moments:
    """Running moments and a random sample; for floats and wide integers."""

    def __init__(self, bands: int) -> None:
        self.count = 0
        self.mean = np.zeros(bands)
        self.m2 = np.zeros(bands)  # sum of squared deviations from the mean
        self.minimum = np.full(bands, np.inf)
        self.maximum = np.full(bands, -np.inf)
        self.sample: list[NDArray[Any]] = []
        self.kept = 0
        self.share = 1.0  # of the pixels seen that are in the sample
        self.random = np.random.default_rng(0)

    def add(self, values: NDArray[Any]) -> None:
        n = values.shape[1]
        if n == 0:
            return
        x = values.astype(np.float64)
        mean = x.mean(axis=1)
        x -= mean[:, None]
        m2 = np.einsum("cn,cn->c", x, x)
        delta, total = mean - self.mean, self.count + n
        self.mean += delta * (n / total)
        self.m2 += m2 + delta**2 * (self.count * n / total)
        self.count = total
        self.minimum = np.minimum(self.minimum, values.min(axis=1))
        self.maximum = np.maximum(self.maximum, values.max(axis=1))
        self._keep(values)

    def _keep(self, values: NDArray[Any]) -> None:
        """Let each pixel into the sample with the same probability; halve it when it is full."""
        if self.share < 1:
            values = values[:, self.random.random(values.shape[1]) < self.share]
        self.sample.append(values.copy())
        self.kept += values.shape[1]
        while self.kept > 2 * SAMPLE:
            self.share /= 2
            joined = np.concatenate(self.sample, axis=1)
            self.sample = [joined[:, self.random.random(self.kept) < 0.5]]
            self.kept = self.sample[0].shape[1]

    def result(self, notes: tuple[str, ...]) -> BandStatistics:
        sample = np.concatenate(self.sample, axis=1)
        low, high = np.quantile(sample.astype(np.float64), QUANTILES, axis=1)
        return BandStatistics(
            count=(self.count,) * len(self.mean),
            minimum=tuple(self.minimum.tolist()),
            maximum=tuple(self.maximum.tolist()),
            mean=tuple(self.mean.tolist()),
            std=tuple(np.sqrt(self.m2 / self.count).tolist()),
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            notes=notes,
        )
