"""One network for many small sets of MR volumes: shared filters, a batch norm and head a domain.

The functions are the commands: ``train(TrainConfig(data="manifest.yaml", out="runs/a"))`` is
``cl-medical segment train --data manifest.yaml --out runs/a``. A trained run is used by
``Segmenter.load("runs/a").predict("knee.nii.gz", domain="knee")``.
"""

from cl_core.commands.face import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": [
            "BenchmarkConfig",
            "CheckConfig",
            "DemoConfig",
            "EmbedConfig",
            "EvaluateConfig",
            "ExtendConfig",
            "PredictConfig",
            "TrainConfig",
        ],
        "domain_norm": ["DomainBatchNorm", "add_domain", "convert_batch_norm", "use_domain"],
        "hyper": [
            "AugmentHyper",
            "ContrastHyper",
            "LossHyper",
            "NetworkHyper",
            "PriorHyper",
            "VolumeHyper",
        ],
        "segmenter": ["Segmenter"],
    },
    verbs={
        "pipeline": [
            "benchmark",
            "check",
            "demo",
            "embed",
            "evaluate",
            "extend",
            "predict",
            "train",
        ]
    },
)
