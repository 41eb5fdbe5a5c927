"""Principal components: few numbers an image, so that a mixture can be fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

__all__ = ["PCA", "fit_pca"]

_ROWS = 8192  # of a block: the float64 copy of all rows would be the largest thing in memory


@dataclass(frozen=True, eq=False)
class PCA:
    """Directions of largest variance, and the scores on them.

    Attributes:
        mean: Of the vectors fitted to, ``(d,)``.
        components: Orthonormal directions as rows, ``(k, d)``; of each the largest loading in
            absolute value is positive, so that equal vectors give equal scores.
        scales: What scores are divided by, ``(k,)``: ones, or their spread if whitened.
        explained: Share of the variance along each direction, ``(k,)``.
    """

    mean: Float64[np.ndarray, " d"]
    components: Float64[np.ndarray, "k d"]
    scales: Float64[np.ndarray, " k"]
    explained: Float64[np.ndarray, " k"]

    def scores(self, x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        """Scores of vectors.

        Raises:
            ValueError: If the vectors have another width.
        """
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"need vectors of {len(self.mean)} numbers, got {x.shape}")
        parts = [
            (x[i : i + _ROWS].astype(np.float64) - self.mean) @ self.components.T / self.scales
            for i in range(0, len(x), _ROWS)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.scales)))

    def vectors(self, scores: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n d"]:
        """The vectors that have these scores and nothing in the other directions."""
        vectors: Float64[np.ndarray, "n d"] = (scores * self.scales) @ self.components + self.mean
        return vectors


def fit_pca(x: Float[np.ndarray, "n d"], dimensions: int, *, whiten: bool = False) -> PCA:
    """Find the directions of largest variance.

    Args:
        x: Vectors; all finite.
        dimensions: Directions kept, at most the vectors' width and one less than their number.
        whiten: Let scores have variance 1.

    Raises:
        ValueError: If there are too few vectors or numbers in each, or values are not finite.
    """
    n, width = x.shape
    most = min(n - 1, width)
    if not 1 <= dimensions <= most:
        raise ValueError(
            f"dimensions must lie between 1 and {most} for {n} vectors of {width} numbers, "
            f"got {dimensions}"
        )
    mean = np.asarray(np.mean(x, axis=0, dtype=np.float64))
    if not np.isfinite(mean).all():
        raise ValueError("the vectors hold values that are not finite")
    covariance = np.zeros((width, width))
    for i in range(0, n, _ROWS):
        centred = x[i : i + _ROWS].astype(np.float64) - mean
        covariance += centred.T @ centred
    covariance /= n - 1
    variances, axes = np.linalg.eigh(covariance)
    variances = np.maximum(variances[::-1], 0)
    components = axes[:, ::-1].T[:dimensions]
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(dimensions), largest])[:, None]
    kept = variances[:dimensions]
    # A direction without variance has scores of 0, which no scale changes.
    scales = np.sqrt(np.where(kept > 0, kept, 1.0)) if whiten else np.ones(dimensions)
    total = variances.sum()
    return PCA(mean, components, scales, kept / total if total > 0 else np.zeros(dimensions))
