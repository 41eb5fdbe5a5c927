"""Graphs attacked before training: the poisoning protocol's clean and perturbed edge sets.

One ``.npz`` of plain arrays holds ``edges_clean`` and ``edges_<attack>_<rate>``, each ``(2, e)``
with an edge given once; the 0/1 features as ``x_indices``, ``x_indptr``, ``x_shape`` (CSR, all
values 1); ``y``; and the split ``idx_train``, ``idx_val``, ``idx_test``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.arrays import existing_file, read_arrays, readable
from cl_graphs.graph import AttributedGraph, make_graph
from cl_graphs.readers.arrays import csr_matrix

__all__ = ["load_poisoned", "poisoned_of"]


def load_poisoned(
    path: str | Path, *, normalize_features: bool = False
) -> dict[float, AttributedGraph]:
    """Load every version of an attacked graph.

    Args:
        path: The ``.npz``.
        normalize_features: Divide each feature row by the sum of its absolute values.

    Returns:
        Graphs by rate of edited edges, ascending, the clean one under 0.0; all have the same
        nodes, features, labels and ``splits`` (``train``, ``val``, ``test``).

    Raises:
        InputError: If the file is not of this layout.
    """
    path = existing_file(path)
    return poisoned_of(path, read_arrays(path), normalize_features=normalize_features)


def poisoned_of(
    path: Path, arrays: Mapping[str, NDArray[Any]], *, normalize_features: bool = False
) -> dict[float, AttributedGraph]:
    """Make the graphs of the arrays of such a file; see `load_poisoned`."""
    graphs: dict[float, AttributedGraph] = {}
    with readable(path, "a poisoned graph (edges_clean, x_indices, x_indptr, x_shape, y, idx_*)"):
        rates = {
            0.0 if key == "edges_clean" else float(key.rpartition("_")[2]): key
            for key in arrays
            if key.startswith("edges_")
        }
        if 0.0 not in rates:
            raise InputError(f"{path} has no edges_clean; give a poisoned graph's npz")
        x, y = csr_matrix(arrays, "x_"), arrays["y"]
        splits = {
            part: torch.from_numpy(arrays[f"idx_{part}"].astype(np.int64))
            for part in ("train", "val", "test")
        }
        for part, nodes in splits.items():
            if len(nodes) and not 0 <= nodes.min() <= nodes.max() < x.shape[0]:
                raise InputError(f"{path}: idx_{part} names nodes outside 0 to {x.shape[0] - 1}")
        for rate, key in sorted(rates.items()):
            source, target = arrays[key]
            # Both directions here, or every graph would report each edge as given one way.
            graphs[rate] = make_graph(
                f"{path.stem} {rate:.0%}" if rate else f"{path.stem} clean",
                x,
                np.concatenate([source, target]),
                np.concatenate([target, source]),
                y=y,
                splits=splits,
                normalize_features=normalize_features,
            )
    return graphs
