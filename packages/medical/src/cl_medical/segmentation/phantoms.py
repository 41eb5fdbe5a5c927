"""Made-up joints as NIfTI: bones and a gap, each joint with a look, a grid and labels of its own.

Spacings, orientations, contrasts, intensity ranges and label numbers differ between the joints, as
they do between hospitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cl_core.runs import write_atomic
from cl_core.seeding import derive_seed

__all__ = ["JOINTS", "Joint", "Phantoms", "write_phantoms"]


@dataclass(frozen=True)
class Joint:
    """How the phantoms of a joint look.

    Attributes:
        name: Of the joint.
        labels: Raw id to name.
        axes: Orientation of the array.
        spacing: mm of the array's axes.
        shape: Of the array.
        bones: Intensity of each structure, in the order of their ids.
        tissue: Intensity around them.
        scale: Of all intensities.
        axis: Axis across which slices are cut.
    """

    name: str
    labels: dict[int, str]
    axes: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    bones: tuple[float, ...]
    tissue: float
    scale: float
    axis: str


JOINTS = (
    Joint(
        name="ankle",
        labels={1: "tibia", 2: "talus"},
        axes="RAS",
        spacing=(4, 1, 1),
        shape=(10, 64, 64),
        bones=(0.9, 0.7),
        tissue=0.4,
        scale=800,
        axis="R",
    ),
    Joint(
        name="knee",
        labels={1: "femur", 2: "tibia"},
        axes="PIR",
        spacing=(1.2, 1.2, 3),
        shape=(60, 60, 12),
        bones=(0.3, 0.2),
        tissue=0.7,
        scale=90,
        axis="R",
    ),
    Joint(
        name="shoulder",
        labels={3: "humerus"},
        axes="LPS",
        spacing=(1, 1, 5),
        shape=(64, 64, 9),
        bones=(0.6,),
        tissue=0.25,
        scale=4000,
        axis="S",
    ),
    Joint(
        name="hip",
        labels={1: "pelvis", 5: "femur"},
        axes="RPS",
        spacing=(1.4, 1.1, 1.1),
        shape=(24, 60, 60),
        bones=(0.5, 0.8),
        tissue=0.35,
        scale=300,
        axis="R",
    ),
)


class Phantoms(NamedTuple):
    """Files of the phantoms.

    Attributes:
        three: Manifest of the first three joints.
        fourth: Manifest of the last.
        volume: A test image of the first joint.
    """

    three: Path
    fourth: Path
    volume: Path


def write_phantoms(folder: Path, *, cases: int, seed: int) -> Phantoms:
    """Write the volumes of all joints and two manifests.

    Args:
        folder: Made if it does not exist.
        cases: Of each joint: two for testing, one for choosing, the others for training.
        seed: Of the shapes.
    """
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    records: dict[str, dict[str, object]] = {}
    for joint in JOINTS:
        (folder / joint.name).mkdir(exist_ok=True)
        entries = []
        for number in range(cases):
            rng = np.random.default_rng(derive_seed(seed, *joint.name.encode(), number))
            name = f"{joint.name}_{number:02d}"
            image, label, affine = _volume(joint, rng)
            paths = []
            for suffix, values in (("", image), ("_seg", label)):
                path = folder / joint.name / f"{name}{suffix}.nii.gz"
                file = nib.Nifti1Image(values, affine)
                file.header.set_xyzt_units("mm")
                nib.save(file, path)
                paths.append(f"{joint.name}/{path.name}")
            split = "test" if number < 2 else "val" if number == 2 else "train"
            entries.append({"id": name, "image": paths[0], "label": paths[1], "split": split})
        records[joint.name] = {
            "modality": "phantom",
            "labels": dict(enumerate(["background"])) | joint.labels,
            "slice_axis": joint.axis,
            "cases": entries,
        }
    files = []
    for file_name, joints in (("three.yaml", JOINTS[:3]), ("fourth.yaml", JOINTS[3:])):
        content = {"domains": {joint.name: records[joint.name] for joint in joints}}
        with write_atomic(folder / file_name) as beside:
            beside.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
        files.append(folder / file_name)
    first = JOINTS[0].name
    return Phantoms(files[0], files[1], folder / first / f"{first}_00.nii.gz")


def _volume(
    joint: Joint, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    """Bones as ellipsoids on either side of a gap, tissue with a slow gradient, and noise."""
    shape, spacing = np.array(joint.shape), np.array(joint.spacing)
    extent = shape * spacing
    grid: Any = np.meshgrid(
        *[(np.arange(n) + 0.5) * mm for n, mm in zip(shape, spacing, strict=True)], indexing="ij"
    )
    points = np.stack(grid, -1) - extent / 2
    across = int(np.argmax(spacing))
    along = [axis for axis in range(3) if axis != across]
    label = np.zeros(joint.shape, np.uint8)
    values = np.full(joint.shape, joint.tissue)
    ids = list(joint.labels)
    for k, raw in enumerate(ids):
        center = rng.normal(0, 2.0, 3)
        radius = np.array([0.0, 0.0, 0.0])
        radius[across] = extent[across] * rng.uniform(0.32, 0.42)
        radius[along[0]] = extent[along[0]] * rng.uniform(0.16, 0.21)
        radius[along[1]] = extent[along[1]] * rng.uniform(0.14, 0.18)
        if len(ids) > 1:
            center[along[1]] += (2 * k - 1) * extent[along[1]] * 0.2
        bent = points - center
        bent[..., along[0]] += 0.004 * rng.normal(1, 0.3) * bent[..., along[1]] ** 2
        inside = ((bent / radius) ** 2).sum(-1) < 1
        inside &= label == 0
        label[inside] = raw
        values[inside] = joint.bones[k]
    slope = rng.normal(0, 0.15, 3) / extent
    values += points @ slope + rng.normal(0, 0.06, joint.shape)
    image = np.clip(values, 0, None) * joint.scale * rng.uniform(0.7, 1.4)
    affine = np.eye(4)
    codes = nib.orientations.axcodes2ornt(tuple(joint.axes))
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(codes):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:3, 3] = rng.normal(0, 30, 3)
    return image.astype(np.float32), label, affine
