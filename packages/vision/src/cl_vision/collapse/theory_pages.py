"""The page of the ``theory`` command: both causes of collapse, predicted and measured."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from cl_core.report import Report
from cl_core.runs import Run
from cl_vision.collapse import theory_figures as draw
from cl_vision.collapse.linear_run import LinearRun
from cl_vision.collapse.toy_studies import (
    growth_rates,
    implicit_regularization,
    predicted_x,
    strong_augmentation,
)

__all__ = ["DEPTHS", "NOISES", "Study", "theory_page"]

Study = Literal["strong_augmentation", "implicit_regularization", "both"]

NOISES = (0.01, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Strengths of augmentation that are tried."""

DEPTHS = (1, 2, 3)
"""Numbers of layers that are tried."""


def theory_page(
    run: Run, *, study: Study = "both", steps: int | None = None, seed: int = 0
) -> dict[str, float]:
    """Run the toy studies and write ``report.html``; some ten seconds for both.

    Args:
        run: Where to.
        study: Which of them.
        steps: Gradient steps of each training; by default 2,000 for strong augmentation and 3,000
            for implicit regularisation.
        seed: Of everything random.

    Returns:
        Of each training ``<study>/<noise or layers>/effective_rank`` and what else it is judged by.

    Raises:
        ValueError: If the study is unknown or there are no steps.
    """
    if study not in get_args(Study):
        raise ValueError(f"study must be one of {', '.join(get_args(Study))}, got {study!r}")
    page = Report("Dimensional collapse", "Linear encoders, predicted and measured")
    metrics: dict[str, float] = {}
    if study != "implicit_regularization":
        metrics |= _strong(page, steps or 2000, seed)
    if study != "strong_augmentation":
        metrics |= _implicit(page, steps or 3000, seed)
    page.section("Options").configuration(run.config)
    page.save(run.output("report.html"))
    return metrics


def _strong(page: Report, steps: int, seed: int) -> dict[str, float]:
    runs = [strong_augmentation(noise, steps=steps, seed=seed) for noise in NOISES]
    spectra = [torch.linalg.eigvalsh(predicted_x(noise, seed=seed)) for noise in NOISES]
    eigenvalues = torch.stack(spectra)
    rows: list[dict[str, object]] = []
    metrics: dict[str, float] = {}
    for noise, one, values in zip(NOISES, runs, eigenvalues, strict=True):
        figures = {
            "negative_eigenvalues": float((values < 0).sum()),
            "weight_ratio": float(one.weight_ratio[-1]),
            "effective_rank": float(one.effective_ranks[-1]),
        }
        rows.append(
            {
                "noise": noise,
                "negative eigenvalues of X": int(figures["negative_eigenvalues"]),
                "noisy over clean weights": round(figures["weight_ratio"], 3),
                "effective rank": round(figures["effective_rank"], 2),
            }
        )
        metrics |= {f"strong_augmentation/{noise:g}/{k}": v for k, v in figures.items()}
    start = draw.turning_point(NOISES, eigenvalues)
    turn = "" if start is None else f" The dotted line, {start:.2f}, is where the first one does."
    page.section("Strong augmentation").text(
        "One linear layer, 16 inputs, noise on the last 8 of them in both views. Gradient flow is "
        "dW/dt = W X, with X the variance of the data minus that of the augmentation, each as the "
        "loss weighs it: where X has a negative eigenvalue, the weights decay."
    ).figure(
        draw.decay_figure(NOISES, eigenvalues, runs),
        f"The eigenvalues of X at the first weights turn negative as the noise grows.{turn} "
        f"After {steps:,} steps the weights of the noisy inputs have shrunk beside the others. The "
        "change is gradual: X changes with the weights, and the noise of the steps keeps the "
        "weights from zero.",
    ).figure(
        draw.plateau_figure(runs),
        "Spectrum of the embedding of clean points: two plateaus of 8 under strong noise.",
    ).table(rows, f"Predicted before training, measured after {steps:,} steps, seed {seed}.")
    return metrics


def _implicit(page: Report, steps: int, seed: int) -> dict[str, float]:
    runs = {depth: implicit_regularization(depth, steps=steps, seed=seed) for depth in DEPTHS}
    rows = [_depth_row(depth, one) for depth, one in runs.items()]
    page.section("Implicit regularisation").text(
        "Linear layers on top of each other, hardly any augmentation: X is positive, and yet "
        "dimensions stay away. In aligned layers a singular value grows at a rate of its own size "
        "to the power 2 (layers - 1), so that small ones have no time to grow; in one layer all "
        "grow at their own X."
    ).figure(
        draw.growth_figure({depth: growth_rates(depth, seed=seed) for depth in DEPTHS}),
        "Aligned layers: the growth rate the equation predicts (lines) and that of the gradient "
        "(points).",
    ).figure(
        draw.vanishing_figure(runs),
        "Training from random layers whose singular values fall as exp(-0.35 k): with one layer "
        "all come up, with more the small ones stay behind.",
    ).figure(
        draw.alignment_figure(runs[2]),
        "Two layers: overlap of their singular vectors, ordered by falling singular values. What "
        "grew is one block, inside which nearly equal values rotate freely. Right: the change of "
        "W1 W1' - W2' W2 relative to its first size; gradient flow conserves it, steps of "
        "stochastic gradients do so only roughly.",
    ).table(rows, f"After {steps:,} steps, seed {seed}.")
    metrics: dict[str, float] = {}
    for depth, one in runs.items():
        name = f"implicit_regularization/{depth}"
        metrics[f"{name}/effective_rank"] = float(one.effective_ranks[-1])
        metrics[f"{name}/alive"] = float(one.alive[-1])
    metrics["implicit_regularization/2/conserved_drift"] = float(runs[2].drift[-1])
    return metrics


def _depth_row(depth: int, one: LinearRun) -> dict[str, object]:
    return {
        "layers": depth,
        "effective rank at the start": round(float(one.effective_ranks[0]), 1),
        "at the end": round(float(one.effective_ranks[-1]), 1),
        "values above 0.001 of the largest": int(one.alive[-1]),
    }
