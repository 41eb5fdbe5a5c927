"""Skin lesions: SuperCon for imbalanced classes, what else could be trained, and honest figures.

The functions are the commands: ``train(TrainConfig(data="isic.csv", root="images", out="runs/a"))``
is ``cl-medical lesions train --data isic.csv --root images --out runs/a``.
"""

from cl_core.commands.face import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": [
            "BenchmarkConfig",
            "DemoConfig",
            "EvaluateConfig",
            "PredictConfig",
            "PrepareConfig",
            "TrainConfig",
        ],
        "hyper": ["FocalHyper", "LDAMHyper", "OptimizerHyper", "Stage1Hyper", "Stage2Hyper"],
        "supercon": ["Classification", "Representation"],
    },
    verbs={"pipeline": ["benchmark", "demo", "evaluate", "predict", "prepare", "train"]},
)
