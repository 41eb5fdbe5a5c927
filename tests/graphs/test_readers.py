"""Tables are joined by owner, features by name, and what is not used is told."""

from __future__ import annotations

import gzip

import networkx as nx
import numpy as np
import pytest
import torch

from cl_core.errors import InputError
from cl_graphs.data import load_graph, load_graphs
from cl_graphs.readers.tu import read_collection

RING = "source,target\n" + "".join(f"{i},{(i + 1) % 6}\n" for i in range(6))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "e.csv").write_text(RING)
    return tmp_path


def classes_of(graph):
    return [graph.classes[k] if k >= 0 else None for k in graph.y.tolist()]


def notes_of(graph):
    return "\n".join(graph.notes)


OWNERS = ("id", "node", "Node_ID", "name", "VERTEX", "")


@pytest.mark.parametrize("head", OWNERS)
def test_labels_with_owners_are_joined_by_them(folder, head):
    rows = "".join(f"{i},c{i}\n" for i in reversed(range(6)))
    (folder / "y.csv").write_text(f"{head},label\n{rows}")
    graph = load_graph(folder / "e.csv", features="degree", labels=folder / "y.csv")
    assert classes_of(graph) == [f"c{i}" for i in range(6)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("y.txt", "5 b\n0 a\n1 a\n2 b\n3 b\n4 a\n"),
        ("y.tsv", "5\tb\n0\ta\n1\ta\n2\tb\n3\tb\n4\ta\n"),
        ("y.csv", "paper,label\n5,b\n0,a\n1,a\n2,b\n3,b\n4,a\n"),
        ("y.csv", "community,paper,node\nb,x,5\na,x,0\na,x,1\nb,x,2\nb,x,3\na,x,4\n"),
    ],
)
def test_other_forms_of_owned_labels(folder, name, text):
    (folder / name).write_text(text)
    graph = load_graph(folder / "e.csv", features="degree", labels=folder / name)
    assert classes_of(graph) == ["a", "a", "b", "b", "a", "b"]


def test_labels_whose_owner_is_unclear_are_refused(folder):
    (folder / "y.csv").write_text("paper,label\nx1,a\nx2,b\nx3,a\nx4,b\nx5,a\nx6,b\n")
    with pytest.raises(InputError, match="none says whose label it is; name two of them id and"):
        load_graph(folder / "e.csv", features="degree", labels=folder / "y.csv")


def test_owners_that_count_from_1_or_are_no_nodes_are_refused(folder):
    for head in ('""', "id"):  # the names of rows that R writes
        rows = "".join(f'"{i + 1}","c{i % 2}"\n' for i in range(6))
        (folder / "y.csv").write_text(f'{head},"label"\n{rows}')
        with pytest.raises(InputError, match=r"its owners count from 1 and the nodes of e\.csv fr"):
            load_graph(folder / "e.csv", features="degree", labels=folder / "y.csv")
    (folder / "y.csv").write_text("id,label\n" + "".join(f"00{i},a\n" for i in range(6)))
    with pytest.raises(InputError, match="none of its 6 owners, such as '000', is a node of"):
        load_graph(folder / "e.csv", features="degree", labels=folder / "y.csv")


def test_ids_with_a_point_are_the_whole_numbers_they_are(folder):
    rows = "".join(f"{i}.0,c{i}\n" for i in reversed(range(6)))
    (folder / "y.csv").write_text(f"node,label\n{rows}")
    graph = load_graph(folder / "e.csv", features="degree", labels=folder / "y.csv")
    assert classes_of(graph) == [f"c{i}" for i in range(6)]


def test_a_label_before_its_id_is_refused_in_txt(folder):
    (folder / "y.txt").write_text("".join(f"c{i % 2} {i}\n" for i in range(6)))
    with pytest.raises(InputError, match="its lines hold a label and then an id; turn them round"):
        load_graph(folder / "e.csv", features="degree", labels=folder / "y.txt")
    (folder / "y.txt").write_text("".join(f"green tea{i % 2}\n" for i in range(6)))
    graph = load_graph(folder / "e.csv", features="degree", labels=folder / "y.txt")
    assert graph.classes == ("green tea0", "green tea1")


MISSING = ["-1.0", "nan", "NA", "", "-1", "unknown", "NULL", "None", "?", "#N/A", "-", "-nan"]


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_label_is_no_class(folder, missing):
    cells = [missing if i % 3 == 0 else f"{i % 2}.0" for i in range(6)]
    rows = "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    (folder / "y.csv").write_text(f"id,label\n{rows}")
    graph = load_graph(folder / "e.csv", features="degree", labels=folder / "y.csv")
    assert graph.classes == ("0", "1")
    assert graph.y.tolist() == [-1, 1, 0, -1, 0, 1]
    assert "nodes without a label: 2" in graph.notes


def test_labels_of_nodes_without_an_edge_are_left_out_and_told(folder):
    (folder / "y.txt").write_text("".join(f"{i} {i % 2}\n" for i in range(9)))
    graph = load_graph(folder / "e.csv", features="degree", labels=folder / "y.txt")
    assert graph.y.tolist() == [0, 1, 0, 1, 0, 1]
    assert "labels of 3 nodes without an edge are not used" in notes_of(graph)
    np.save(folder / "x.npy", np.ones((6, 2)))
    with pytest.raises(InputError, match=r"y\.txt, line 7: node 6 is not one of the 6 rows"):
        load_graph(folder / "e.csv", features=folder / "x.npy", labels=folder / "y.txt")


def test_a_column_called_split_is_the_published_split(folder):
    words = ("train", "Train", "val", "test", "", "testing")
    rows = "".join(f"{i},{i % 2},{word}\n" for i, word in enumerate(words))
    (folder / "y.csv").write_text(f"id,label,split\n{rows}")
    graph = load_graph(folder / "e.csv", features="degree", labels=folder / "y.csv")
    parts = {part: nodes.tolist() for part, nodes in graph.splits.items()}
    assert parts == {"train": [0, 1], "val": [2], "test": [3, 5]}


# Edges


def test_a_nameless_index_is_no_end_of_an_edge(folder):
    rows = "".join(f"{k},{k % 10},{(k * 3 + 1) % 10}\n" for k in range(20))
    (folder / "e.csv").write_text(f",node_1,node_2\n{rows}")
    graph = load_graph(folder / "e.csv", features="degree")
    assert graph.ids == list(range(10))
    assert "the nameless first column, an index" in notes_of(graph)
    (folder / "e.csv").write_text(f",0,1\n{rows}")
    assert torch.equal(load_graph(folder / "e.csv", features="degree").edge_index, graph.edge_index)


def test_an_edge_list_headed_by_numbers_is_told(folder):
    (folder / "e.csv").write_text("0,1,2\n7,8,0.5\n8,9,0.25\n")
    graph = load_graph(folder / "e.csv", features="degree")
    assert graph.ids == [7, 8, 9]
    assert "the first line, 0,1,2, is read as a header" in notes_of(graph)
    (folder / "e.csv").write_text("0,1\n7,8\n")
    graph = load_graph(folder / "e.csv", features="degree")
    assert graph.ids == [0, 1, 7, 8]
    assert "is read as an edge; if it is a header, write source,target" in notes_of(graph)


def test_a_column_that_numbers_the_edges_is_no_end_of_them(folder):
    (folder / "e.csv").write_text("edge,a,b\n0,7,8\n1,8,9\n2,9,7\n")
    with pytest.raises(InputError, match="the first column counts the rows, so it may number the"):
        load_graph(folder / "e.csv", features="degree")
    (folder / "e.csv").write_text("a,b,weight\n0,1,0.5\n1,2,0.5\n2,3,0.25\n")  # a path
    assert load_graph(folder / "e.csv", features="degree").num_edges == 3


def test_gzipped_edges_are_read(folder):
    with gzip.open(folder / "e.csv.gz", "wt") as file:
        file.write(RING)
    plain, packed = (load_graph(folder / f, features="degree") for f in ("e.csv", "e.csv.gz"))
    assert torch.equal(plain.edge_index, packed.edge_index)


# Features


def test_features_with_owners_are_joined_by_them(folder):
    rows = "".join(f"{i},{i * 10}\n" for i in reversed(range(6)))
    for head in ("node,age\n", ",age\n", ""):
        (folder / "x.csv").write_text(head + rows)
        graph = load_graph(folder / "e.csv", features=folder / "x.csv")
        assert graph.ids == [5, 4, 3, 2, 1, 0]
        assert graph.x[:, 0].tolist() == [50, 40, 30, 20, 10, 0]
        ends = {(graph.ids[u], graph.ids[v]) for u, v in graph.edge_index.T.tolist()}
        assert (0, 1) in ends
        assert (0, 3) not in ends


def test_a_first_column_that_may_be_ids_or_a_feature_is_refused(folder):
    rows = "".join(f"{i},{i * 10}\n" for i in reversed(range(6)))
    (folder / "x.csv").write_text(f"paper,age\n{rows}")
    with pytest.raises(InputError, match="first column, 'paper', holds names of nodes; head it id"):
        load_graph(folder / "e.csv", features=folder / "x.csv")
    rows = "".join(f"{i},{i * 10}\n" for i in range(6))
    (folder / "x.csv").write_text(f"age,income\n{rows}")
    graph = load_graph(folder / "e.csv", features=folder / "x.csv")
    assert graph.feature_names == ("age", "income")
    assert "counts the rows and is kept as a feature" in notes_of(graph)


# Files of networks


@pytest.mark.parametrize("kind", ["graphml", "gexf", "gml"])
def test_networks_give_attributes_and_tell_what_is_not_used(tmp_path, kind):
    network = nx.path_graph(4)
    for k, about in network.nodes(data=True):
        about |= {"age": 10 * k, "town": "Ulm", "group": f"g{k % 2}"}
    network.edges[0, 1]["weight"] = 2.0
    path = tmp_path / f"g.{kind}"
    getattr(nx, f"write_{kind}")(network, path)
    graph = load_graph(path, labels="group")
    assert graph.feature_names[:1] == ("age",)
    assert graph.x[:, 0].tolist() == [0, 10, 20, 30]
    assert classes_of(graph) == ["g0", "g1", "g0", "g1"]
    assert graph.num_edges == 3
    assert "weight" in notes_of(graph)
    assert "town" in notes_of(graph)


def test_labels_that_name_every_node_of_gml_are_names(tmp_path):
    text = (
        'node [ id 7 label "Ann" age 3 ] node [ id 8 label "Bob" age 4 ] edge [ source 7 target 8 ]'
    )
    (tmp_path / "g.gml").write_text(f"graph [ {text} ]")
    graph = load_graph(tmp_path / "g.gml")
    assert graph.ids == ["Ann", "Bob"]
    assert graph.y is None
    assert graph.x.tolist() == [[3], [4]]


def test_a_gexf_file_with_entities_is_refused(tmp_path):
    (tmp_path / "g.gexf").write_text('<!DOCTYPE g [<!ENTITY e "x">]><gexf>&e;</gexf>')
    with pytest.raises(InputError, match="declares XML entities"):
        load_graph(tmp_path / "g.gexf")


# npz


def arrays(**changed):
    made = {
        "x": np.arange(8.0).reshape(4, 2),
        "edge_index": np.array([[0, 1, 2], [1, 2, 3]]),
        "y": np.array([0, 2, 2, -1]),
        "train_mask": np.array([True, True, False, False]),
        "test_mask": np.array([False, False, True, False]),
    }
    return {name: value for name, value in (made | changed).items() if value is not None}


def test_named_arrays_make_a_graph_with_its_split(tmp_path):
    np.savez(tmp_path / "g.npz", **arrays(edge_attr=np.ones(3)))
    graph = load_graph(tmp_path / "g.npz")
    assert graph.x.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert graph.classes == ("0", "2")
    assert graph.y.tolist() == [0, 1, 1, -1]
    assert {part: nodes.tolist() for part, nodes in graph.splits.items()} == {
        "train": [0, 1],
        "test": [2],
    }
    assert "not used of g.npz: edge_attr" in graph.notes
    assert graph.num_edges == 3


def test_columns_of_answers_are_tasks_unless_each_row_has_one(tmp_path):
    tasks = np.array([[1.0, 1], [0, np.nan], [0, 1], [1, 0]])
    np.savez(tmp_path / "g.npz", **arrays(y=tasks))
    graph = load_graph(tmp_path / "g.npz")
    assert graph.y.tolist() == [[1, 1], [0, -1], [0, 1], [1, 0]]
    assert "2 tasks" in graph.summary()
    np.savez(tmp_path / "g.npz", **arrays(y=np.eye(4)[[2, 0, 1, 2]]))
    graph = load_graph(tmp_path / "g.npz")
    assert graph.y.tolist() == [2, 0, 1, 2]
    assert "labels: one-hot columns, 4 classes" in graph.notes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edge_index": None}, "name the edges edge_index"),
        ({"x": None}, "no node features: name them x, or give --features degree"),
        ({"edge_index": np.array([[0.5], [1]])}, "edge_index must be whole numbers"),
        ({"edge_index": np.array([[0], [9]])}, "an edge leaves the 4 nodes"),
        ({"y": np.zeros(3)}, "3 labels for 4 nodes"),
        ({"y": np.array([0.5, 1, 1, 1])}, "the fraction 0.5"),
        ({"train_mask": np.ones(3)}, "train_mask must hold a truth value for each of 4 nodes"),
        ({"train_mask": None, "idx_train": np.array([7])}, "idx_train must hold nodes from 0 to 3"),
        ({"x": np.full((4, 1), np.nan)}, "4 feature values are NaN"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changed, message):
    np.savez(tmp_path / "g.npz", **arrays(**changed))
    with pytest.raises(InputError, match=message):
        load_graph(tmp_path / "g.npz")


# Collections


def write_tu(folder, labels, extra=""):
    folder.mkdir()
    name = folder.name
    (folder / f"{name}_A.txt").write_text("1, 2\n2, 1\n2, 3\n3, 2\n")
    (folder / f"{name}_graph_indicator.txt").write_text("1\n1\n2\n"[:4] + "1\n")
    (folder / f"{name}_node_labels.txt").write_text("".join(f"{k}\n" for k in labels))
    if extra:
        (folder / f"{name}_{extra}.txt").write_text("1\n")
    return folder


def test_a_vocabulary_gives_the_columns_of_the_collection_it_comes_from(tmp_path):
    old = read_collection(write_tu(tmp_path / "OLD", (0, 1, 2)))
    assert old.vocabulary == ((0, 1, 2),)
    options = {"features": old.features, "vocabulary": old.vocabulary}
    again = read_collection(write_tu(tmp_path / "SAME", (1, 2, 1)), **options)
    assert again[0].x.argmax(1).tolist() == [1, 2, 1]
    assert again[0].x.shape == (3, 3)
    with pytest.raises(InputError, match="line 3: the model has not learnt from node label 3"):
        read_collection(write_tu(tmp_path / "NEW", (1, 2, 3)), **options)


def test_a_label_of_thirty_million_makes_no_columns(tmp_path):
    with pytest.raises(InputError, match="would make 30,000,000 one-hot columns"):
        load_graphs(write_tu(tmp_path / "BOMB", (1, 2, 30_000_000)))


def test_files_of_a_collection_that_are_not_used_are_told(tmp_path):
    graphs = load_graphs(write_tu(tmp_path / "MORE", (0, 1, 0), extra="edge_labels"))
    assert graphs.notes == ("not used of MORE: edge_labels",)
