r"""The collapse spectrum of an encoder: which directions of its space it uses.

Jing et al. 2022 (arXiv 2110.09348), Sec. 3: rows at unit length, singular values $\sigma$ of their
covariance, plotted as natural logarithms in falling order. Three spaces are told apart, because
a loss acts on one of them and a user takes another:

========== =============================================================================
``r``      the representation, before the projector: what is used downstream
``z``      the embedding, after the projector: what the loss sees
``r[d0:]`` of DirectCLR, the channels that the loss does not see
========== =============================================================================

A two-layer projector of SimCLR collapses in ``z`` and not in ``r``; DirectCLR's ``z`` is cut to
``d0`` channels by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.evaluation.features import device_of, frozen
from cl_core.evaluation.spectrum import singular_values
from cl_vision.methods.projectors import FirstChannels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "LOG_FLOOR",
    "Spectrum",
    "log_spectrum",
    "parts",
    "spectra",
    "spectrum",
    "spectrum_figure",
    "spectrum_table",
]

LOG_FLOOR = 1e-30
"""Singular values below it are drawn as if they had this value."""


def log_spectrum(features: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    r"""Return $\ln \sigma_k$ of the features' covariance, falling, at least $\ln 10^{-30}$.

    Args:
        features: Rows, scaled to unit length here.

    Raises:
        ValueError: If there are fewer than two rows or a value is not finite.
    """
    return singular_values(features).clamp_min(LOG_FLOOR).log()


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one set of features.

    Attributes:
        name: Whose.
        values: Singular values of the covariance of unit-length rows, falling.
        rows: How many features were seen.
    """

    name: str
    values: tuple[float, ...]
    rows: int

    @property
    def width(self) -> int:
        """Width of the features."""
        return len(self.values)

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the values' shares; 0 if all rows are equal."""
        values = torch.tensor(self.values, dtype=torch.float64)
        if float(values.sum()) <= 1e-12:
            return 0.0
        return float(torch.special.entr(values / values.sum()).sum().exp())

    @property
    def alive(self) -> int:
        """How many values exceed a thousandth of the largest."""
        return sum(value > 1e-3 * self.values[0] for value in self.values)

    @property
    def logs(self) -> np.ndarray:
        """Natural logarithms of the values, floored."""
        return np.log(np.maximum(self.values, LOG_FLOOR))

    @property
    def note(self) -> str | None:
        """What keeps the spectrum from being the encoder's own."""
        if self.rows > self.width:
            return None
        return (
            f"{self.name}: {self.rows} images for {self.width} dimensions; at most "
            f"{self.rows - 1} singular values can differ from 0, take more images"
        )


def spectrum(features: Float[Tensor, "n d"], name: str = "") -> Spectrum:
    """Measure the spectrum of features.

    Args:
        features: Of ``n`` images.
        name: Whose they are.

    Raises:
        ValueError: If there are fewer than two rows or a value is not finite.
    """
    return Spectrum(name, tuple(singular_values(features).tolist()), len(features))


def parts(
    r: Float[Tensor, "n d"], projector: nn.Module | None = None, *, batch_size: int = 4096
) -> dict[str, Tensor]:
    """Return the spaces of the module docstring: ``r``, ``z``, ``r[d0:]``, as far as there are.

    Args:
        r: Representations.
        projector: Applied in eval mode, without gradient. That of DirectCLR also gives ``r[d0:]``.
        batch_size: Rows projected at once.
    """
    spaces = {"r": r}
    if projector is None:
        return spaces
    device = device_of(projector)
    with frozen(projector):
        z = torch.cat(
            [projector(rows.to(device)).to(r.device) for rows in torch.split(r, batch_size)]
        )
    spaces["z"] = z
    if isinstance(projector, FirstChannels) and projector.out_features < r.shape[1]:
        spaces[f"r[{projector.out_features}:]"] = r[:, projector.out_features :]
    return spaces


def spectra(
    r: Float[Tensor, "n d"], projector: nn.Module | None = None, *, name: str = ""
) -> list[Spectrum]:
    """Measure the spectra of an encoder's spaces.

    Args:
        r: Its representations of ``n`` images, in eval mode.
        projector: What the loss saw them through, if it was kept.
        name: Of the encoder; the spaces' names follow it.
    """
    return [spectrum(x, f"{name} {space}".strip()) for space, x in parts(r, projector).items()]


def spectrum_figure(measured: Sequence[Spectrum], *, relative: bool = False) -> Figure:
    r"""Draw spectra in one plot: $\ln \sigma_k$ over the rank $k$.

    Args:
        measured: Of one run or several; equal spaces have equal line styles, equal runs a colour.
        relative: Draw $\ln (\sigma_k / \sigma_1)$, to compare encoders of different scale.

    Raises:
        ValueError: If there is nothing to draw.
    """
    from cl_core.report.figures import PALETTE, new_figure

    if not measured:
        raise ValueError("no spectrum to draw")
    figure, (axes,) = new_figure(width=7.2, height=4.0)
    runs = list(dict.fromkeys(_owner(one.name) for one in measured))
    styles = {"r": "-", "z": "--"}
    for one in measured:
        logs = one.logs - (one.logs[0] if relative else 0.0)
        owner, _, space = one.name.rpartition(" ")
        axes.plot(
            np.arange(1, one.width + 1),
            logs,
            styles.get(space or one.name, ":" if owner else "-"),
            color=PALETTE[runs.index(_owner(one.name)) % len(PALETTE)],
            linewidth=1.6,
            label=f"{one.name} (effective rank {one.effective_rank:.1f})",
        )
    axes.set_xlabel("$k$")
    axes.set_ylabel(r"$\ln\,(\sigma_k / \sigma_1)$" if relative else r"$\ln\,\sigma_k$")
    axes.legend(frameon=False, fontsize=8)
    return figure


def spectrum_table(measured: Sequence[Spectrum]) -> list[dict[str, object]]:
    """Return a row a spectrum for :meth:`cl_core.report.Report.table`."""
    return [
        {
            "features": one.name,
            "width": one.width,
            "images": one.rows,
            "effective rank": round(one.effective_rank, 2),
            "values above 0.001 of the largest": one.alive,
            "ln of the smallest": round(float(one.logs[-1]), 1),
        }
        for one in measured
    ]


def _owner(name: str) -> str:
    owner, _, space = name.rpartition(" ")
    return owner if space in ("r", "z") or space.startswith("r[") else name
