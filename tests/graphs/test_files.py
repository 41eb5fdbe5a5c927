import pickle
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_core.errors import InputError
from cl_graphs.data import load_graph, require_classes
from cl_graphs.graph import clean_edges
from cl_graphs.readers.files import encode_labels

PATH_OF_FOUR = "source,target\n0,1\n1,2\n2,3\n"


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def folder(tmp_path):
    """A path of four nodes with two features, under a name with a space and an umlaut."""
    place = tmp_path / "mein Ordner für Graphen"
    place.mkdir()
    (place / "edges.csv").write_text(PATH_OF_FOUR)
    np.save(place / "x.npy", np.arange(8.0).reshape(4, 2))
    return place


def load(folder, edges="edges.csv", features="x.npy", **options):
    if options.get("labels"):
        options["labels"] = folder / options["labels"]
    if features not in (None, "degree"):
        features = folder / features
    return load_graph(folder / edges, features=features, **options)


def refusal(folder, **options):
    with pytest.raises(InputError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def neighbours(graph):
    return set(map(tuple, graph.edge_index.T.tolist()))


BOTH_WAYS = {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)}


# Edge lists


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("header.csv", PATH_OF_FOUR),
        ("bare.csv", "0,1\n1,2\n2,3\n"),
        ("semicolon.csv", "source;target\n0;1\n1;2\n2;3\n"),
        ("windows.csv", "\ufeffsource,target\r\n0,1\r\n1,2\r\n2,3\r\n"),
        ("swapped.csv", "weight,target,source\n0.5,1,0\n0.5,2,1\n0.5,3,2\n"),
        ("tabs.tsv", "from\tto\n0\t1\n1\t2\n2\t3\n"),
        ("spaces.txt", "# a comment\n0 1\n1   2\n\n2 3"),
        ("other header.csv", "paper,cites\n0,1\n1,2\n2,3\n"),
        ("quoted.csv", '"source","target"\n"0","1"\n"1","2"\n"2","3"\n'),
    ],
)
def test_every_spelling_of_an_edge_list_gives_the_same_graph(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8", newline="")
    graph = load(folder, edges=name)
    assert neighbours(graph) == BOTH_WAYS
    assert graph.ids == range(4)
    assert graph.x.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert graph.x.dtype == torch.float32
    assert graph.y is None


def test_a_parquet_edge_list_is_read_by_its_column_names(folder):
    table = pa.table({"w": [0.1, 0.2, 0.3], "target": [1, 2, 3], "source": [0, 1, 2]})
    pq.write_table(table, folder / "edges.parquet")
    graph = load(folder, edges="edges.parquet")
    assert neighbours(graph) == BOTH_WAYS
    assert "not used of edges.parquet: column w" in graph.notes


def test_loops_repeats_directions_and_lonely_nodes_are_cleaned_and_told(folder):
    (folder / "edges.csv").write_text("source,target,weight\n0,1,2\n0,1,3\n1,0,1\n2,2,1\n1,2,1\n")
    graph = load(folder)
    assert neighbours(graph) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert graph.num_edges == 2
    assert graph.notes == (
        "not used of edges.csv: column weight",
        "1 self loop dropped",
        "1 repeated edge merged",
        "1 edge given in one direction only: read as undirected",
        "1 isolated node kept",
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.data())
def test_cleaning_gives_the_simple_undirected_graph_and_is_idempotent(n, data):
    node = st.integers(0, n - 1)
    given_pairs = data.draw(st.lists(st.tuples(node, node), max_size=40))
    array = np.array(given_pairs, dtype=np.int64).reshape(-1, 2)
    edge_index, _ = clean_edges(array[:, 0], array[:, 1], n)
    expected = {(u, v) for u, v in given_pairs if u != v}
    expected |= {(v, u) for u, v in expected}
    assert list(map(tuple, edge_index.T.tolist())) == sorted(expected)
    again, notes = clean_edges(*edge_index.numpy(), n)
    assert torch.equal(again, edge_index)
    assert all("isolated" in note for note in notes)


def test_names_of_nodes_follow_the_id_column_of_the_features(folder):
    (folder / "named.csv").write_text("id,age,height\nbob,1,2\namy,3,4\nÖzil,5,6\n")
    (folder / "edges.csv").write_text("source,target\nÖzil,amy\namy,bob\n")
    (folder / "labels.csv").write_text("id,label\nÖzil,player\nbob,fan\n")
    graph = load(folder, features="named.csv", labels="labels.csv")
    assert graph.ids == ["bob", "amy", "Özil"]
    assert neighbours(graph) == {(2, 1), (1, 2), (1, 0), (0, 1)}
    assert graph.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert graph.classes == ("fan", "player")
    assert graph.y.tolist() == [0, -1, 1]
    assert "nodes without a label: 1" in graph.notes


def test_numeric_ids_need_not_be_row_numbers_and_stay_numbers(folder):
    pq.write_table(pa.table({"a": [0.5, 1.5], "id": [900, 17]}), folder / "named.parquet")
    (folder / "edges.csv").write_text("17,900\n")
    graph = load(folder, features="named.parquet")
    assert graph.ids == [900, 17]
    assert graph.x.tolist() == [[0.5], [1.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,target\n0,1\n1,4\n9,0\n", "line 3: node 4 is not one of the 4 rows of x.npy"),
        ("source,target\n0,1\n1,4\n9,0\n", "rows with such nodes: 2"),
        ("source,target\n0,1\n2,-1\n", "line 3: node -1 is negative, not one of the 4 rows"),
        ("source,target\n0,1\nbob,1\n", "line 3: 'bob' is not a row number of x.npy; to use names"),
        ("source,target\n0,1.5\n", "line 2: '1.5' is not a row number"),
        (f"source,target\n0,{10**30}\n", f"line 2: node {10**30} is not one of the 4 rows"),
        (f"source,target\n0,{-(10**30)}\n", "is negative, not one of the 4 rows"),
        ("source,target\n0,1\n1,2,3\n", "line 3: 3 cells where line 1 has 2"),
        ("source,target\n", "has a header and no rows"),
        ("2,2\n3,3\n", "the graph has no edges between different nodes"),
        ("0\n1\n", "has one column; an edge list has two"),
        ("# nothing\n\n", "has no rows"),
        ("", "is empty"),
    ],
)
def test_a_bad_edge_list_is_refused_by_file_and_line(folder, text, message):
    (folder / "edges.csv").write_text(text)
    told = refusal(folder)
    assert message in told
    assert "edges.csv" in told


def test_an_edge_to_an_unknown_name_is_refused(folder):
    (folder / "named.csv").write_text("id,age\nbob,1\namy,3\n")
    (folder / "edges.csv").write_text("source,target\nbob,amy\nbob,eve\n")
    assert "line 3: node eve is not an id of named.csv" in refusal(folder, features="named.csv")


def test_an_id_that_stands_twice_is_refused(folder):
    (folder / "named.csv").write_text("id,age\nbob,1\nbob,3\n")
    assert "id 'bob' stands in several rows" in refusal(folder, features="named.csv")


def test_missing_files_and_folders_are_refused(folder):
    assert "nowhere.csv does not exist" in refusal(folder, edges="nowhere.csv")
    assert "nowhere.npy does not exist" in refusal(folder, features="nowhere.npy")
    assert "nowhere.csv does not exist" in refusal(folder, labels="nowhere.csv")
    (folder / "sub.csv").mkdir()
    assert "sub.csv is a folder; give a file" in refusal(folder, edges="sub.csv")
    assert "sub.csv is a folder; give a file" in refusal(folder, features="sub.csv")


def test_a_binary_file_as_an_edge_list_is_refused(folder):
    (folder / "edges.csv").write_bytes(bytes(range(256)))
    assert "edges.csv is not UTF-8 text" in refusal(folder)
    (folder / "edges.parquet").write_bytes(b"not parquet")
    assert "cannot be read as Parquet" in refusal(folder, edges="edges.parquet")


# Features


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "x", "only"])
def test_npz_features_dense_and_sparse(folder, kind):
    x = np.arange(8.0).reshape(4, 2)
    if kind in ("csr", "csc", "coo"):
        sp.save_npz(folder / "x.npz", sp.coo_matrix(x).asformat(kind))
    elif kind == "x":
        np.savez(folder / "x.npz", x=x, other=np.zeros(3))
    else:
        np.savez(folder / "x.npz", anything=x)
    assert load(folder, features="x.npz").x.tolist() == x.tolist()


@pytest.mark.parametrize("header", ["", "a,b\n", "0,1\n"])
def test_csv_features_with_and_without_a_header(folder, header):
    (folder / "x.csv").write_text(header + "0.5,1\n2,3\n4,5\n6,7e1\n")
    assert load(folder, features="x.csv").x.tolist() == [[0.5, 1], [2, 3], [4, 5], [6, 70]]


def test_rows_are_divided_by_their_sum_only_when_asked(folder):
    np.save(folder / "x.npy", np.array([[1, 3], [0, 0], [-1, 1], [2, 0]]))
    assert load(folder).x.tolist() == [[1, 3], [0, 0], [-1, 1], [2, 0]]
    expected = [[0.25, 0.75], [0, 0], [-0.5, 0.5], [1, 0]]
    assert load(folder, normalize_features=True).x.tolist() == expected
    sp.save_npz(folder / "x.npz", sp.csr_matrix(np.load(folder / "x.npy").astype(float)))
    assert load(folder, features="x.npz", normalize_features=True).x.tolist() == expected


def test_large_sparse_features_stay_sparse(folder):
    rows = np.array([0, 1, 3])
    x = sp.csr_matrix((np.array([1.0, 2.0, 3.0]), (rows, [5, 0, 2**25])), (4, 2**25 + 1))
    sp.save_npz(folder / "x.npz", x)
    graph = load(folder, features="x.npz")
    assert graph.x.layout == torch.sparse_csr
    assert graph.x.shape == x.shape
    assert graph.x.values().tolist() == [1, 2, 3]
    weight = torch.ones(2**25 + 1, 1)
    assert (graph.x @ weight).flatten().tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_value_that_is_no_number_is_refused_with_its_place(folder, value, kind):
    x = np.ones((4, 3))
    x[2, 1] = x[3, 0] = value
    if kind == "npy":
        np.save(folder / "x.npy", x)
    else:
        sp.save_npz(folder / "x.npz", sp.csr_matrix(x))
    told = refusal(folder, features=f"x.{kind}")
    assert f"x.{kind}: 2 feature values are NaN or infinite" in told
    assert "first in row 2, column 1" in told


def test_features_of_a_wrong_form_are_refused(folder):
    (folder / "x.csv").write_text("a,b\n1,2\n3,four\n")
    assert "x.csv, column 'b', line 3: 'four' is not a number" in refusal(folder, features="x.csv")
    (folder / "x.csv").write_text("a,b\n1,2\n3\n")
    assert "x.csv, line 3: 1 cells where line 1 has 2" in refusal(folder, features="x.csv")
    (folder / "x.csv").write_text("a,b\n")
    assert "x.csv, line 1: 'a' is not a number" in refusal(folder, features="x.csv")
    np.save(folder / "x.npy", np.ones(4))
    assert "has 1 dimension(s), features need two" in refusal(folder)
    np.save(folder / "x.npy", np.array([["a", "b"]] * 4))
    assert "features must be real numbers" in refusal(folder)
    np.save(folder / "x.npy", np.empty((4, 0)))
    assert "the nodes have no features" in refusal(folder)
    np.savez(folder / "x.npz", a=np.ones((4, 2)), b=np.ones(4))
    assert "holds a, b; name the feature matrix x or features" in refusal(folder, features="x.npz")
    pq.write_table(pa.table({"a": [1.0] * 4, "b": ["u"] * 4}), folder / "x.parquet")
    assert "column 'b', row 1: 'u' is not a number" in refusal(folder, features="x.parquet")
    pq.write_table(pa.table({"a": [1, None, 3, 4]}), folder / "x.parquet")
    assert "column 'a', row 2: '' is not a number" in refusal(folder, features="x.parquet")


def test_a_graph_without_nodes_is_refused(folder):
    np.save(folder / "x.npy", np.empty((0, 2)))
    pq.write_table(pa.table({"source": [0], "target": [0]}), folder / "edges.parquet")
    assert "node 0 is not one of the 0 rows" in refusal(folder, edges="edges.parquet")
    with pytest.raises(InputError, match="the graph has no nodes"):
        load_graph((np.empty((0, 2)), np.empty((2, 0), dtype=np.int64)))


def test_a_sparse_matrix_that_points_outside_is_refused(folder):
    parts = {"indices": [0, 7, 1, 0], "indptr": [0, 1, 2, 3, 4], "data": np.ones(4)}
    np.savez(folder / "x.npz", **parts, shape=(4, 2), format=b"csr")
    assert "x.npz cannot be read as a scipy sparse matrix" in refusal(folder, features="x.npz")
    parts["indices"] = [0, 1, 1, 0]
    np.savez(folder / "x.npz", **parts, shape=(4, 2), format=b"csr")
    assert load(folder, features="x.npz").x.sum() == 4


def test_pickles_are_refused_and_never_run(folder):
    bomb = np.array([[Bomb(folder / "exploded")]], dtype=object)
    np.save(folder / "bomb.npy", bomb, allow_pickle=True)
    np.savez(folder / "bomb.npz", x=bomb)
    (folder / "raw.npy").write_bytes(pickle.dumps(Bomb(folder / "exploded")))
    for name in ("bomb.npy", "bomb.npz"):
        told = refusal(folder, features=name)
        assert f"{name} cannot be read" in told
        assert "pickled objects, which could run code" in told
        np.savez(folder / "graph.npz", edges_clean=bomb)
        with pytest.raises(InputError, match="pickled objects"):
            load_graph(folder / "graph.npz")
    assert "raw.npy cannot be read" in refusal(folder, features="raw.npy")
    assert "pickled objects" in refusal(folder, labels="bomb.npy")
    assert not (folder / "exploded").exists()


def test_without_features_the_choice_is_the_users(folder):
    assert "give --features FILE, or --features degree" in refusal(folder, features=None)


def test_degrees_on_request_are_one_hot(folder):
    (folder / "edges.csv").write_text("source,target\nhub,a\nhub,b\nhub,c\nc,a\n")
    graph = load(folder, features="degree")
    assert graph.ids == ["a", "b", "c", "hub"]
    assert graph.x.argmax(dim=1).tolist() == [2, 1, 2, 3]
    assert graph.x.sum(dim=1).tolist() == [1, 1, 1, 1]
    assert "features: one-hot node degrees" in graph.notes


def test_degrees_of_numbered_nodes_keep_the_numbers(folder):
    (folder / "edges.csv").write_text("source,target\n1000000000000,7\n7,20\n")
    graph = load(folder, features="degree")
    assert graph.ids == [7, 20, 10**12]
    assert graph.x.argmax(dim=1).tolist() == [2, 1, 1]


# Labels


@pytest.mark.parametrize(
    ("name", "text", "classes", "y"),
    [
        ("l.csv", "id,label\n3,b\n0,a\n1,b\n2,a\n", ("a", "b"), [0, 1, 0, 1]),
        ("l.csv", "label,id\nb,3\na,0\n,1\na,2\n", ("a", "b"), [0, -1, 0, 1]),
        ("l.csv", "3,10\n0,9\n", ("9", "10"), [0, -1, -1, 1]),
        ("l.csv", "label\n10\n9\n-1\n9\n", ("9", "10"), [1, 0, -1, 0]),
        ("l.csv", "Neural Nets\nTheory\nTheory\nTheory\n", ("Neural Nets", "Theory"), [0, 1, 1, 1]),
        ("l.txt", "a, b\nc\nc\nc\n", ("a, b", "c"), [0, 1, 1, 1]),
        ("l.csv", ",label\n0,x\n1,y\n2,x\n3,y\n", ("x", "y"), [0, 1, 0, 1]),
    ],
)
def test_labels_become_classes_in_order(folder, name, text, classes, y):
    (folder / name).write_text(text)
    graph = load(folder, labels=name)
    assert graph.classes == classes
    assert graph.y.tolist() == y
    assert graph.y.dtype == torch.int64


@pytest.mark.parametrize(
    "values", [np.array([2, 5, 5, -1]), np.array([2.0, 5.0, 5.0, np.nan]), ["2", "5", "5", ""]]
)
def test_labels_from_numpy(folder, values):
    np.save(folder / "l.npy", values)
    graph = load(folder, labels="l.npy")
    assert graph.classes == ("2", "5")
    assert graph.y.tolist() == [0, 1, 1, -1]


def test_labels_from_parquet(folder):
    pq.write_table(pa.table({"id": [3, 0], "label": ["b", "a"]}), folder / "l.parquet")
    assert load(folder, labels="l.parquet").y.tolist() == [0, -1, -1, 1]
    pq.write_table(pa.table({"label": [4, None, 4, 7]}), folder / "l.parquet")
    assert load(folder, labels="l.parquet").y.tolist() == [0, -1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\na\nb\n", "l.csv has 2 labels, x.npy has 4 nodes; give a label per node"),
        ("id,label\n0,a\n9,b\n", "l.csv, line 3: node 9 is not one of the 4 rows of x.npy"),
        ("id,label\n0,a\nbob,b\n", "l.csv, line 3: 'bob' is not a row number of x.npy"),
        ("id,label\n0,a\n1,b\n0,b\n", "l.csv, line 4: node 0 has a label already"),
        ("a,b,c\n0,1,2\n", "l.csv has 3 columns; name two of them id and label"),
        ("id\n0\n", "l.csv has no column named label"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder, text, message):
    (folder / "l.csv").write_text(text)
    assert message in refusal(folder, labels="l.csv")


def test_label_arrays_of_a_wrong_form_are_refused(folder):
    np.save(folder / "l.npy", 2 * np.eye(4))
    assert "labels are one row of whole numbers or text" in refusal(folder, labels="l.npy")
    np.save(folder / "l.npy", np.array([0.5, 1, 2, 3]))
    assert "l.npy holds the fraction 0.5" in refusal(folder, labels="l.npy")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["", "-1", "7", "10", "b", "a"]), min_size=1))
def test_encoded_labels_name_the_class_they_stand_for(cells):
    y, names = encode_labels(cells)
    numeric = not {"a", "b"} & set(cells)
    for cell, k in zip(cells, y.tolist(), strict=True):
        unlabelled = cell in ("", "-1")
        assert (k == -1) == unlabelled
        assert unlabelled or names[k] == cell
    assert names == sorted(names, key=int if numeric else None)


def test_evaluation_needs_two_classes(folder):
    with pytest.raises(InputError, match="no labels, and evaluation needs them; give --labels"):
        require_classes(load(folder))
    (folder / "l.csv").write_text("label\nwheat\nwheat\nwheat\nwheat\n")
    graph = load(folder, labels="l.csv")
    with pytest.raises(InputError, match=r"at least 2 classes, the labels hold 1 \('wheat'\)"):
        require_classes(graph)
    (folder / "l.csv").write_text("label\nwheat\nrye\nwheat\nrye\n")
    assert require_classes(load(folder, labels="l.csv")).tolist() == [1, 0, 1, 0]


# GraphML


@pytest.fixture
def network():
    graph = nx.Graph()
    for node, age, income, group in [("a", 30, 1.5, "x"), ("b", 40, 2.5, "y"), ("c", 50, 3.5, "x")]:
        graph.add_node(node, income=income, age=age, label=group, town="Ulm")
    graph.add_edges_from([("a", "b"), ("b", "c")], weight=2.0)
    return graph


def test_graphml_attributes_are_features_in_alphabetical_order(tmp_path, network):
    nx.write_graphml(network, tmp_path / "g.graphml")
    graph = load_graph(tmp_path / "g.graphml")
    assert graph.x.tolist() == [[30, 1.5], [40, 2.5], [50, 3.5]]
    assert graph.ids == ["a", "b", "c"]
    assert graph.classes == ("x", "y")
    assert graph.y.tolist() == [0, 1, 0]
    assert neighbours(graph) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert "features: node attributes age, income" in graph.notes
    assert "node attributes not used, being no numbers: town" in graph.notes
    assert "edge attributes not used: weight" in graph.notes


def test_graphml_takes_its_class_from_a_named_attribute_or_a_file(tmp_path, network):
    nx.write_graphml(nx.DiGraph(network), tmp_path / "g.graphml")
    graph = load_graph(tmp_path / "g.graphml", labels="age")
    assert graph.classes == ("30", "40", "50")
    assert graph.x.shape == (3, 1)
    (tmp_path / "l.csv").write_text("id,label\nc,q\na,p\n")
    graph = load_graph(tmp_path / "g.graphml", labels=tmp_path / "l.csv")
    assert graph.y.tolist() == [0, -1, 1]


def test_graphml_with_degrees_or_a_feature_file(tmp_path, network):
    nx.write_graphml(network, tmp_path / "g.graphml")
    graph = load_graph(tmp_path / "g.graphml", features="degree")
    assert graph.x.argmax(dim=1).tolist() == [1, 2, 1]
    assert graph.y.tolist() == [0, 1, 0]
    (tmp_path / "x.csv").write_text("id,f\nc,1\nb,2\na,3\n")
    (tmp_path / "l.csv").write_text("1\n0\n0\n")
    graph = load_graph(
        tmp_path / "g.graphml", features=tmp_path / "x.csv", labels=tmp_path / "l.csv"
    )
    assert graph.ids == ["c", "b", "a"]
    assert neighbours(graph) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert graph.y.tolist() == [1, 0, 0]


def test_graphml_without_usable_features_is_refused(tmp_path, network):
    del network.nodes["b"]["age"]
    nx.write_graphml(network, tmp_path / "g.graphml")
    with pytest.raises(InputError, match="attribute 'age' is missing on 1 of 3 nodes"):
        load_graph(tmp_path / "g.graphml")
    nx.write_graphml(nx.path_graph(3), tmp_path / "bare.graphml")
    with pytest.raises(InputError, match="no numeric node attribute; give --features FILE"):
        load_graph(tmp_path / "bare.graphml")
    nx.write_graphml(nx.Graph(), tmp_path / "empty.graphml")
    with pytest.raises(InputError, match="the graph has no nodes"):
        load_graph(tmp_path / "empty.graphml")


def test_an_unknown_label_attribute_is_refused_with_the_known_ones(tmp_path, network):
    nx.write_graphml(network, tmp_path / "g.graphml")
    with pytest.raises(InputError, match=r"--labels klass is neither .* age, income, label"):
        load_graph(tmp_path / "g.graphml", labels="klass")


def test_graphml_that_declares_entities_or_is_broken_is_refused(tmp_path):
    (tmp_path / "secret").write_text("42")
    (tmp_path / "g.graphml").write_text(
        f'<!DOCTYPE g [<!ENTITY e SYSTEM "{tmp_path / "secret"}">]><graphml>&e;</graphml>'
    )
    with pytest.raises(InputError, match="declares XML entities, which are not read"):
        load_graph(tmp_path / "g.graphml")
    (tmp_path / "g.graphml").write_text("<graphml><graph>")
    with pytest.raises(InputError, match=r"g\.graphml cannot be read as GraphML"):
        load_graph(tmp_path / "g.graphml")
