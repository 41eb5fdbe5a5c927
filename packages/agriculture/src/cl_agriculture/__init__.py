"""Crop images in groups: masks, CLAWS, mixtures of Gaussians, and a page to look at.

The functions are the commands: ``pretrain(PretrainConfig(data="field", out=Path("runs/field")))``
is ``cl-agriculture pretrain --data field --out runs/field``. Everything is imported when it is
first used.
"""

import importlib.metadata

import lazy_loader

__version__ = importlib.metadata.version("cl-agriculture")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
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
        "pipeline": [
            "cluster",
            "demo",
            "embed",
            "explore",
            "mask",
            "prepare",
            "pretrain",
            "score",
        ],
        "data": ["open_plants"],
        "claws": ["CLAWS", "claws_loss"],
    },
)
__all__ += ["__version__"]
