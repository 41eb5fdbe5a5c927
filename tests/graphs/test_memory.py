"""Graphs in memory go the way of files, in every verb."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cl_core.checks import OptionError
from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_graphs.config import EmbedConfig, EvaluateConfig, PretrainConfig, RobustnessConfig
from cl_graphs.data import is_graph_collection, load_graph, load_graphs
from cl_graphs.pipeline import embed, evaluate, pretrain, robustness

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    from torch_geometric.data import Data
    from torch_geometric.nn import SAGEConv

QUIET = TrainerConfig(progress=False, tensorboard=False)
SMALL = {"hidden": 8, "projection": 8, "epochs": 2, "subgraph_size": 40, "trainer": QUIET}


class SAGE(nn.Module):
    """An encoder of a user's own, in PyG's convention."""

    def __init__(self, in_features):
        super().__init__()
        self.first, self.second = SAGEConv(in_features, 8), SAGEConv(8, 6)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


class Wide(SAGE):
    def __init__(self, in_features):
        super().__init__(in_features)
        self.first = SAGEConv(in_features, 9)
        self.second = SAGEConv(9, 6)


def make_sage(in_features):
    return SAGE(in_features)


def data(seed=0, n=60):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.rand(n, 6, generator=g) < torch.where(y[:, None] == torch.arange(6) % 2, 0.6, 0.2)
    near = torch.rand(n, n, generator=g) < torch.where(y[:, None] == y, 0.15, 0.02)
    edges = near.triu(1).nonzero().T
    return Data(x=x.float(), edge_index=torch.cat([edges, edges.flip(0)], 1), y=y)


def graphs(count=24):
    return [
        Data(
            x=torch.eye(3)[torch.arange(4 + k % 3) % 3],
            edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
            y=torch.tensor([k % 2]),
        )
        for k in range(count)
    ]


def test_every_form_of_one_graph_is_the_same_graph():
    one = data()
    graph = load_graph(one)
    parts = (one.x.numpy(), one.edge_index.numpy(), one.y.numpy())
    named = dict(zip(("x", "edge_index", "y"), parts, strict=True))
    for form in (graph, parts, named, [one], (one.x, one.edge_index.T, one.y)):
        other = load_graph(form)
        for name in ("x", "edge_index", "y"):
            assert torch.equal(getattr(other, name), getattr(graph, name)), type(form)
    assert not is_graph_collection([one])
    assert is_graph_collection([one, one])


def test_what_is_not_used_of_an_object_is_told_and_masks_are_the_split():
    one = data()
    one.pos, one.train_mask = torch.zeros(60, 2), torch.arange(60) < 10
    graph = load_graph(one)
    assert "not used of the graph in memory: pos" in graph.notes
    assert graph.splits["train"].tolist() == list(range(10))


def test_an_object_without_features_needs_degrees_and_nonsense_is_refused():
    one = data()
    bare = Data(edge_index=one.edge_index, num_nodes=60)
    with pytest.raises(InputError, match="no node features"):
        load_graph(bare)
    assert load_graph(bare, features="degree").num_features == 65
    with pytest.raises(OptionError, match="a set is no graph"):
        load_graph({1, 2})
    with pytest.raises(OptionError, match="can be 'degree' or its own"):
        load_graph(one, features="x.npy")


def test_a_list_of_graphs_is_a_collection_and_its_faults_are_told():
    assert load_graphs(graphs())[5].y.tolist() == [1]
    odd = graphs()
    odd[3].x = torch.ones(6, 9)
    with pytest.raises(InputError, match="graph 3 of the list has 9 node features"):
        load_graphs(odd)
    odd = graphs()
    odd[2].edge_index = torch.tensor([[0], [77]])
    with pytest.raises(InputError, match="graph 2 of the list: an edge leaves"):
        load_graphs(odd)
    odd = graphs()
    odd[1].y = torch.tensor([0.5])
    with pytest.raises(InputError, match="graph 1 of the list: y must be one whole number"):
        load_graphs(odd)


def test_every_verb_takes_a_graph_in_memory_and_records_it(tmp_path):
    one = data()
    run = pretrain(PretrainConfig(data=one, out=tmp_path / "run", **SMALL)).out
    assert "data: (in memory) Data" in (run / "config.yaml").read_text()
    record = json.loads((run / "data.json").read_text())
    assert "60 nodes" in record["about"]
    assert len(record["digest"]) == 64
    for config, verb in ((EvaluateConfig, evaluate), (EmbedConfig, embed)):
        with pytest.raises(InputError, match=r"trained on data in memory .* give --data"):
            verb(config(run=run))
    assert evaluate(EvaluateConfig(run=run, data=one, splits=2)).metrics["accuracy"] > 0.5
    assert embed(EmbedConfig(run=run, data=one)).metrics == {"rows": 60, "dimensions": 8}
    measured = robustness(
        RobustnessConfig(run=run, data=one, splits=2, perturbations=("pgd_features",), radii=(0.1,))
    )
    assert set(measured.metrics) >= {"clean/0/accuracy", "pgd_features/0.1/accuracy"}


def test_a_run_is_not_continued_on_another_graph(tmp_path):
    pretrain(PretrainConfig(data=data(), out=tmp_path / "run", **SMALL))
    more = SMALL | {"epochs": 3, "resume": True}
    with pytest.raises(InputError, match=r"--resume: the data .* are not those"):
        pretrain(PretrainConfig(data=data(seed=1), out=tmp_path / "run", **more))
    labels_gone = data()
    labels_gone.y = None
    pretrain(PretrainConfig(data=labels_gone, out=tmp_path / "run", **more))


def test_a_collection_in_memory_trains_and_embeds(tmp_path):
    config = {"batch_size": 8, "epochs": 1, "trainer": QUIET, "collection": {"hidden": 4}}
    run = pretrain(PretrainConfig(data=graphs(), out=tmp_path / "run", **config)).out
    assert embed(EmbedConfig(run=run, data=graphs(10))).metrics == {"rows": 10, "dimensions": 12}


def test_an_own_encoder_trains_is_saved_and_comes_back_by_module_or_allowed_name(tmp_path):
    one, given = data(), SAGE(6)
    before = {k: v.clone() for k, v in given.state_dict().items()}
    run = pretrain(PretrainConfig(data=one, out=tmp_path / "run", encoder=given, **SMALL)).out
    assert all(torch.equal(before[k], v) for k, v in given.state_dict().items()), "it is copied"
    with pytest.raises(InputError, match=r"encoder in memory \(SAGE\): give encoder="):
        embed(EmbedConfig(run=run, data=one))
    vectors = []
    for k, again in enumerate((SAGE(6), make_sage)):
        out = tmp_path / f"e{k}"
        embed(EmbedConfig(run=run, data=one, encoder=again, out=out, format="npy"))
        vectors.append(np.load(out / "embeddings.npy"))
    np.testing.assert_array_equal(*vectors)
    wrong = {"Linear cannot embed a graph": nn.Linear(6, 6), "do not fit together": Wide(6)}
    for message, module in wrong.items():
        with pytest.raises(InputError, match=message):
            embed(EmbedConfig(run=run, data=one, encoder=module, out=tmp_path / "x"))


def test_a_named_encoder_is_imported_only_when_allowed(tmp_path, monkeypatch):
    (tmp_path / "own_place.py").write_text(
        "from pathlib import Path\n"
        "Path('imported').touch()\n"
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, d):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(d, 4)\n"
        "    def forward(self, x, adjacency):\n"
        "        return adjacency @ self.linear(x)\n"
    )
    monkeypatch.chdir(tmp_path)
    one = data()
    options = {"encoder": "own_place:Net", **SMALL}
    run = pretrain(PretrainConfig(data=one, out=tmp_path / "run", **options)).out
    Path("imported").unlink()
    with pytest.raises(InputError, match="allow it by --encoder own_place:Net"):
        embed(EmbedConfig(run=run, data=one))
    assert not Path("imported").exists()
    assert embed(EmbedConfig(run=run, data=one, encoder="own_place:Net")).metrics["dimensions"] == 4
    for wrong, message in (
        ("own_place", "must be a place such as"),
        ("own_place:Nothing", "has no function or class Nothing"),
        ("no_such_place:Net", "importing no_such_place failed"),
        ("own_place:Path", "not a torch module|failed"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain(PretrainConfig(data=one, out=tmp_path / "o", encoder=wrong, **SMALL))
        assert not (tmp_path / "o").exists(), wrong


def test_features_are_matched_by_name(tmp_path):
    one = data()
    names = tuple("abcdef")
    named = {"x": one.x, "edge_index": one.edge_index, "feature_names": names}
    run = pretrain(PretrainConfig(data=named, out=tmp_path / "run", **SMALL)).out
    order = [3, 0, 5, 1, 4, 2]
    permuted = named | {"x": one.x[:, order], "feature_names": [names[k] for k in order]}
    vectors = []
    for k, form in enumerate((named, permuted, one)):
        out = tmp_path / f"e{k}"
        told = embed(EmbedConfig(run=run, data=form, out=out, format="npy")).lines
        vectors.append(np.load(out / "embeddings.npy"))
        assert any("reordered by name" in line for line in told) == (k == 1)
        assert any("have no names: taken for a, b, c, d" in line for line in told) == (k == 2)
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    other = named | {"feature_names": ["z", *names[1:]]}
    with pytest.raises(InputError, match="lacks 'a' and has instead 'z'"):
        embed(EmbedConfig(run=run, data=other, out=tmp_path / "x"))


def test_low_homophily_is_told():
    g = torch.Generator().manual_seed(0)
    one = data()
    assert load_graph(one).homophily()[0] > 0.8
    one.y = torch.randint(2, (60,), generator=g)
    share, chance = load_graph(one).homophily()
    assert abs(share - chance) < 0.15
    from cl_graphs.node_task import NodeTask

    assert any("homophily is low" in line for line in NodeTask(load_graph(one)).summary())
    assert not any("homophily" in line for line in NodeTask(load_graph(data())).summary())
