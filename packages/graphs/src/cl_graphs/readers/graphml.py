"""GraphML as a source of attributed graphs: numeric node attributes are the features."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError
from cl_graphs.graph import AttributedGraph
from cl_graphs.readers.arrays import existing_file, readable
from cl_graphs.readers.files import DEGREE, assemble, with_degrees, with_features
from cl_graphs.readers.tables import Column

__all__ = ["load_graphml"]


def load_graphml(
    path: str | Path,
    features: str | Path | None = None,
    labels: str | Path | None = None,
    *,
    normalize_features: bool = False,
) -> AttributedGraph:
    """Build a graph from GraphML: numeric node attributes are features, one attribute the class.

    Args:
        path: The ``.graphml`` file. Entities in it are refused, so nothing else is ever opened.
        features: A feature file or ``degree`` in place of the attributes. Default: all numeric
            attributes but the class, in alphabetical order; each must be given for every node.
        labels: The attribute that holds the class, or a label file; default ``label`` if present.
        normalize_features: Divide each feature row by the sum of its absolute values.

    Raises:
        InputError: If the file is not GraphML, or a feature is missing on some node.
    """
    import networkx as nx

    path = existing_file(path)
    with readable(path, "GraphML"):
        _refuse_entities(path)
        network = nx.read_graphml(path)
    names = [str(node) for node in network]
    table = [attributes for _, attributes in network.nodes(data=True)]
    keys = sorted({key for attributes in table for key in attributes})
    chosen = "label" if labels is None else str(labels)
    by_attribute = labels is None or chosen in keys
    if not by_attribute and not Path(chosen).exists():
        raise InputError(
            f"{path}: --labels {chosen} is neither a file nor a node attribute; "
            f"attributes are: {', '.join(keys) or 'none'}"
        )
    pairs = [(str(u), str(v)) for u, v, *_ in network.edges]
    places = range(1, len(pairs) + 1)
    ends = tuple(Column([pair[k] for pair in pairs], places, "edge") for k in (0, 1))
    given: Column | str | Path | None = labels
    if by_attribute:
        cells = [str(attributes.get(chosen, "")).strip() for attributes in table]
        given = Column(cells, range(1, len(cells) + 1), "node") if any(cells) else None
    weights = sorted({key for *_, attributes in network.edges(data=True) for key in attributes})
    notes = [f"edge attributes not used: {', '.join(weights)}"] if weights else []
    if features is not None and str(features) != DEGREE:
        if isinstance(given, Column):
            raise InputError(
                f"{path}: with --features FILE the nodes follow that file; give --labels FILE too"
            )
        return with_features(path, ends, features, given, notes, normalize_features)
    if features is not None:
        return with_degrees(path, ends, names, given, notes, normalize_features)
    x, told = _numeric_attributes(path, table, [key for key in keys if key != chosen])
    return assemble(path, ends, x, names, path, given, notes + told, normalize_features)


def _numeric_attributes(
    path: Path, table: list[dict[str, Any]], keys: list[str]
) -> tuple[NDArray[Any], list[str]]:
    """Stack the numeric node attributes; tell which those are."""
    text = [k for k in keys if any(isinstance(attributes.get(k), str) for attributes in table)]
    used = [key for key in keys if key not in text]
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
    x = np.array([[float(attributes[key]) for key in used] for attributes in table])
    told = [f"features: node attributes {', '.join(used)}"]
    if text:
        told.append(f"node attributes not used, being text: {', '.join(text)}")
    return x.reshape(len(table), len(used)), told


def _refuse_entities(path: Path) -> None:
    """Stop at an entity declaration: it can open other files or grow without bound."""

    def refuse(*_: Any) -> None:
        raise InputError(f"{path} declares XML entities, which are not read; remove its DOCTYPE")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    with path.open("rb") as file:
        parser.ParseFile(file)
