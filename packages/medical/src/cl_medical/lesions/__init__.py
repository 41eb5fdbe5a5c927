"""Skin lesions: SuperCon for imbalanced classes, what else could be trained, and honest figures.

The functions are the commands: ``train(TrainConfig(data="isic.csv", root="images", out="runs/a"))``
is ``cl-medical lesions train --data isic.csv --root images --out runs/a``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": [
            "BenchmarkConfig",
            "DemoConfig",
            "EvaluateConfig",
            "PredictConfig",
            "PrepareConfig",
            "TrainConfig",
        ],
        "hyper": ["FocalHyper", "LDAMHyper", "OptimizerHyper", "Stage1Hyper", "Stage2Hyper"],
        "pipeline": ["benchmark", "demo", "evaluate", "predict", "prepare", "train"],
        "supercon": ["Classification", "Representation"],
    },
)
