"""Graphs that lie as named arrays in an ``.npz`` file or in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_core.errors import InputError
from cl_graphs.graph import AttributedGraph, clean_edges, make_graph
from cl_graphs.readers.features import DEGREE, degree_names, one_hot_degrees
from cl_graphs.readers.labels import SPLIT_WORDS, array_labels

__all__ = ["edge_ends", "graph_of_arrays", "real_matrix"]

X = ("x", "features", "feat", "node_feat")
EDGES = ("edge_index", "edges", "edge_list")
Y = ("y", "labels", "label", "target", "node_label")
"""Names of arrays, the strongest first."""


def graph_of_arrays(
    name: str,
    arrays: Mapping[str, Any],
    *,
    features: str | None = None,
    normalize_features: bool = False,
) -> AttributedGraph:
    """Make a graph of named arrays, as an ``.npz`` file or an object in memory holds them.

    Args:
        name: What messages call it.
        arrays: ``x`` ``(n, d)``, a matrix of numpy, torch or scipy; ``edge_index`` ``(2, e)`` or
            ``(e, 2)``; and if they exist ``y`` ``(n,)`` or, of 0 and 1, ``(n, tasks)``, and the
            published split as ``train_mask``, ``val_mask``, ``test_mask`` or ``idx_train``, ...
        features: ``degree`` for one-hot degrees in place of ``x``.
        normalize_features: Divide each feature row by the sum of its absolute values.

    Raises:
        InputError: If a part is missing or does not fit the others.
    """
    used: set[str] = set()

    def take(names: Sequence[str]) -> Any:
        key = next((key for key in names if arrays.get(key) is not None), None)
        used.add(key or "")
        return None if key is None else arrays[key]

    x, ends, y = take(X), take(EDGES), take(Y)
    if ends is None:
        raise InputError(
            f"{name} holds {', '.join(arrays) or 'nothing'}; name the edges edge_index"
        )
    source, target = edge_ends(name, ends)
    notes, names = [], _texts(take(("feature_names",)))
    declared = take(("num_nodes",))
    num_nodes = _count_nodes(x, declared, source, target)
    if features == DEGREE:
        edge_index, _ = clean_edges(source, target, num_nodes)
        x = one_hot_degrees(edge_index, num_nodes)
        names, notes = degree_names(x.shape[1]), ["features: one-hot node degrees"]
    if x is None:
        raise InputError(
            f"{name} has no node features: name them x, or give --features {DEGREE} for one-hot "
            "node degrees"
        )
    x = real_matrix(name, x)
    y, classes, told = _labels(name, y, x.shape[0], _texts(take(("classes",))))
    splits = _splits(name, arrays, x.shape[0], used, notes)
    notes += told
    ids = take(("ids",))
    unused = [key for key in arrays if key not in used and arrays[key] is not None]
    if unused:
        notes.append(f"not used of {name}: {', '.join(sorted(unused))}")
    return make_graph(
        name,
        x,
        source,
        target,
        y=y,
        ids=None if ids is None else list(ids),
        classes=classes,
        notes=notes,
        splits=splits,
        feature_names=names if len(names) == x.shape[1] else (),
        normalize_features=normalize_features,
    )


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)


def _texts(value: Any) -> tuple[str, ...]:
    return () if value is None else tuple(str(item) for item in value)


def _count_nodes(x: Any, declared: Any, source: NDArray[Any], target: NDArray[Any]) -> int:
    if x is not None:
        return int(x.shape[0])
    if declared is not None:
        return int(declared)
    return int(max(source.max(initial=-1), target.max(initial=-1))) + 1


def real_matrix(name: str, x: Any) -> Any:
    """Features as numpy or scipy holds them."""
    import scipy.sparse as sp

    if isinstance(x, Tensor) and x.layout != torch.strided:
        x = x.detach().cpu().to_sparse(layout=torch.sparse_coo).coalesce()
        index = x.indices().numpy()
        return sp.csrreal_matrix((x.values().numpy(), (index[0], index[1])), tuple(x.shape))
    matrix = x if sp.issparse(x) else _array(x)
    if matrix.dtype.kind not in "iufb" or matrix.ndim != 2:
        raise InputError(
            f"{name}: features must be real numbers (nodes, columns), got {matrix.dtype} of shape "
            f"{matrix.shape}"
        )
    return matrix


def edge_ends(name: str, value: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two ends of each edge."""
    edges = _array(value)
    if edges.dtype.kind not in "iu" or edges.ndim != 2 or 2 not in edges.shape:
        raise InputError(
            f"{name}: edge_index must be whole numbers (2, edges), got {edges.dtype} of shape "
            f"{edges.shape}"
        )
    if edges.shape[0] != 2:
        edges = edges.T
    return edges[0].astype(np.int64), edges[1].astype(np.int64)


def _labels(
    name: str, value: Any, num_nodes: int, known: tuple[str, ...]
) -> tuple[NDArray[Any] | None, Sequence[str] | None, list[str]]:
    if value is None:
        return None, None, []
    y = _array(value)
    if len(y) != num_nodes:
        raise InputError(f"{name}: {len(y):,} labels for {num_nodes:,} nodes; give one per node")
    return array_labels(name, y, known)


def _splits(
    name: str, arrays: Mapping[str, Any], num_nodes: int, used: set[str], notes: list[str]
) -> dict[str, Tensor]:
    """The published split, from masks or lists of nodes; of several the first, which is told."""
    splits = {}
    for part, words in SPLIT_WORDS.items():
        keys = [k for word in words for k in (f"{word}_mask", f"idx_{word}", f"{word}_idx")]
        key = next((key for key in keys if arrays.get(key) is not None), None)
        if key is None:
            continue
        used.add(key)
        value = _array(arrays[key])
        if value.ndim == 2 and value.shape[0] == num_nodes:
            notes.append(f"{name}: {key} holds {value.shape[1]} splits; the first is taken")
            value = value[:, 0]
        mask = key.endswith("mask")
        if mask and value.shape != (num_nodes,):
            raise InputError(f"{name}: {key} must hold a truth value for each of {num_nodes} nodes")
        if not mask and not _are_nodes(value, num_nodes):
            raise InputError(f"{name}: {key} must hold nodes from 0 to {num_nodes - 1}")
        nodes = np.flatnonzero(value.astype(bool)) if mask else value
        splits[part] = torch.from_numpy(np.sort(nodes).astype(np.int64))
    return splits


def _are_nodes(value: NDArray[Any], num_nodes: int) -> bool:
    if value.ndim != 1 or value.dtype.kind not in "iu":
        return False
    return len(value) == 0 or bool(0 <= value.min() <= value.max() < num_nodes)
