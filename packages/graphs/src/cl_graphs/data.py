"""Files and names in, graphs out: the entrance to everything a user can bring."""

from __future__ import annotations

import difflib
from pathlib import Path

from cl_core.errors import InputError
from cl_graphs.datasets import NAMED_GRAPHS, load_named
from cl_graphs.graph import AttributedGraph, require_classes

__all__ = ["AttributedGraph", "load_graph", "require_classes"]

GRAPH_NAMES = ("digits", *NAMED_GRAPHS)


def load_graph(
    data: str,
    *,
    root: str | Path | None = None,
    features: str | Path | None = None,
    labels: str | Path | None = None,
    normalize_features: bool = False,
    download: bool = False,
) -> AttributedGraph:
    """Load one attributed graph by its built-in name."""
    by_lower = {name.lower(): name for name in GRAPH_NAMES}
    if data.lower() in by_lower:
        return load_named(
            by_lower[data.lower()], root, normalize_features=normalize_features, download=download
        )
    near = difflib.get_close_matches(data.lower(), by_lower, n=3, cutoff=0.4)
    raise InputError(f"unknown graph {data!r}; nearest: {', '.join(by_lower[m] for m in near)}")
