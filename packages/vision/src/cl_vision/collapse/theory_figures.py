"""Figures of the toy studies: what the equations predict beside what training does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cl_vision.collapse.linear_run import LinearRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "alignment_figure",
    "decay_figure",
    "growth_figure",
    "plateau_figure",
    "turning_point",
    "vanishing_figure",
]

_FLOOR = 1e-30


def turning_point(noises: Sequence[float], eigenvalues: Tensor) -> float | None:
    """Strength of augmentation from which on the smallest eigenvalue of $X$ is negative.

    Args:
        noises: Strengths, rising.
        eigenvalues: ``(s, d)`` of $X$ at each strength.

    Returns:
        Where the smallest one crosses zero, between two strengths on a straight line; None if it
        does not.
    """
    lowest = eigenvalues.amin(dim=1).tolist()
    for i in range(1, len(noises)):
        if lowest[i - 1] >= 0 > lowest[i]:
            share = lowest[i - 1] / (lowest[i - 1] - lowest[i])
            return float(noises[i - 1] + share * (noises[i] - noises[i - 1]))
    return None


def decay_figure(noises: Sequence[float], eigenvalues: Tensor, runs: Sequence[LinearRun]) -> Figure:
    """Predicted: eigenvalues of $X$ turn negative. Measured: weights decay, the rank falls.

    Args:
        noises: Strengths of augmentation, rising.
        eigenvalues: ``(s, d)`` of $X / n$ before training.
        runs: The training at each strength.
    """
    from cl_core.report.figures import PALETTE, new_figure

    figure, (left, middle, right) = new_figure(1, 3, width=9.6, height=3.0)
    for k in range(eigenvalues.shape[1]):
        left.plot(noises, eigenvalues[:, k], color=PALETTE[0], alpha=0.5, linewidth=1)
    left.axhline(0, color="black", linewidth=0.8)
    left.set_ylim(-5, None)
    left.set_title("predicted: eigenvalues of X / n", fontsize=10, loc="left")
    middle.plot(noises, [float(run.weight_ratio[-1]) for run in runs], "o-", markersize=3)
    middle.set_ylim(0, None)
    middle.set_title("measured: noisy over clean weights", fontsize=10, loc="left")
    right.plot(noises, [float(run.effective_ranks[-1]) for run in runs], "o-", markersize=3)
    right.set_ylim(0, None)
    right.set_title("measured: effective rank", fontsize=10, loc="left")
    start = turning_point(noises, eigenvalues)
    for panel in (left, middle, right):
        panel.set_xlabel("standard deviation of the noise")
        if start is not None:
            panel.axvline(start, color=PALETTE[1], linestyle=":", linewidth=1.2)
    return figure


def plateau_figure(runs: Sequence[LinearRun]) -> Figure:
    """Singular values at the end of training for each strength of augmentation."""
    from cl_core.report.figures import new_figure

    figure, (axes,) = new_figure(width=6.4, height=3.4)
    for run in runs:
        axes.plot(_ranks(run), _logs(run.spectra[-1]), label=f"noise {run.noise:g}", linewidth=1.5)
    axes.set_xlabel("$k$")
    axes.set_ylabel(r"$\ln\,\sigma_k$")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def growth_figure(rates: Mapping[int, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """Growth of aligned singular values over their size: lines predicted, points measured.

    Args:
        rates: Sizes, measured and predicted rates by number of layers.
    """
    from cl_core.report.figures import PALETTE, new_figure

    figure, (axes,) = new_figure(width=6.4, height=3.4)
    for colour, (layers, (sizes, measured, predicted)) in zip(PALETTE, rates.items(), strict=False):
        label = f"{layers} layer" + ("s" if layers > 1 else "")
        axes.loglog(sizes, predicted, color=colour, linewidth=1.2)
        axes.loglog(sizes, measured, "o", color=colour, markersize=4, label=label)
    axes.set_xlabel(r"size $\sigma^k$")
    axes.set_ylabel(r"growth rate $d \ln \sigma^k / dt$")
    axes.legend(frameon=False, fontsize=8)
    return figure


def vanishing_figure(runs: Mapping[int, LinearRun]) -> Figure:
    """Singular values of the embedding over the steps, a panel a depth."""
    from cl_core.report.figures import PALETTE, new_figure

    figure, panels = new_figure(1, len(runs), width=3.2 * len(runs), height=3.0)
    lowest = max(-40.0, min(float(_logs(run.spectra).min()) for run in runs.values()))
    for panel, (layers, run) in zip(panels, runs.items(), strict=True):
        panel.plot(run.steps, _logs(run.spectra), color=PALETTE[0], linewidth=1, alpha=0.7)
        panel.set_ylim(lowest - 1, 1)
        panel.set_title(f"{layers} layer" + ("s" if layers > 1 else ""), fontsize=10, loc="left")
        panel.set_xlabel("step")
    panels[0].set_ylabel(r"$\ln\,\sigma_k$")
    return figure


def alignment_figure(run: LinearRun) -> Figure:
    r"""$|V_2^\top U_1|$ before and after training, and how far the conserved quantity drifts.

    Args:
        run: Of two layers or more.
    """
    from cl_core.report.figures import new_figure

    figure, (before, after, right) = new_figure(1, 3, width=9.6, height=3.0)
    for panel, at in ((before, 0), (after, -1)):
        panel.imshow(run.alignment(at).numpy(), vmin=0, vmax=1, cmap="Blues")
        panel.grid(visible=False)
        panel.set_title(f"alignment, step {int(run.steps[at])}", fontsize=10, loc="left")
    right.plot(run.steps, run.drift)
    right.set_ylim(0, None)
    right.set_title("drift of the conserved quantity", fontsize=10, loc="left")
    right.set_xlabel("step")
    return figure


def _ranks(run: LinearRun) -> np.ndarray:
    return np.arange(1, run.spectra.shape[1] + 1)


def _logs(spectra: Tensor) -> Tensor:
    return torch.log(spectra.clamp_min(_FLOOR))
