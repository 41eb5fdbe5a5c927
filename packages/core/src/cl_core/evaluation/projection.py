"""Embeddings on a plane, to look at."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cl_core.errors import InputError
from cl_core.evaluation.labels import Array, as_array

__all__ = ["project_2d"]


def project_2d(
    x: Array,
    method: Literal["pca", "tsne", "umap"] = "pca",
    *,
    normalize: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Map embeddings to the plane.

    Args:
        x: Embeddings ``(n, d)``, array or tensor.
        method: ``"pca"``: the two directions of largest variance, linear, exact and fast;
            distances on the plane never exceed the real ones. ``"tsne"``: neighbours stay
            neighbours (van der Maaten & Hinton 2008), sizes and gaps of groups mean nothing;
            about 10 s for 3,000 rows. ``"umap"``: likewise, faster for many rows (McInnes et al.
            2018); needs ``cl-core[umap]``.
        normalize: Scale rows to unit length first.
        seed: Seed of t-SNE and UMAP.

    Returns:
        Points ``(n, 2)`` in float64. Each axis of PCA points to where its largest weight is
        positive, so that equal embeddings give equal pictures.

    Raises:
        ValueError: If ``x`` is not a matrix of at least two rows or the method is unknown.
        InputError: If umap-learn is asked for and not installed.
    """
    rows = as_array(x).astype(np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("embeddings must be finite, got NaN or infinity")
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] < 1:
        raise ValueError(f"need at least 2 embeddings as rows (n, d), got {rows.shape}")
    if normalize:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if method == "pca":
        return _pca(rows)
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
        tsne = TSNE(perplexity=perplexity, init="random", random_state=seed)
        return np.asarray(tsne.fit_transform(rows), dtype=np.float64)
    if method == "umap":
        return _umap(rows, seed)
    raise ValueError(f'method must be "pca", "tsne" or "umap", got {method!r}')


def _umap(rows: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError as error:
        raise InputError("UMAP needs umap-learn; run pip install cl-core[umap]") from error
    if len(rows) < 4:  # it needs three neighbours of each
        return _pca(rows)
    model = UMAP(
        n_neighbors=min(15, len(rows) - 1),
        init="spectral" if len(rows) >= 32 else "random",
        n_jobs=1,  # with a seed it would say so itself, in a warning
        random_state=seed,
    )
    return np.asarray(model.fit_transform(rows), dtype=np.float64)


def _pca(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=0)
    if centred.shape[1] < 2:
        return np.pad(centred, ((0, 0), (0, 1)))
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    largest = np.abs(axes).argmax(axis=0)
    return np.asarray(centred @ (axes * np.sign(axes[largest, [0, 1]])))
