"""Damaged files, cards and histories end in one line, never in a traceback."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from mutants import mutants

from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_graphs.cards import GraphCard, NodeCard
from cl_graphs.cli import main
from cl_graphs.config import EmbedConfig, PretrainConfig
from cl_graphs.data import load_graph, load_graphs, load_poisoned
from cl_graphs.pipeline import embed, pretrain

N = 12


def write_files(folder):
    """A small graph in every form, and a collection."""
    rng = np.random.default_rng(0)
    x, y = rng.random((N, 3)).astype(np.float32).round(3), np.arange(N) % 2
    ends = np.array([[i, (i * 5 + k) % N] for i in range(N) for k in (1, 2)])
    lines = [f"{u},{v}" for u, v in ends]
    (folder / "e.csv").write_text("source,target\n" + "\n".join(lines) + "\n")
    (folder / "e.txt").write_text("# edges\n" + "\n".join(line.replace(",", " ") for line in lines))
    pq.write_table(pa.table({"source": ends[:, 0], "target": ends[:, 1]}), folder / "e.parquet")
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x)
    sp.save_npz(folder / "sparse.npz", sp.csr_matrix(x * (x > 0.5)))
    rows = "".join(f"{i},{','.join(map(str, row))}\n" for i, row in enumerate(x.tolist()))
    (folder / "x.csv").write_text("id,a,b,c\n" + rows)
    np.save(folder / "y.npy", y)
    (folder / "y.csv").write_text("id,label\n" + "".join(f"{i},{k}\n" for i, k in enumerate(y)))
    (folder / "y.txt").write_text("".join(f"{i} {k}\n" for i, k in enumerate(y)))
    np.savez(folder / "g.npz", x=x, edge_index=ends.T, y=y, train_mask=y == 0)
    matrix = sp.csr_matrix((x > 0.5).astype(np.float32))
    parts = {"x_indices": matrix.indices, "x_indptr": matrix.indptr, "x_shape": matrix.shape}
    splits = {f"idx_{part}": np.arange(3) for part in ("train", "val", "test")}
    np.savez(folder / "p.npz", edges_clean=ends.T, y=y, **parts, **splits)
    network = nx.Graph(ends.tolist())
    for node, about in network.nodes(data=True):
        about |= {"age": float(x[node, 0]), "group": f"g{y[node]}"}
    nx.write_graphml(network, folder / "g.graphml")
    nx.write_gexf(network, folder / "g.gexf")
    nx.write_gml(network, folder / "g.gml")
    tu = folder / "TU"
    tu.mkdir()
    (tu / "TU_A.txt").write_text("1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n")
    (tu / "TU_graph_indicator.txt").write_text("1\n1\n1\n2\n2\n")
    (tu / "TU_node_labels.txt").write_text("0\n1\n2\n0\n1\n")
    (tu / "TU_graph_labels.txt").write_text("0\n1\n")
    attributes = folder / "TA"
    attributes.mkdir()
    for name in ("A", "graph_indicator"):
        text = (tu / f"TU_{name}.txt").read_text()
        (attributes / f"TA_{name}.txt").write_text(text)
    (attributes / "TA_node_attributes.txt").write_text("0.5, 1\n1, 2\n2, 0\n0, 1\n1, 3e2\n")
    return folder


def own(**files):
    def read(folder):
        options = {"edges": "e.csv", "features": "x.npy", "labels": None} | files
        edges = options.pop("edges")
        load_graph(
            folder / edges,
            **{k: folder / v if v and v != "degree" else v for k, v in options.items()},
        )

    return read


def collection(name):
    return lambda folder: load_graphs(folder / name)


def refusal(call):
    """What a call is refused with; None if it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except InputError as error:
            return str(error)
    return None


READERS = {
    "e.csv": own(),
    "e.txt": own(edges="e.txt", features="degree"),
    "e.parquet": own(edges="e.parquet"),
    "x.npy": own(),
    "x.npz": own(features="x.npz"),
    "sparse.npz": own(features="sparse.npz"),
    "x.csv": own(features="x.csv"),
    "y.npy": own(labels="y.npy"),
    "y.csv": own(labels="y.csv"),
    "y.txt": own(labels="y.txt"),
    "g.npz": lambda folder: load_graph(folder / "g.npz"),
    "p.npz": lambda folder: load_poisoned(folder / "p.npz"),
    "g.graphml": lambda folder: load_graph(folder / "g.graphml", labels="group"),
    "g.gexf": lambda folder: load_graph(folder / "g.gexf", labels="group"),
    "g.gml": lambda folder: load_graph(folder / "g.gml", labels="group"),
    "TU/TU_A.txt": collection("TU"),
    "TU/TU_graph_indicator.txt": collection("TU"),
    "TU/TU_node_labels.txt": collection("TU"),
    "TU/TU_graph_labels.txt": collection("TU"),
    "TA/TA_node_attributes.txt": collection("TA"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, name, mutations):
    folder = write_files(tmp_path)
    content = (folder / name).read_bytes()
    READERS[name](folder)  # undamaged it is read
    told = []
    for mutant in mutants(content, mutations, seed=0):
        (folder / name).write_bytes(mutant)
        told.append(refusal(lambda: READERS[name](folder)))
    assert not any("\n" in line for line in told if line)
    assert any(told), "some damage must be noticed"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on one graph and one on a collection."""
    folder = write_files(tmp_path_factory.mktemp("mutations"))
    shared = {"epochs": 1, "trainer": TrainerConfig(progress=False, tensorboard=False)}
    features = str(folder / "x.csv")
    configs = {
        "node": PretrainConfig(
            data=folder / "e.csv",
            features=features,
            out=folder / "node",
            hidden=4,
            projection=4,
            **shared,
        ),
        "graph": PretrainConfig(
            data=folder / "TU", out=folder / "graph", collection={"hidden": 4}, **shared
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so small an embedding collapses
        return {kind: pretrain(config).out for kind, config in configs.items()}


WRONG = (None, [], {}, "x\x1b[31m", True, -1, 10**30, 1.5, [[1]], [None], float(2**40))
CARDS = {"node": NodeCard, "graph": GraphCard}


@pytest.mark.parametrize(
    ("kind", "key"), [(k, f.name) for k, c in CARDS.items() for f in fields(c)]
)
def test_wrong_types_in_the_card_are_refused_in_one_line(runs, kind, key, capsys):
    card = runs[kind] / "model.json"
    content = card.read_text()
    try:
        for value in WRONG:
            record = json.loads(content)
            if record[key] == value or (key == "method" and isinstance(value, str)):
                continue
            card.write_text(json.dumps(record | {key: value}))
            code = main(["embed", "--run", str(runs[kind]), "--overwrite"])
            told = capsys.readouterr().err
            harmless = code == 0  # such as another temperature
            assert harmless or (code == 2 and told.count("\n") == 1), (key, value, told)
            assert "\x1b" not in told
    finally:
        card.write_text(content)


def test_a_damaged_card_history_or_configuration_is_refused_in_one_line(runs, mutations):
    for name in ("model.json", "history.csv", "config.yaml"):
        path = runs["node"] / name
        content = path.read_bytes()
        try:
            for mutant in mutants(content, mutations, seed=1):
                path.write_bytes(mutant)
                told = refusal(lambda: embed(EmbedConfig(run=runs["node"], overwrite=True)))
                assert told is None or "\n" not in told
        finally:
            path.write_bytes(content)
