"""nnU-Net's 2-D configuration on the hippocampus for some CPU minutes: its Dice beside ours.

    python benchmarks/segmentation_nnunet.py DATA SCRATCH --minutes 2

runs in an environment of its own that has ``nnunetv2``. DATA is the manifest of
``benchmarks/segmentation.py``; train, val and test cases are the same. nnU-Net plans and
preprocesses as it does by default; its trainer is left as it is but for the number of epochs (of 5
iterations), which is what the minutes allow, measured over the first two iterations. One thread,
no worker. Prints a line with the test Dice and adds it to ``SCRATCH/nnunet.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

NUMBER, NAME = 901, "Dataset901_Hippocampus"
ITERATIONS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.0])
    parser.add_argument("--prepare", action="store_true", help="plan and preprocess only")
    asked = parser.parse_args()
    folders = {name: asked.scratch / name for name in ("raw", "preprocessed", "results")}
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder)
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
    cases = hippocampus(asked.data)
    prepare(cases, folders)
    if asked.prepare:
        return
    for minutes in asked.minutes:
        record = asked.scratch / "nnunet.json"
        found = json.loads(record.read_text()) if record.is_file() else []
        found.append(run(cases, folders, minutes))
        record.write_text(json.dumps(found, indent=1))
        print(found[-1], flush=True)


def hippocampus(data: Path) -> list[dict[str, str]]:
    content = json.loads(data.read_text())
    base = data.parent / content["root"]
    return [
        {**case, **{key: str(base / case[key]) for key in ("image", "label")}}
        for case in content["domains"]["hippocampus"]["cases"]
    ]


def prepare(cases: list[dict[str, str]], folders: dict[str, Path]) -> None:
    """Lay the cases out as nnU-Net wants them, plan and preprocess, unless that was done."""
    place = folders["preprocessed"] / NAME
    if (place / "splits_final.json").is_file():
        return
    raw = folders["raw"] / NAME
    for case in cases:
        part = "Ts" if case["split"] == "test" else "Tr"
        for kind, ending in (("image", "_0000.nii.gz"), ("label", ".nii.gz")):
            target = raw / f"{kind}s{part}" / f"{case['id']}{ending}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(case[kind], target)
    own = [case for case in cases if case["split"] != "test"]
    about = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": len(own),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about))
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([NUMBER], num_processes=1)
    plan_experiments([NUMBER])
    preprocess([NUMBER], configurations=("2d",), num_processes=(1,))
    split = {kind: [c["id"] for c in own if c["split"] == kind] for kind in ("train", "val")}
    (place / "splits_final.json").write_text(json.dumps([split]))


def run(cases: list[dict[str, str]], folders: dict[str, Path], minutes: float) -> dict[str, Any]:
    """Train for the minutes, predict the test cases, score them on their native grids."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    place = folders["preprocessed"] / NAME
    plans = json.loads((place / "nnUNetPlans.json").read_text())
    about = json.loads((place / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "2d", 0, about, device=torch.device("cpu"))
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = ITERATIONS, 1
    trainer.disable_checkpointing = True
    trainer.initialize()
    trainer.on_train_start()
    began = time.process_time()
    trainer.network.train()
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    spent = time.process_time() - began
    budget = 60 * minutes
    trainer.num_epochs = max(1, round((budget - spent) / (spent / 2 * (ITERATIONS + 0.5))))
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    for _ in range(trainer.num_epochs):
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        batches = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(ITERATIONS)]
        trainer.on_train_epoch_end(batches)
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
        trainer.on_epoch_end()
    trained = time.process_time() - began
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    test = [case for case in cases if case["split"] == "test"]
    out = folders["results"] / f"masks-{minutes:g}"
    out.mkdir(exist_ok=True)
    raw = folders["raw"] / NAME / "imagesTs"
    predictor.predict_from_files_sequential(
        [[str(raw / f"{case['id']}_0000.nii.gz")] for case in test],
        [str(out / case["id"]) for case in test],
    )
    dice: dict[str, float] = {}
    for number, structure in ((1, "anterior"), (2, "posterior")):
        values = []
        for case in test:
            truth = np.asanyarray(nib.load(case["label"]).dataobj) == number
            mask = np.asanyarray(nib.load(out / f"{case['id']}.nii.gz").dataobj) == number
            total = int(truth.sum()) + int(mask.sum())
            values.append(2 * int((truth & mask).sum()) / total if total else 1.0)
        dice[structure] = float(np.mean(values))
    return {
        "cpu_seconds": round(trained, 1),
        "iterations": 2 + ITERATIONS * trainer.num_epochs,
        "batch": trainer.batch_size,
        "patch": list(trainer.configuration_manager.patch_size),
        "dice": float(np.mean(list(dice.values()))),
        **dice,
    }


if __name__ == "__main__":
    main()
