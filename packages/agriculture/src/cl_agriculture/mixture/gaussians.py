r"""A mixture of Gaussians that is given: densities, groups, how sure, how odd.

$$p(x) = \sum_k w_k N_k(x), \qquad r_k(x) = w_k N_k(x) / p(x).$$
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

__all__ = ["Assigned", "Covariance", "Mixture", "num_parameters"]

Covariance = Literal["full", "tied", "diag", "spherical"]


class Assigned(NamedTuple):
    r"""What a mixture says of rows.

    Attributes:
        component: $k$ of the largest responsibility.
        confidence: That responsibility.
        entropy: Of the responsibilities, in nats; 0 is sure.
        ll: $\log p(x)$, in nats.
        density: $\log N_k(x)$ of the own component, without its weight: how typical a row is.
        mahalanobis: Distance to the own component's mean.
    """

    component: Int64[np.ndarray, " n"]
    confidence: Float64[np.ndarray, " n"]
    entropy: Float64[np.ndarray, " n"]
    ll: Float64[np.ndarray, " n"]
    density: Float64[np.ndarray, " n"]
    mahalanobis: Float64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Gaussians.

    Attributes:
        weights: $w_k > 0$, of sum 1.
        means: ``(k, d)``.
        covariances: Of every component in full, ``(k, d, d)``, whatever shape was fitted.
        covariance: That shape.
    """

    weights: Float64[np.ndarray, " k"]
    means: Float64[np.ndarray, "k d"]
    covariances: Float64[np.ndarray, "k d d"]
    covariance: Covariance = "full"

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def parameters(self) -> int:
        """Free numbers of the fit."""
        return num_parameters(self.covariance, *self.means.shape)

    def log_densities(self, x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        r"""$\log N_k(x)$ of every component, without its weight.

        Raises:
            ValueError: If the rows have another width.
        """
        squares, log_roots = self._squares(x)
        d = self.means.shape[1]
        densities: Float64[np.ndarray, "n k"]
        densities = -0.5 * (d * math.log(2 * math.pi) + squares) - log_roots
        return densities

    def log_likelihood(self, x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        r"""$\log p(x)$ of every row, in nats."""
        ll: Float64[np.ndarray, " n"] = logsumexp(
            self.log_densities(x) + np.log(self.weights), axis=1
        )
        return ll

    def responsibilities(self, x: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        """$r_k(x)$; rows sum to 1."""
        joint = self.log_densities(x) + np.log(self.weights)
        r: Float64[np.ndarray, "n k"] = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        return r

    def assign(self, x: Float64[np.ndarray, "n d"]) -> Assigned:
        """Give every row its component, and how well it fits."""
        squares, log_roots = self._squares(x)
        d = self.means.shape[1]
        densities = -0.5 * (d * math.log(2 * math.pi) + squares) - log_roots
        joint = densities + np.log(self.weights)
        ll = logsumexp(joint, axis=1)
        log_r = joint - ll[:, None]
        r = np.exp(log_r)
        own = r.argmax(axis=1)
        rows = np.arange(len(x))
        # r log r is 0 where r has vanished
        entropy = -(r * np.maximum(log_r, -745.0)).sum(axis=1)
        return Assigned(
            own,
            r[rows, own],
            np.maximum(entropy, 0.0),
            ll,
            densities[rows, own],
            np.sqrt(squares[rows, own]),
        )

    def bic(self, x: Float64[np.ndarray, "n d"]) -> float:
        r"""$-2 \log L + p \ln n$ (Schwarz 1978); smaller is better."""
        return float(-2 * self.log_likelihood(x).sum() + self.parameters * math.log(len(x)))

    def aic(self, x: Float64[np.ndarray, "n d"]) -> float:
        r"""$-2 \log L + 2 p$ (Akaike 1974)."""
        return float(-2 * self.log_likelihood(x).sum() + 2 * self.parameters)

    def _squares(
        self, x: Float64[np.ndarray, "n d"]
    ) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, " k"]]:
        """Squared Mahalanobis distances, and half the logarithm of each determinant."""
        k, d = self.means.shape
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(f"need rows of {d} numbers, got {x.shape}")
        squares, log_roots = np.empty((len(x), k)), np.empty(k)
        for c in range(k):
            root = np.linalg.cholesky(self.covariances[c])
            y = solve_triangular(root, (x - self.means[c]).T, lower=True)
            squares[:, c] = np.einsum("dn,dn->n", y, y)
            log_roots[c] = np.log(np.diag(root)).sum()
        return squares, log_roots


def num_parameters(covariance: Covariance, k: int, d: int) -> int:
    """Free numbers of a mixture of ``k`` components in ``d`` dimensions.

    Raises:
        ValueError: If the shape of covariance is unknown.

    Example:
        >>> [num_parameters(shape, 3, 4) for shape in ("full", "tied", "diag", "spherical")]
        [44, 24, 26, 17]
    """
    shapes = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diag": k * d,
        "spherical": k,
    }
    if covariance not in shapes:
        raise ValueError(f"covariance must be one of {', '.join(shapes)}, got {covariance!r}")
    return (k - 1) + k * d + shapes[covariance]
