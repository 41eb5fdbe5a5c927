import pickle
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric import datasets
from torch_geometric.io import read_npz, read_planetoid_data, read_tu_data

from cl_core.errors import InputError
from cl_graphs.data import is_graph_collection, load_graph, load_graphs, load_poisoned
from cl_graphs.readers.datasets import NAMED_GRAPHS, digits


def write_planetoid(root, name="Cora", gap=False, seed=0):
    """540 nodes as the citation files have them, the last 20 for testing (one missing: a gap)."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    test = 520 + rng.permutation(20)
    test = test[test != 530] if gap else test
    x = sp.csr_matrix((rng.random((540, 6)) < 0.4).astype(np.float32))
    onehot = np.eye(3, dtype=np.int32)[rng.integers(0, 3, 540)]
    neighbours = defaultdict(list)
    for u, v in [*rng.integers(0, 520, (900, 2)).tolist(), [525, 0], [3, 3], [0, 525], [539, 0]]:
        neighbours[u].append(v)
        neighbours[v].append(u)
    parts = {
        "x": x[:3],
        "y": onehot[:3],
        "allx": x[:520],
        "ally": onehot[:520],
        "tx": x[520 : 520 + len(test)],
        "ty": onehot[520 : 520 + len(test)],
        "graph": neighbours,
    }
    for part, value in parts.items():
        (raw / f"ind.{name.lower()}.{part}").write_bytes(pickle.dumps(value, protocol=4))
    (raw / f"ind.{name.lower()}.test.index").write_text("".join(f"{k}\n" for k in test))
    return raw


def write_benchmark(root, name="Photo", seed=0):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    arrays = {"labels": rng.integers(0, 3, 9)}
    x = sp.csr_matrix(rng.poisson(0.6, (9, 5)).astype(np.float32))
    edges = sp.csr_matrix((rng.random((9, 9)) < 0.2).astype(np.float32))
    for part, matrix in (("attr", x), ("adj", edges)):
        arrays |= {f"{part}_{field}": getattr(matrix, field) for field in ("data", "indices")}
        arrays |= {f"{part}_indptr": matrix.indptr, f"{part}_shape": np.array(matrix.shape)}
    np.savez(raw / NAMED_GRAPHS[name].files[0], **arrays)
    return raw


def write_collection(root, name="MUTAG", node_labels=True):
    """Two graphs: a triangle (with a node label more) and an edge with a lonely node."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    edges = [(1, 2), (2, 1), (2, 3), (3, 2), (1, 3), (3, 1), (4, 5), (5, 4)]
    (raw / f"{name}_A.txt").write_text("".join(f"{u}, {v}\n" for u, v in edges))
    (raw / f"{name}_graph_indicator.txt").write_text("1\n1\n1\n2\n2\n2\n")
    (raw / f"{name}_graph_labels.txt").write_text("1\n-1\n")
    if node_labels:
        (raw / f"{name}_node_labels.txt").write_text("3\n4\n6\n3\n3\n4\n")
    return raw


def pairs(edge_index):
    return sorted(map(tuple, edge_index.T.tolist()))


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# Named graphs


@pytest.mark.parametrize(("name", "gap"), [("Cora", False), ("CiteSeer", True)])
def test_citation_graphs_equal_pygs_reading(tmp_path, name, gap):
    raw = write_planetoid(tmp_path, name, gap=gap)
    graph = load_graph(name.lower(), root=tmp_path)
    expected = read_planetoid_data(str(raw), name)
    assert graph.name == name
    assert torch.equal(graph.x, expected.x)
    assert torch.equal(graph.y, expected.y)
    theirs = pairs(expected.edge_index)
    assert pairs(graph.edge_index) == theirs
    assert ("nodes without a published label, class 0 as usual: 1" in graph.notes) == gap


@pytest.mark.parametrize("name", ["Photo", "Computers", "CS", "Physics"])
def test_benchmark_graphs_equal_pygs_reading(tmp_path, name):
    raw = write_benchmark(tmp_path, name)
    graph = load_graph(name, root=tmp_path)
    expected = read_npz(str(raw / NAMED_GRAPHS[name].files[0]))
    assert torch.equal(graph.x, expected.x)
    assert set(graph.x.unique().tolist()) == {0, 1}
    assert torch.equal(graph.y, expected.y)
    assert pairs(graph.edge_index) == pairs(expected.edge_index)


@pytest.mark.parametrize("name", ["Facebook", "LastFMAsia"])
def test_social_graphs_are_read_from_their_npz(tmp_path, name):
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    x, y = np.arange(8.0).reshape(4, 2), np.array([1, 0, 1, 2])
    edges = np.array([[0, 1], [1, 0], [3, 1], [1, 3]])
    np.savez(raw / NAMED_GRAPHS[name].files[0], features=x, target=y, edges=edges)
    graph = load_graph(name, root=tmp_path)
    assert graph.x.tolist() == x.tolist()
    assert graph.y.tolist() == y.tolist()
    assert pairs(graph.edge_index) == [(0, 1), (1, 0), (1, 3), (3, 1)]


def test_features_stay_raw_unless_asked(tmp_path):
    write_benchmark(tmp_path)
    raw = load_graph("Photo", root=tmp_path).x
    normal = load_graph("Photo", root=tmp_path, normalize_features=True).x
    assert torch.allclose(normal, raw / raw.sum(dim=1, keepdim=True).clamp(min=1), atol=1e-7)
    assert not torch.equal(normal, raw)


def test_reading_writes_nothing_into_the_root(tmp_path):
    write_planetoid(tmp_path)
    write_benchmark(tmp_path)
    write_collection(tmp_path)
    before = contents(tmp_path)
    load_graph("Cora", root=tmp_path)
    load_graph("Photo", root=tmp_path)
    load_graphs("MUTAG", root=tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("inside", ["Photo", "Photo/raw"])
def test_the_set_own_folder_is_a_root_too(tmp_path, inside):
    write_benchmark(tmp_path)
    assert load_graph("Photo", root=tmp_path / inside).num_nodes == 9


def test_digits_need_no_files():
    graph = load_graph("Digits")
    assert graph.summary() == "digits: 1,797 nodes, 9,929 edges, 64 features, 10 classes"
    assert graph.x.min() == 0
    assert graph.x.max() == 1
    source, target = graph.edge_index
    agree = (graph.y[source] == graph.y[target]).float().mean()
    assert 0.955 < agree < 0.965
    assert torch.bincount(source).min() >= 8, "each image keeps its 8 nearest"


def test_digits_join_the_nearest_images():
    graph = digits(neighbours=3)
    distance = torch.cdist(graph.x.double(), graph.x.double()).fill_diagonal_(torch.inf)
    reach = distance.topk(3, largest=False).values[:, -1] + 1e-6  # of equals, any may be chosen
    source, target = graph.edge_index
    assert (distance[source, target] <= torch.maximum(reach[source], reach[target])).all()
    within = (distance[source, target] <= reach[source]).int()
    assert torch.zeros(1797, dtype=torch.int32).index_add(0, source, within).min() >= 3


def test_a_graph_becomes_pyg_data(tmp_path):
    write_benchmark(tmp_path)
    graph = load_graph("Photo", root=tmp_path)
    data = graph.to_data()
    assert torch.equal(data.x, graph.x)
    assert data.n_id.tolist() == list(range(9))
    assert data.is_undirected()


# Refusals


@pytest.mark.parametrize(
    ("name", "nearest"), [("Coar", "Cora"), ("citeser", "CiteSeer"), ("PROTEIN", "PROTEINS")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(InputError, match=f"no graph is called '{name}'; did you mean .*{nearest}"):
        load_graph(name)


def test_a_name_near_to_nothing_is_refused_with_all_names():
    with pytest.raises(InputError, match=r"known names: digits, Cora, .* MUTAG"):
        load_graph("xyzzy-42")


def test_files_that_are_not_there_are_refused_with_the_layout(tmp_path):
    with pytest.raises(InputError, match=r"Cora is read from files: give --root DIR, .*Cora/raw/"):
        load_graph("cora")
    expected = r"expected Cora/raw/ind\.cora\.x and 7 more files there; .* --download true"
    with pytest.raises(InputError, match=expected):
        load_graph("cora", root=tmp_path)
    (write_planetoid(tmp_path) / "ind.cora.graph").unlink()
    with pytest.raises(InputError, match=expected):
        load_graph("cora", root=tmp_path)
    with pytest.raises(InputError, match=r"expected MUTAG/raw/MUTAG_A\.txt there"):
        load_graphs("mutag", root=tmp_path)
    with pytest.raises(InputError, match="MUTAG is read from files: give --root"):
        load_graphs("MUTAG")


def test_other_things_that_are_no_graph_are_refused(tmp_path):
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(InputError, match=r"not a known kind of graph file; known are \.csv"):
        load_graph(tmp_path / "notes.docx")
    with pytest.raises(InputError, match="is a folder without a graph collection"):
        load_graph(tmp_path)
    with pytest.raises(InputError, match="nothing/here does not exist"):
        load_graph("nothing/here")
    with pytest.raises(InputError, match="digits brings its own features and labels"):
        load_graph("digits", features="x.npy")
    with pytest.raises(InputError, match="MUTAG is a collection of graphs, and one graph"):
        load_graph("MUTAG")


def test_damaged_files_are_refused_by_name(tmp_path):
    raw = write_planetoid(tmp_path)
    (raw / "ind.cora.allx").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match=r"ind\.cora\.allx cannot be read as a published array"):
        load_graph("Cora", root=tmp_path)
    shutil.rmtree(raw)
    raw = write_planetoid(tmp_path)
    (raw / "ind.cora.test.index").write_text("520\n521\n")
    with pytest.raises(InputError, match=r"test\.index cannot be read as the published files"):
        load_graph("Cora", root=tmp_path)
    raw = write_benchmark(tmp_path)
    file = raw / "amazon_electronics_photo.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"photo\.npz cannot be read"):
        load_graph("Photo", root=tmp_path)
    np.savez(file, labels=np.zeros(3))
    with pytest.raises(InputError, match=r"photo\.npz cannot be read as the published Photo"):
        load_graph("Photo", root=tmp_path)


def test_a_citation_matrix_that_points_outside_is_refused(tmp_path):
    raw = write_planetoid(tmp_path)
    matrix = sp.csr_matrix(np.eye(20, 6, dtype=np.float32))
    matrix.indices[0] = 10**6
    (raw / "ind.cora.tx").write_bytes(pickle.dumps(matrix, protocol=4))
    with pytest.raises(InputError, match=r"ind\.cora\.tx cannot be read as a published array"):
        load_graph("Cora", root=tmp_path)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_citation_file_cannot_run_code(tmp_path):
    raw = write_planetoid(tmp_path)
    (raw / "ind.cora.tx").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded"), protocol=4))
    with pytest.raises(InputError, match=r"ind\.cora\.tx cannot be read .*: refused to load "):
        load_graph("Cora", root=tmp_path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads((raw / "ind.cora.tx").read_bytes())  # live: an ordinary reader sets it off
    assert (tmp_path / "exploded").exists()


# Download: PyG's own, from a folder that stands for its server


def test_a_download_fetches_raw_files_and_leaves_no_cache(tmp_path, monkeypatch):
    server = write_planetoid(tmp_path / "server")
    monkeypatch.setattr(datasets.Planetoid, "url", str(server))
    root = tmp_path / "root"
    graph = load_graph("Cora", root=root, download=True)
    assert graph.num_nodes == 540
    assert sorted(path.name for path in (root / "Cora").iterdir()) == ["raw"]
    monkeypatch.setattr(datasets.Planetoid, "url", str(tmp_path / "gone"))
    assert load_graph("Cora", root=root, download=True).num_nodes == 540, "not fetched again"


def test_a_download_of_a_collection_unpacks_it(tmp_path, monkeypatch):
    raw = write_collection(tmp_path / "server")
    with zipfile.ZipFile(tmp_path / "MUTAG.zip", "w") as archive:
        for file in raw.iterdir():
            archive.write(file, f"MUTAG/{file.name}")
    monkeypatch.setattr(datasets.TUDataset, "url", str(tmp_path))
    assert len(load_graphs("mutag", root=tmp_path / "root", download=True)) == 2


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.Planetoid, "url", str(tmp_path / "no server"))
    with pytest.raises(InputError, match=r"download of Cora into .* failed") as caught:
        load_graph("Cora", root=tmp_path / "root", download=True)
    assert "\n" not in str(caught.value)


# Poisoned graphs


def write_poisoned(path, **changed):
    x = sp.csr_matrix(np.array([[0, 1], [1, 1], [0, 0], [1, 0]], dtype=np.float32))
    arrays = {
        "edges_clean": np.array([[0, 1], [1, 2]], dtype=np.int32),
        "edges_meta_0.2": np.array([[0, 1, 0], [1, 2, 3]], dtype=np.int32),
        "edges_meta_0.05": np.array([[0], [3]], dtype=np.int32),
        "x_indices": x.indices,
        "x_indptr": x.indptr,
        "x_shape": np.array(x.shape),
        "y": np.array([0, 1, 1, 0]),
        "idx_train": np.array([0], dtype=np.int32),
        "idx_val": np.array([1], dtype=np.int32),
        "idx_test": np.array([2, 3], dtype=np.int32),
    }
    np.savez(path, **{key: value for key, value in (arrays | changed).items() if value is not None})
    return path


def test_poisoned_graphs_come_by_rate_with_their_split(tmp_path):
    path = write_poisoned(tmp_path / "tiny_metattack.npz")
    graphs = load_poisoned(path)
    assert list(graphs) == [0.0, 0.05, 0.2]
    assert pairs(graphs[0.0].edge_index) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert pairs(graphs[0.2].edge_index) == [(0, 1), (0, 3), (1, 0), (1, 2), (2, 1), (3, 0)]
    for graph in graphs.values():
        assert graph.x.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0]]
        assert graph.y.tolist() == [0, 1, 1, 0]
        assert {part: nodes.tolist() for part, nodes in graph.splits.items()} == {
            "train": [0],
            "val": [1],
            "test": [2, 3],
        }
    assert graphs[0.0].notes == ("1 isolated node kept",)
    assert pairs(load_graph(path).edge_index) == pairs(graphs[0.0].edge_index)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edges_clean": None}, "has no edges_clean"),
        ({"edges_meta_0.2": np.array([[0], [9]])}, "20%: an edge leaves the 4 nodes"),
        ({"y": np.zeros(3)}, "3 labels for 4 nodes"),
        ({"idx_test": np.array([4])}, "idx_test names nodes outside 0 to 3"),
        ({"x_shape": None}, "cannot be read as a poisoned graph .*x_shape"),
        ({"x_indices": np.array([1, 0, 1, 7])}, "cannot be read as a poisoned graph"),
    ],
)
def test_a_poisoned_file_of_another_layout_is_refused(tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        load_poisoned(write_poisoned(tmp_path / "g.npz", **changed))


# Collections


def test_a_collection_equals_pygs_reading(tmp_path):
    raw = write_collection(tmp_path)
    graphs = load_graphs("MUTAG", root=tmp_path)
    data, slices, _ = read_tu_data(str(raw), "MUTAG")
    assert [graph.num_nodes for graph in graphs] == [3, 3]
    assert torch.equal(torch.cat([graph.x for graph in graphs]), data.x)
    assert torch.equal(torch.cat([graph.y for graph in graphs]), data.y)
    for k, graph in enumerate(graphs):
        theirs = data.edge_index[:, slices["edge_index"][k] : slices["edge_index"][k + 1]]
        assert pairs(graph.edge_index) == pairs(theirs)
    assert graphs[1].edge_index.tolist() == [[0, 1], [1, 0]], "the lonely node stays"


def test_a_folder_of_the_users_own_is_a_collection(tmp_path):
    raw = write_collection(tmp_path, "my graphs")
    assert is_graph_collection(raw)
    assert is_graph_collection("my graphs", tmp_path)
    assert len(load_graphs(raw)) == len(load_graphs("my graphs", root=tmp_path)) == 2


def test_without_node_labels_attributes_or_degrees_are_the_features(tmp_path):
    raw = write_collection(tmp_path, node_labels=False)
    degrees = [graph.x.argmax(dim=1).tolist() for graph in load_graphs("MUTAG", root=tmp_path)]
    assert degrees == [[2, 2, 2], [1, 1, 0]]
    (raw / "MUTAG_node_attributes.txt").write_text("0.5, 1\n" * 6)
    assert load_graphs("MUTAG", root=tmp_path)[1].x.tolist() == [[0.5, 1]] * 3
    (raw / "MUTAG_graph_labels.txt").unlink()
    assert load_graphs("MUTAG", root=tmp_path)[0].y is None


def test_one_graph_and_a_collection_are_told_apart(tmp_path):
    assert is_graph_collection("MUTAG")
    assert is_graph_collection("proteins")
    assert not is_graph_collection("Cora", tmp_path)
    assert not is_graph_collection("digits")
    (tmp_path / "edges.csv").write_text("0,1\n")
    assert not is_graph_collection(tmp_path / "edges.csv")
    assert not is_graph_collection("no such thing", tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("A", "1, 2\n1, 9\n", "MUTAG_A.txt, line 2: an edge leaves the 6 nodes"),
        ("A", "1, 2\n3, 4\n", "MUTAG_A.txt, line 2: an edge joins two different graphs"),
        ("A", "1, x\n", "MUTAG_A.txt cannot be read as a table of numbers"),
        ("A", "1\n2\n", "MUTAG_A.txt has 1 columns; an edge list has two"),
        ("A", "", "MUTAG_A.txt is empty"),
        ("graph_indicator", "1\n2\n1\n2\n2\n2\n", "graphs must be numbered 1, 2, ..."),
        ("graph_indicator", "1\n1\n1\n3\n3\n3\n", "graphs must be numbered 1, 2, ..."),
        ("graph_indicator", "0\n0\n0\n1\n1\n1\n", "graphs must be numbered 1, 2, ..."),
        ("graph_labels", "1\n", "MUTAG_graph_labels.txt has 1 lines, expected 2"),
        ("node_labels", "1\n", "MUTAG_node_labels.txt has 1 lines, expected 6"),
    ],
)
def test_a_malformed_collection_is_refused_by_file(tmp_path, file, text, message):
    raw = write_collection(tmp_path)
    (raw / f"MUTAG_{file}.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        load_graphs("MUTAG", root=tmp_path)
    assert message in str(caught.value)


def test_a_collection_without_its_indicator_is_refused(tmp_path):
    (write_collection(tmp_path) / "MUTAG_graph_indicator.txt").unlink()
    with pytest.raises(InputError, match=r"MUTAG_graph_indicator\.txt does not exist"):
        load_graphs("MUTAG", root=tmp_path)
