"""Graph embeddings without labels: adversarial graph contrastive learning (ARIEL) and GRACE.

The functions are the commands: ``pretrain(PretrainConfig(data="digits", out="runs/digits"))``
is ``cl-graphs pretrain --data digits --out runs/digits``. Everything is imported when it is
first used.
"""

import importlib.metadata

from cl_core.commands.face import attach
from cl_core.renamed import keep_old_names
from cl_graphs._moved import MOVED

__version__ = importlib.metadata.version("cl-graphs")

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": [
            "DemoConfig",
            "EmbedConfig",
            "EvaluateConfig",
            "PretrainConfig",
            "RobustnessConfig",
        ],
        "hyper": ["ArielHyper", "GraphArielHyper"],
        "data": ["load_graph", "load_graphs", "load_poisoned"],
        "graph": ["AttributedGraph"],
        "collection": ["GraphCollection"],
        "tasks": ["load_trained"],
        "node_task": ["NodeModel"],
        "graph_task": ["GraphModel"],
        "methods.ariel": ["Ariel"],
        "methods.graph_ariel": ["GraphAriel"],
        "methods.attack": ["AttackConfig", "pgd_attack"],
        "methods.graph_attack": ["graph_pgd_attack"],
        "methods.encoder": [
            "GCN",
            "GIN",
            "ProjectionHead",
            "graph_head",
            "normalized_adjacency",
        ],
        "methods.sampling": ["loader_for"],
        "evaluation.embedding": ["embed_graphs"],
        "evaluation.scores": ["node_scores", "whole_graph_scores"],
    },
    verbs={
        "pipeline": ["demo", "embed", "evaluate", "pretrain", "robustness"],
    },
    loads={
        "node encoder": "tasks:load_trained",
        "graph encoder": "tasks:load_trained",
    },
)
__all__ += ["__version__"]
keep_old_names(__name__, MOVED)
