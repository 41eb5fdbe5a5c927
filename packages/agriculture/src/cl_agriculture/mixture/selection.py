r"""How many groups: the smallest BIC over numbers of components and shapes of covariance.

$\mathrm{BIC} = -2 \log L + p \ln n$. Differences below 10 are no evidence (Kass & Raftery 1995 call
more than 10 "very strong"), so that on a flat curve the smallest number within 10 of the minimum
is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float64

from cl_agriculture.hyper import MixtureHyper
from cl_agriculture.mixture.fitting import Fit, fit_mixture
from cl_agriculture.mixture.gaussians import Covariance, num_parameters
from cl_core.errors import InputError

__all__ = ["EVIDENCE", "Selection", "candidate_counts", "choose", "select_mixture"]

EVIDENCE = 10.0
"""Difference of BIC that counts."""
ROWS_PER_DIMENSION = 5
"""Images for each dimension of each component that a count is tried with."""
COUNTS_WITHOUT_LABELS = 30
MOST_COUNTS = 20
"""Numbers of components compared by default; a longer range is thinned evenly."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What was compared, and what was taken.

    Attributes:
        fits: Every fit.
        chosen: The one taken.
    """

    fits: list[Fit]
    chosen: Fit

    def table(self) -> list[dict[str, object]]:
        """A row a number of components: the BIC of each shape, and the remedies."""
        counts = sorted({fit.count for fit in self.fits})
        rows = []
        for count in counts:
            own = {fit.covariance: fit for fit in self.fits if fit.count == count}
            row: dict[str, object] = {"components": count}
            row |= {
                shape: None if fit.mixture is None else round(fit.bic, 1)
                for shape, fit in own.items()
            }
            notes = [f"{shape}: {fit.note}" for shape, fit in own.items() if fit.note]
            rows.append(row | {"notes": "; ".join(notes)})
        return rows


def candidate_counts(n: int, d: int, classes: int) -> list[int]:
    """Numbers of components that so many rows can tell apart.

    2 to the smaller of three times the classes (30 without labels) and ``n / (5 d)``.

    Args:
        n: Rows.
        d: Dimensions.
        classes: Of the weak labels; 0 for none.

    Returns:
        At most 20 of them, evenly spaced; none if there are too few rows.
    """
    most = min(3 * classes if classes else COUNTS_WITHOUT_LABELS, n // (ROWS_PER_DIMENSION * d))
    if most < 2:
        return []
    spaced = np.linspace(2, most, min(most - 1, MOST_COUNTS))
    return sorted({round(count) for count in spaced.tolist()})


def select_mixture(
    x: Float64[np.ndarray, "n d"],
    hyper: MixtureHyper,
    *,
    clusters: int | None,
    classes: int,
    seed: int,
) -> Selection:
    """Fit every candidate and choose by BIC.

    Args:
        x: Scores of PCA on the training images.
        hyper: Counts and shapes to compare.
        clusters: The number of components where the user knows it; only the shape is chosen then.
        classes: Of the weak labels; 0 for none.
        seed: Of the starts.

    Raises:
        InputError: If there are too few rows for any candidate, or no fit came about.
    """
    n, d = x.shape
    counts = sorted(set(hyper.counts)) or candidate_counts(n, d, classes)
    counts = [clusters] if clusters else counts
    if not counts:
        raise InputError(
            f"{n} images are too few to choose a number of groups in {d} dimensions (2 groups need "
            f"{2 * ROWS_PER_DIMENSION * d}): lower --mixture.dimensions, or give --clusters"
        )
    if max(counts) > n:
        option = "--clusters" if clusters else "--mixture.counts"
        raise InputError(f"{option} {max(counts)}: more groups than the {n} images; lower it")
    shapes: Sequence[Covariance]
    shapes = get_args(Covariance) if hyper.covariance == "auto" else (hyper.covariance,)
    fits = [fit_mixture(x, count, shape, hyper, seed=seed) for count in counts for shape in shapes]
    if not any(fit.mixture is not None for fit in fits):
        raise InputError(
            f"no mixture could be fitted to {n} images in {d} dimensions ({fits[0].note}): lower "
            "--mixture.dimensions or raise --mixture.regularization"
        )
    return Selection(fits, choose(fits, d))


def choose(fits: Sequence[Fit], d: int) -> Fit:
    """Take the smallest number of components within 10 of the smallest BIC.

    Args:
        fits: At least one with a mixture.
        d: Dimensions.

    Returns:
        Of several shapes with that number the one with the smaller BIC, then with fewer numbers.
    """
    good = [fit for fit in fits if fit.mixture is not None]
    least = min(fit.bic for fit in good)
    near = [fit for fit in good if fit.bic <= least + EVIDENCE]
    fewest = min(fit.count for fit in near)
    return min(
        (fit for fit in near if fit.count == fewest),
        key=lambda fit: (fit.bic, num_parameters(fit.covariance, fit.count, d)),
    )
