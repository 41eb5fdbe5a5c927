"""What ``from cl_graphs import ...`` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import cl_graphs
from cl_core.config import TrainerConfig
from cl_core.errors import InputError

FACE = {
    "AttackConfig", "Ariel", "ArielHyper", "AttributedGraph", "DemoConfig", "EmbedConfig",
    "EvaluateConfig", "GCN", "GIN", "GraphAriel", "GraphArielHyper", "GraphCollection",
    "GraphModel", "NodeModel", "PretrainConfig", "ProjectionHead", "RobustnessConfig",
    "__version__", "demo", "embed", "embed_graphs", "evaluate", "graph_head", "load",
    "graph_pgd_attack", "load_graph", "load_graphs", "load_poisoned", "load_trained",
    "loader_for", "node_scores", "normalized_adjacency", "pgd_attack", "pretrain",
    "robustness", "whole_graph_scores",
}  # fmt: skip


def test_the_public_names_are_these_and_all_of_them_are_there():
    assert set(cl_graphs.__all__) == FACE
    for name in FACE:
        assert getattr(cl_graphs, name) is not None
        documented = isinstance(getattr(cl_graphs, name), str) or getattr(cl_graphs, name).__doc__
        assert documented, name


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, cl_graphs; print({'torch', 'numpy', 'lightning'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_a_trained_model_is_loaded_and_embeds(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(30, 16, generator=generator) < 0.2).float()
    edges = torch.randint(30, (2, 30), generator=generator)
    graph = cl_graphs.load_graph((x, edges))
    config = cl_graphs.PretrainConfig(
        data=graph,
        out=tmp_path / "run",
        epochs=1,
        hidden=8,
        projection=8,
        trainer=TrainerConfig(progress=False, tensorboard=False),
    )
    model = cl_graphs.load_trained(cl_graphs.pretrain(config).out)
    assert model.embed(graph).shape == (30, 8)
    assert not model.training
    with pytest.raises(InputError, match="not found"):
        cl_graphs.load_trained(tmp_path / "absent")
