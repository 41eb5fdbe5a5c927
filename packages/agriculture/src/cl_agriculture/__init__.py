"""Crop images in groups: masks, CLAWS, mixtures of Gaussians, and a page to look at.

The functions are the commands: ``pretrain(PretrainConfig(data="field", out=Path("runs/field")))``
is ``cl-agriculture pretrain --data field --out runs/field``. Everything is imported when it is
first used.
"""

import importlib.metadata

from cl_core.commands.face import attach

__version__ = importlib.metadata.version("cl-agriculture")

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": [
            "ClusterConfig",
            "DemoConfig",
            "EmbedConfig",
            "ExploreConfig",
            "MaskConfig",
            "PrepareConfig",
            "PretrainConfig",
            "ScoreConfig",
        ],
        "hyper": ["ClawsHyper", "MaskHyper", "MixtureHyper", "ViewHyper"],
        "data": ["open_plants"],
        "claws": ["CLAWS", "claws_loss"],
    },
    verbs={
        "pipeline": ["demo", "embed", "mask", "prepare", "pretrain"],
        "grouping": ["cluster", "explore", "score"],
    },
    loads={
        "plant encoder": "model:load_plant_model",
        "plant clusters": "clusters:load_clusters",
    },
)
__all__ += ["__version__"]
