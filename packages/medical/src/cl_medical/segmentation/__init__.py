"""One network for many small sets of MR volumes: shared filters, a batch norm and head a domain.

The functions are the commands: ``train(TrainConfig(data="manifest.yaml", out="runs/a"))`` is
``cl-medical segment train --data manifest.yaml --out runs/a``.
"""

from cl_core.commands.face import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": [
            "BenchmarkConfig",
            "CheckConfig",
            "DemoConfig",
            "EvaluateConfig",
            "ExtendConfig",
            "PredictConfig",
            "TrainConfig",
        ],
    },
    verbs={"pipeline": ["benchmark", "check", "demo", "evaluate", "extend", "predict", "train"]},
)
