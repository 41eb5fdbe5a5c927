"""Graph embeddings without labels: adversarial graph contrastive learning (ARIEL) and GRACE.

The functions are the commands: ``pretrain(PretrainConfig(data="digits", out="runs/digits"))``
is ``cl-graphs pretrain --data digits --out runs/digits``. Everything is imported when it is
first used.
"""

import importlib.metadata

import lazy_loader

from cl_core.renamed import keep_old_names
from cl_graphs._moved import MOVED

__version__ = importlib.metadata.version("cl-graphs")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": [
            "DemoConfig",
            "EmbedConfig",
            "EvaluateConfig",
            "PretrainConfig",
            "RobustnessConfig",
        ],
        "pipeline": ["demo", "embed", "evaluate", "pretrain", "robustness"],
        "data": ["load_graph", "load_graphs"],
    },
)
__all__ += ["__version__"]
keep_old_names(__name__, MOVED)
