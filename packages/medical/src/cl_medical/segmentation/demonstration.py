"""The steps of the demo: a training on three joints, an extension by a fourth, masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from cl_core.runs import Run
from cl_medical.segmentation.config import DemoConfig, ExtendConfig, PredictConfig, TrainConfig
from cl_medical.segmentation.hyper import LossHyper, NetworkHyper, VolumeHyper
from cl_medical.segmentation.phantoms import Phantoms

__all__ = ["DemoSteps", "demo_steps", "same_masks"]


@dataclass(frozen=True)
class DemoSteps:
    """Options of the commands that a demo runs.

    Attributes:
        train: On three joints.
        extend: By the fourth.
        predict: A volume of the first joint whose domain is to be found.
    """

    train: TrainConfig
    extend: ExtendConfig
    predict: PredictConfig


def demo_steps(config: DemoConfig, run: Run, joints: Phantoms) -> DemoSteps:
    """Choose small sizes: a narrow network on slices of 64 x 64 voxels."""
    volumes = VolumeHyper(patch=(64, 64))
    train = TrainConfig(
        data=str(joints.three),
        out=run.output("train"),
        mode="contrast",
        volumes=volumes,
        network=NetworkHyper(filters=(8, 16, 32, 64)),
        batch_size=12,
        steps=40,
        epochs=8,
        loss=LossHyper(learning_rate=3e-3),
        seed=config.seed,
        trainer=config.trainer,
    )
    extend = ExtendConfig(
        run=train.out,
        data=str(joints.fourth),
        out=run.output("extend"),
        batch_size=8,
        steps=30,
        epochs=6,
        loss=LossHyper(learning_rate=3e-3),
        seed=config.seed,
        trainer=config.trainer,
    )
    predict = PredictConfig(
        run=extend.out,
        data=str(joints.volume),
        domain="auto",
        margin=0.0,
        out=run.output("masks"),
    )
    return DemoSteps(train, extend, predict)


def same_masks(first: Path, second: Path) -> bool:
    """Whether two folders hold the same masks to the last voxel."""
    names = sorted(str(file.relative_to(first)) for file in first.rglob("*.nii.gz"))
    others = sorted(str(file.relative_to(second)) for file in second.rglob("*.nii.gz"))
    return names == others and all(
        np.array_equal(
            np.asanyarray(nib.load(first / name).dataobj),
            np.asanyarray(nib.load(second / name).dataobj),
        )
        for name in names
    )
