"""Image representations without labels: SimCLR, DirectCLR, MoCo v2 and HCSC, and their diagnostics.

The functions are the commands: ``pretrain(PretrainConfig(data="photos", out=Path("runs/photos")))``
is ``cl-vision pretrain --data photos --out runs/photos``. Everything is imported when it is first
used.
"""

import importlib.metadata

from cl_core.commands.face import attach
from cl_core.renamed import keep_old_names
from cl_vision._moved import MOVED

__version__ = importlib.metadata.version("cl-vision")

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": [
            "DemoConfig",
            "EmbedConfig",
            "EvaluateConfig",
            "PretrainConfig",
            "SpectrumConfig",
            "TheoryConfig",
        ],
        "hyper": [
            "DirectCLRHyper",
            "HCSCHyper",
            "MoCoHyper",
            "OptimizerHyper",
            "SimCLRHyper",
        ],
        "condensation.config": ["AssessConfig", "CondenseConfig", "ContinualConfig"],
        "data": ["open_images"],
        "methods.directclr": ["DirectCLR"],
        "hcsc.module": ["HCSC"],
        "methods.moco": ["MoCo"],
        "methods.simclr": ["SimCLR"],
    },
    verbs={
        "pipeline": ["demo", "embed", "evaluate", "pretrain", "spectrum", "theory"],
        "condensation.pipeline": ["assess", "condense", "continual"],
    },
    loads={
        "image encoder with projector": "model:load_model",
    },
)
__all__ += ["__version__"]
keep_old_names(__name__, MOVED)
