from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cl_core.seeding import seed_everything
from cl_graphs.cards import NodeCard
from cl_graphs.evaluation.protocol import logistic_probe
from cl_graphs.evaluation.robustness import (
    Judge,
    Protocol,
    Strengths,
    attacked_graphs,
    measure,
    side_by_side,
)
from cl_graphs.graph import make_graph
from cl_graphs.node_task import NodeModel

SPLITS = {"splits": 3, "train_fraction": 0.3, "seed": 0}
PROTOCOL = Protocol(**SPLITS)


def strengths(**changed):
    return Strengths(budgets=(0.1, 0.3), radii=(0.05, 0.2), **changed)


CARD = NodeCard(
    method="ARIEL",
    in_features=18,
    hidden=16,
    projection=16,
    activation="relu",
    temperature=0.4,
    alpha=50.0,
    subgraph_size=90,
)


@pytest.fixture(scope="module")
def graph():
    rng = np.random.default_rng(0)
    y = np.arange(90) // 30
    x = (rng.random((90, 18)) < np.where(np.arange(18) // 6 == y[:, None], 0.6, 0.1)) * 1.0
    near = rng.random((90, 90)) < np.where(y[:, None] == y, 0.15, 0.01)
    source, target = np.nonzero(np.triu(near, 1))
    return make_graph("blocks", x.astype(np.float32), source, target, y=y)


@pytest.fixture(scope="module")
def model():
    seed_everything(0)
    return NodeModel(CARD).eval()


def test_the_clean_accuracy_is_the_probes(graph, model):
    judge = Judge(model, graph, graph.y, PROTOCOL)
    probe = logistic_probe(model.embed(graph), graph.y, selection="argmax", **SPLITS)
    point = judge("clean", 0.0, graph)
    assert (point.accuracy, point.accuracy_std) == (probe.accuracy, probe.accuracy_std)


def test_attacks_keep_to_their_budget_and_their_half(graph, model):
    versions = {
        (name, strength): attacked
        for name, strength, attacked in attacked_graphs(model, graph, strengths())
    }
    assert len(versions) == 6
    for (name, strength), attacked in versions.items():
        moved = (attacked.x - graph.x).abs().max().item()
        edges = {tuple(e) for e in graph.edge_index.T.tolist()}
        flips = len(edges ^ {tuple(e) for e in attacked.edge_index.T.tolist()}) // 2
        if name == "PGD structure":
            assert moved == 0
            # Flips are drawn with a sum of probabilities of the budget.
            assert 0 < flips < 2 * strength * graph.num_edges
        else:
            assert moved == pytest.approx(strength, abs=1e-6)
            assert (flips == 0) == (name == "PGD features")


def test_a_feature_attack_hurts_more_than_noise_of_its_size(graph, model):
    points = {
        (point.perturbation, point.strength): point.accuracy
        for point in measure([model], graph, graph.y, strengths(), PROTOCOL)
    }
    assert points["PGD features", 0.2] < points["feature noise", 0.2] - 0.1
    assert points["clean", 0.0] > 0.8


def test_poisoned_versions_are_measured_for_every_model(graph, model):
    seed_everything(1)
    other = NodeModel(replace(CARD, method="GRACE")).eval()
    points = list(
        measure(
            [model, other],
            graph,
            graph.y,
            strengths(steps=1),
            PROTOCOL,
            poisoned={0.5: graph},
        )
    )
    table = side_by_side(points)
    assert [row["perturbation"] for row in table][:1] == ["clean"]
    (poisoned,) = [row for row in table if row["perturbation"] == "poisoned"]
    clean = table[0]
    for name in ("ARIEL", "GRACE"):
        assert poisoned[f"{name}/accuracy"] == clean[f"{name}/accuracy"]  # it is the clean graph
    assert all("GRACE/accuracy" in row for row in table)


def test_the_global_generator_is_left_alone(graph, model):
    before = torch.get_rng_state()
    list(measure([model], graph, graph.y, strengths(steps=1), PROTOCOL))
    assert torch.equal(before, torch.get_rng_state())


def test_only_what_is_wanted_is_done_and_counted(graph, model):
    wanted = ("dice", "pgd_features")
    told = []
    points = list(
        measure(
            [model],
            graph,
            graph.y,
            strengths(perturbations=wanted, steps=1),
            PROTOCOL,
            tell=told.append,
        )
    )
    assert [point.perturbation for point in points] == [
        "clean",
        *["DICE"] * 2,
        *["PGD features"] * 2,
    ]
    assert len(told) == len(points) == 1 + strengths(perturbations=wanted).versions
    assert strengths().versions == 12


def test_an_attack_on_some_nodes_moves_what_reaches_them_and_all_nodes_are_exact(graph, model):
    options = {"perturbations": ("pgd_features",), "steps": 1}
    (_, _, every), *_ = attacked_graphs(model, graph, strengths(**options))
    (_, _, same), *_ = attacked_graphs(model, graph, strengths(**options, attack_nodes=90))
    (_, _, some), *_ = attacked_graphs(model, graph, strengths(**options, attack_nodes=5))
    assert torch.equal(every.x, same.x)
    touched = (some.x != graph.x).any(1)
    assert 5 <= touched.sum() < 90  # two layers reach the neighbours' neighbours of five nodes


def test_a_softmax_probe_can_judge(graph, model):
    judge = Judge(model, graph, graph.y, replace(PROTOCOL, solver="softmax"))
    exact = Judge(model, graph, graph.y, PROTOCOL)
    one, other = (j("clean", 0.0, graph).accuracy for j in (judge, exact))
    assert abs(one - other) < 0.1
