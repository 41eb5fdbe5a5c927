"""From a raster's values to a network's input, by statistics fixed at training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from cl_remote_sensing.rasters.raster import Pixels
from cl_remote_sensing.rasters.statistics import BandStatistics

__all__ = ["Mode", "Normalization"]

Mode = Literal["zscore", "percentile", "uint8"]


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """How each band is scaled; stored with the model, so that prediction repeats training.

    Values go two steps, ``unit`` for augmentation and ``standardize`` for the network:

    | mode | unit | standardised |
    |---|---|---|
    | ``percentile`` | 2 % to 98 % quantile -> [0, 1], clipped | ``unit * 3.2 - 1.6`` |
    | ``uint8`` | 0 to 255 -> [0, 1], clipped | ``unit * 3.2 - 1.6`` (the official GLCNet code) |
    | ``zscore`` | minimum to maximum of training -> [0, 1], not clipped | ``(x - mean) / std`` |

    Attributes:
        mode: As above.
        low: Of each band the value that becomes 0 in ``unit``.
        high: Of each band the value that becomes 1.
        mean: Of each band, in the raster's units; invalid pixels are filled with it.
        std: Of each band, in the raster's units (population).
    """

    mode: Mode
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def fit(cls, statistics: BandStatistics, mode: Mode) -> Normalization:
        """The normalisation that the training region's statistics give.

        A band that is constant there (see :attr:`BandStatistics.constant`) becomes 0 in ``unit``
        wherever it keeps its value. A band whose quantiles coincide, as a mask does, is scaled by
        minimum and maximum under ``percentile``.

        Raises:
            ValueError: If the mode is unknown, or ``uint8`` meets values outside 0 to 255.
        """
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        low, high = statistics.minimum, statistics.maximum
        if mode == "uint8":
            if min(low) < 0 or max(high) > 255:
                raise ValueError(
                    f"uint8 normalisation is for values from 0 to 255, but the bands reach from "
                    f"{min(low):g} to {max(high):g}; use percentile or zscore"
                )
            low, high = tuple(0.0 for _ in low), tuple(255.0 for _ in high)
        elif mode == "percentile":
            wide = [a < b for a, b in zip(statistics.low, statistics.high, strict=True)]
            low = tuple(np.where(wide, statistics.low, low).tolist())
            high = tuple(np.where(wide, statistics.high, high).tolist())
        return cls(mode=mode, low=low, high=high, mean=statistics.mean, std=statistics.std)

    def unit(self, pixels: Pixels) -> tuple[Float[Tensor, "c h w"], Bool[Tensor, "h w"]]:
        """Scale a window to about [0, 1], and fill its invalid pixels with the band's mean.

        Args:
            pixels: Values ``(c, h, w)`` of any real type, in the raster's units.

        Returns:
            The scaled window, float32, and which of its pixels are valid.

        Raises:
            ValueError: If the number of bands is not that of the training.
        """
        values, valid = pixels
        if len(values) != len(self.mean):
            raise ValueError(f"normalisation of {len(self.mean)} bands met {len(values)} bands")
        # 32-bit integers and doubles may lie so far from 0 that float32 cannot tell them apart.
        wide = np.float32 if values.dtype.itemsize <= 2 or values.dtype == "f4" else np.float64
        low, span = _column(self.low, wide), _column(self._span(), wide)
        with np.errstate(over="ignore", invalid="ignore"):  # of invalid pixels, replaced below
            unit = np.subtract(values, low, dtype=wide)
            unit /= span
            if self.mode != "zscore":
                np.clip(unit, 0, 1, out=unit)
        if not valid.all():
            np.copyto(unit, _column(self.unit_mean(), wide), where=~valid)
        return torch.from_numpy(unit.astype(np.float32, copy=False)), torch.from_numpy(valid)

    def standardize(self, unit: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """From ``unit`` to the network's input; see the table above."""
        if self.mode != "zscore":
            return unit * 3.2 - 1.6
        span = np.asarray(self._span())
        mean = torch.tensor(self.unit_mean(), dtype=unit.dtype, device=unit.device)
        scale = torch.tensor(
            span / np.where(np.asarray(self.std) > 0, self.std, span),
            dtype=unit.dtype,
            device=unit.device,
        )
        return (unit - mean[:, None, None]) * scale[:, None, None]

    def __call__(self, pixels: Pixels) -> tuple[Float[Tensor, "c h w"], Bool[Tensor, "h w"]]:
        """The network's input for a window, and which of its pixels are valid."""
        unit, valid = self.unit(pixels)
        return self.standardize(unit), valid

    def unit_mean(self) -> tuple[float, ...]:
        """The mean of each band in ``unit``: what invalid pixels are filled with."""
        low, span = np.asarray(self.low), np.asarray(self._span())
        unit = (np.asarray(self.mean) - low) / span
        clipped: list[float] = (unit if self.mode == "zscore" else unit.clip(0, 1)).tolist()
        return tuple(clipped)

    def in_units(self, factors: Sequence[float], shifts: Sequence[float]) -> Normalization:
        """The same scaling of values that are stored otherwise: ``x = factor * stored + shift``.

        Args:
            factors: Of each band, positive.
            shifts: Of each band, in the units of this scaling.
        """

        def stored(values: tuple[float, ...]) -> tuple[float, ...]:
            triples = zip(values, factors, shifts, strict=True)
            return tuple((x - shift) / factor for x, factor, shift in triples)

        return replace(
            self,
            low=stored(self.low),
            high=stored(self.high),
            mean=stored(self.mean),
            std=tuple(s / factor for s, factor in zip(self.std, factors, strict=True)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> Normalization:
        """The inverse of :meth:`to_dict`."""
        numbers = {name: tuple(card[name]) for name in ("low", "high", "mean", "std")}
        return cls(mode=card["mode"], **numbers)

    def _span(self) -> tuple[float, ...]:
        return tuple(
            high - low if high > low else 1.0 for low, high in zip(self.low, self.high, strict=True)
        )


def _column(numbers: tuple[float, ...], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    return np.asarray(numbers, dtype)[:, None, None]
