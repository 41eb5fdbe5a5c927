"""The options of decoding, and the range of values that nothing in a file tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cl_core.checks import OptionError, require_one_of, require_positive
from cl_core.errors import InputError
from cl_core.images.opening import MAX_PIXELS

__all__ = ["Channels", "Decoding", "ValueRange", "ValueRangeError", "full_scale"]

Channels = Literal[1, 3, 4, "keep"]

ValueRange = float | tuple[float, float] | Literal["keep"]
"""The values of 32-bit files that become 0 and 1; one number is the upper of them."""

_SCALES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
# Rounding of a file's writer; nothing that is seen.
_TOLERANCE = 1e-4


class ValueRangeError(InputError):
    """Values outside the range that was given for them.

    This is about the unit of a data set, not about one broken file, so it is never skipped.
    """


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a file becomes a tensor.

    Args:
        channels: 3 for RGB, 1 for grey, 4 for RGB and opacity (255 or 1 where the file has none),
            ``"keep"`` for as many as the file has.
        jpeg_min_side: Allow the JPEG decoder to give a half, quarter or eighth of the size while
            both sides stay this long, in pixels. Far faster for photographs that are shrunk
            afterwards; the pixels differ a little from those of a full decoding, hence off.
        max_pixels: Width times height of the largest image to decode.
        value_range: Of 32-bit files, whose type has no range of its own, the values that become 0
            and 1: ``(low, high)``, or ``high`` alone for ``(0, high)``; ``"keep"`` leaves them as
            they are stored. By default floating point must lie in [0, 1], and integers in
            [0, 65535].

    Raises:
        OptionError: If an option is out of range.
    """

    channels: Channels = 3
    jpeg_min_side: int | None = None
    max_pixels: int = MAX_PIXELS
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        require_one_of("channels", self.channels, (1, 3, 4, "keep"))
        require_positive(max_pixels=self.max_pixels, jpeg_min_side=self.jpeg_min_side)
        low, high = (0.0, 1.0) if self.value_range == "keep" else self._limits(whole=False)
        if not -np.inf < low < high < np.inf:
            raise OptionError(f"value_range must rise from low to high, got {low:g} to {high:g}")

    def scaled(
        self, values: NDArray[np.float32], source: str, *, whole: bool
    ) -> NDArray[np.float32]:
        """Bring the values of a 32-bit file to [0, 1].

        Args:
            values: As stored; changed in place.
            source: The file, for the error.
            whole: Whether integers were stored.

        Raises:
            ValueError: If a value is not finite.
            ValueRangeError: If values lie outside the range by more than rounding.
        """
        if self.value_range == "keep":
            return values
        least, most = float(values.min()), float(values.max())
        if not np.isfinite(least + most):
            raise ValueError("it holds values that are not finite")
        low, high = self._limits(whole=whole)
        slack = _TOLERANCE * (high - low)
        if least < low - slack or most > high + slack:
            raise ValueRangeError(
                f"{source}: its values run from {least:g} to {most:g}, outside {low:g} to "
                f"{high:g}; say which become 0 and 1, as in value_range={_told(least, most)}"
            )
        values -= low
        values /= high - low
        return values.clip(0, 1, out=values)

    def _limits(self, *, whole: bool) -> tuple[float, float]:
        asked: Any = self.value_range
        if asked is None:
            return 0.0, 65535.0 if whole else 1.0
        return tuple(asked) if isinstance(asked, tuple | list) else (0.0, float(asked))


def full_scale(least: float, most: float) -> tuple[float, float]:
    """The range that values from ``least`` to ``most`` are probably stored in.

    From 0 to the first of 1, 255, 1023, 4095, 16383 and 65535 that holds them all, else the
    values' own range.
    """
    if least >= 0:
        for scale in _SCALES:
            if most <= scale * (1 + _TOLERANCE):
                return 0.0, scale
    return least, most if most > least else least + 1


def _told(least: float, most: float) -> str:
    low, high = full_scale(least, most)
    return f"{high:g}" if low == 0 else f"[{low:g},{high:g}]"
