"""Fitting a mixture by scikit-learn's EM, with remedies where a component breaks down."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from cl_agriculture.hyper import MixtureHyper
from cl_agriculture.mixture.gaussians import Covariance, Mixture

__all__ = ["Fit", "fit_mixture"]

RETRIES = 3
"""Times that the regularisation is raised tenfold before the shape gives way to ``diag``."""
_LEAST_ROWS = 2.0  # of a component that is not empty
_WORST_CONDITION = 1e12


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit, or why there is none.

    Attributes:
        count: Number of components asked for.
        covariance: Shape asked for.
        mixture: What was fitted; ``None`` if no remedy helped.
        bic: On the rows fitted to; NaN without a mixture.
        converged: Whether EM came to rest within its iterations.
        note: Which remedy was needed, or what went wrong; empty if all went well.
    """

    count: int
    covariance: Covariance
    mixture: Mixture | None
    bic: float = float("nan")
    converged: bool = False
    note: str = ""


def fit_mixture(
    x: Float64[np.ndarray, "n d"],
    count: int,
    covariance: Covariance,
    hyper: MixtureHyper,
    *,
    seed: int,
) -> Fit:
    """Fit a mixture by EM from several seeded k-means starts.

    Of more than ``hyper.sample`` rows the starts are tried on that many, drawn at random, and the
    best one is continued with all of them. A fit with an empty or ill-conditioned component is
    repeated with ten times the regularisation, three times, then with a diagonal covariance.

    Args:
        x: Scores of PCA, finite.
        count: Components.
        covariance: Their shape.
        hyper: Starts, tolerance, iterations, regularisation.
        seed: Of starts and sample.

    Returns:
        The fit. It fails only if no remedy helps; nothing is raised then.

    Raises:
        ValueError: If there are fewer rows than components, or values are not finite.
    """
    if len(x) < max(2, count):
        raise ValueError(f"{count} components need at least as many rows, got {len(x)}")
    if not np.isfinite(x).all():
        raise ValueError("the rows hold values that are not finite")
    base = hyper.regularization * max(float(x.var(axis=0).mean()), 1e-12)
    attempts = [(covariance, 10.0**k) for k in range(RETRIES + 1)]
    if covariance != "diag":
        attempts.append(("diag", 1.0))
    problem = ""
    for shape, factor in attempts:
        model, problem = _attempt(x, count, shape, hyper, base * factor, seed)
        if model is None:
            continue
        mixture = _mixture(model, shape)
        note = "" if factor == 1 and shape == covariance else f"regularised {factor:g} times"
        note = "diagonal instead" if shape != covariance else note
        return Fit(count, covariance, mixture, mixture.bic(x), bool(model.converged_), note)
    return Fit(count, covariance, None, note=problem)


def _attempt(
    x: np.ndarray, count: int, shape: Covariance, hyper: MixtureHyper, added: float, seed: int
) -> tuple[Any, str]:
    """A model without a broken component, or none and what broke."""
    common = {
        "n_components": count,
        "covariance_type": shape,
        "tol": hyper.tolerance,
        "max_iter": hyper.iterations,
        "reg_covar": added,
        "random_state": seed,
    }
    try:
        if len(x) <= hyper.sample:
            model = _em(x, {**common, "n_init": hyper.starts})
        else:
            rows = np.random.default_rng(seed).choice(len(x), hyper.sample, replace=False)
            first = _em(x[np.sort(rows)], {**common, "n_init": hyper.starts})
            model = _em(
                x,
                {
                    **common,
                    "weights_init": first.weights_,
                    "means_init": first.means_,
                    "precisions_init": first.precisions_,
                },
            )
    except (ValueError, np.linalg.LinAlgError) as error:
        return None, " ".join(str(error).split())[:120]
    broken = _broken(model, shape, len(x))
    return (None, broken) if broken else (model, "")


def _em(x: np.ndarray, options: dict[str, Any]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by Fit.converged
        return GaussianMixture(**options).fit(x)


def _broken(model: Any, shape: Covariance, n: int) -> str:
    least = float(model.weights_.min()) * n
    if least < _LEAST_ROWS:
        return f"a component of {least:.1f} rows"
    condition = float(np.linalg.cond(_full(model, shape)).max())
    if not condition < _WORST_CONDITION:
        return f"a covariance of condition {condition:.1e}"
    return ""


def _full(model: Any, shape: Covariance) -> Float64[np.ndarray, "k d d"]:
    k, d = model.means_.shape
    given = np.asarray(model.covariances_, dtype=np.float64)
    if shape == "full":
        return given
    if shape == "tied":
        return np.repeat(given[None], k, axis=0)
    if shape == "diag":
        return given[:, :, None] * np.eye(d)
    return given[:, None, None] * np.eye(d)


def _mixture(model: Any, shape: Covariance) -> Mixture:
    """With the largest component first, so that numbers do not depend on the start."""
    order = np.argsort(-model.weights_, kind="stable")
    weights = np.asarray(model.weights_[order], dtype=np.float64)
    means = np.asarray(model.means_[order], dtype=np.float64)
    return Mixture(weights / weights.sum(), means, _full(model, shape)[order], shape)
