"""GraphML, GEXF and GML as sources of attributed graphs: numeric node attributes are features."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_core.tables.arrays import existing_file, readable
from cl_core.tables.files import Column
from cl_graphs.graph import AttributedGraph
from cl_graphs.readers.features import DEGREE
from cl_graphs.readers.files import assemble, with_degrees, with_features
from cl_graphs.readers.tables import FeatureTable

__all__ = ["NETWORK_SUFFIXES", "load_network"]

NETWORK_SUFFIXES = (".graphml", ".gexf", ".gml")
"""Endings of the files that `load_network` reads."""

LARGEST = 256 * 2**20
"""Bytes of a file; in memory a network takes some twenty times as much."""


def load_network(
    path: str | Path,
    features: str | Path | None = None,
    labels: str | Path | None = None,
    *,
    normalize_features: bool = False,
) -> AttributedGraph:
    """Build a graph from a file of networks: numeric node attributes are features, one the class.

    Args:
        path: A ``.graphml``, ``.gexf`` or ``.gml`` file. XML entities are refused, so nothing else
            is ever opened.
        features: A feature file or ``degree`` in place of the attributes. Default: all numeric
            attributes but the class, in alphabetical order; each must be given for every node.
        labels: The attribute that holds the class, or a label file; default ``label`` if present.
            In GEXF and GML, where every node differs in it, ``label`` is its name instead.
        normalize_features: Divide each feature row by the sum of its absolute values.

    Raises:
        InputError: If the file is not of its kind, or a feature is missing on some node.
    """
    path = existing_file(path)
    network, kind = _network(path)
    nodes = list(network)
    table = [attributes for _, attributes in network.nodes(data=True)]
    names = [str(node) for node in nodes]
    if kind != "GraphML" and labels is None:
        called = [str(attributes.get("label", "")).strip() for attributes in table]
        if all(called) and len(set(called)) == len(called):
            names = called
            for attributes in table:
                del attributes["label"]
    keys = sorted({str(key) for attributes in table for key in attributes})
    chosen = "label" if labels is None else str(labels)
    by_attribute = labels is None or chosen in keys
    if not by_attribute and not Path(chosen).exists():
        raise InputError(
            f"{path}: --labels {chosen} is neither a file nor a node attribute; "
            f"attributes are: {', '.join(keys) or 'none'}"
        )
    name_of = dict(zip(nodes, names, strict=True))
    pairs = [(name_of[u], name_of[v]) for u, v, *_ in network.edges]
    places = range(1, len(pairs) + 1)
    ends = tuple(Column([pair[k] for pair in pairs], places, "edge") for k in (0, 1))
    given: Column | str | Path | None = labels
    if by_attribute:
        cells = [str(attributes.get(chosen, "")).strip() for attributes in table]
        given = Column(cells, range(1, len(cells) + 1), "node") if any(cells) else None
    weights = sorted({str(key) for *_, about in network.edges(data=True) for key in about})
    notes = [f"edge attributes not used: {', '.join(weights)}"] if weights else []
    if features is not None and str(features) != DEGREE:
        if isinstance(given, Column):
            raise InputError(
                f"{path}: with --features FILE the nodes follow that file; give --labels FILE too"
            )
        return with_features(path, ends, features, given, notes, normalize_features)
    if features is not None:
        return with_degrees(path, ends, names, given, notes, normalize_features)
    found = _numeric_attributes(path, names, table, [key for key in keys if key != chosen])
    return assemble(path, ends, found, path, given, notes, normalize_features)


def _network(path: Path) -> tuple[Any, str]:
    """Read a file by its ending; none of these formats can run code."""
    import networkx as nx

    if path.stat().st_size > LARGEST:
        raise InputError(
            f"{path} has {path.stat().st_size:,} bytes, more than the {LARGEST:,} that are read; "
            "save its edges and features as tables"
        )
    suffix = path.suffix.lower()
    kind = {".graphml": "GraphML", ".gexf": "GEXF", ".gml": "GML"}[suffix]
    with readable(path, kind):
        if suffix == ".gml":
            return nx.read_gml(path, label="id"), kind
        _refuse_entities(path)
        return nx.read_graphml(path) if suffix == ".graphml" else nx.read_gexf(path), kind


def _numeric_attributes(
    path: Path, names: list[str], table: list[dict[str, Any]], keys: list[str]
) -> FeatureTable:
    """Stack the numeric node attributes; tell which those are."""
    number = (int, float, np.number)
    other = [
        key
        for key in keys
        if any(key in about and not isinstance(about[key], number) for about in table)
    ]
    used = [key for key in keys if key not in other]
    if not used and table:
        raise InputError(
            f"{path}: no numeric node attribute; give --features FILE, or --features {DEGREE}"
        )
    for key in used:
        missing = sum(key not in attributes for attributes in table)
        if missing:
            raise InputError(
                f"{path}: node attribute {key!r} is missing on {missing} of {len(table)} nodes; "
                "complete it, or give it a default"
            )
    with readable(path, "numbers"):  # a whole number may be larger than any float
        rows = [[float(attributes[key]) for key in used] for attributes in table]
    x: NDArray[Any] = np.array(rows).reshape(len(table), len(used))
    told = [f"features: node attributes {', '.join(used)}"]
    if other:
        told.append(f"node attributes not used, being no numbers: {', '.join(other)}")
    return FeatureTable(x, names, tuple(used), told)


def _refuse_entities(path: Path) -> None:
    """Stop at an entity declaration: it can open other files or grow without bound."""

    def refuse(*_: Any) -> None:
        raise InputError(f"{path} declares XML entities, which are not read; remove its DOCTYPE")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    with path.open("rb") as file:
        parser.ParseFile(file)
