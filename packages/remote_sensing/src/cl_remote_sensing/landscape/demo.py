"""The steps of the demo: a landscape, a pretraining, two fine-tunings, a map."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cl_core.runs import Run
from cl_remote_sensing.config import DemoConfig, FinetuneConfig, PredictConfig, PretrainConfig
from cl_remote_sensing.hyper import NetworkHyper
from cl_remote_sensing.landscape.draw import Landscape

__all__ = ["DemoSteps", "demo_steps"]


@dataclass(frozen=True)
class DemoSteps:
    """Options of the commands that a demo runs.

    Attributes:
        pretrain: On all tiles, without labels.
        finetune: On a hundredth of the tiles, from the pretraining and from scratch.
        predict: The map, by the first of these.
    """

    pretrain: PretrainConfig
    finetune: tuple[FinetuneConfig, FinetuneConfig]
    predict: PredictConfig


def demo_steps(config: DemoConfig, run: Run, files: Landscape) -> DemoSteps:
    """Choose small sizes: a narrow ResNet-18 on tiles of 64 pixels, seconds an epoch."""
    pretrain = PretrainConfig(
        data=str(files.scene),
        out=run.output("pretrain"),
        tile=64,
        view=48,
        epochs=4,
        batch_size=32,
        seed=config.seed,
        network=NetworkHyper(encoder="resnet18", width=64),
        trainer=config.trainer,
    )
    pretrained = FinetuneConfig(
        data=str(files.scene),
        labels=str(files.labels),
        legend=str(files.legend),
        out=run.output("pretrained"),
        run=pretrain.out,
        init_from="all",
        loaded_learning_rate=1e-3,
        tile=64,
        fraction=0.01,
        repeats=32,
        epochs=6,
        batch_size=8,
        seed=config.seed,
        trainer=config.trainer,
    )
    scratch = replace(pretrained, out=run.output("from_scratch"), init_from="nothing")
    predict = PredictConfig(
        run=pretrained.out, data=str(files.scene), out=run.output("map"), batch_size=64
    )
    return DemoSteps(pretrain, (pretrained, scratch), predict)
