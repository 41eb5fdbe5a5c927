"""Small volumes with masks, and manifests of them, for the tests of segmentation."""

import nibabel as nib
import numpy as np
import yaml

__all__ = ["TINY", "domain", "manifest", "volume"]

TINY = [
    "--network.filters", "[4,8,16]", "--volumes.patch", "[32,32]", "--batch_size", "6",
    "--steps", "2", "--epochs", "2", "--trainer.accelerator", "cpu",
    "--trainer.tensorboard", "false", "--trainer.progress", "false",
]  # fmt: skip


def volume(path, values, axes="RAS", spacing=(3.0, 1.0, 1.0)):
    """Write a volume whose axes point where the letters say."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(tuple(axes))):
        affine[int(world), axis] = sign * spacing[axis]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def domain(folder, name, *, axes, raw, classes, bright, cases=4, shape=(5, 34, 30)):
    """A disc a structure, with numbers and grey values of the domain's own."""
    entries = []
    for n in range(cases):
        rng = np.random.default_rng(sum(name.encode()) + n)
        grid = np.mgrid[tuple(slice(0, k) for k in shape)]
        label = np.zeros(shape, np.uint8)
        image = rng.normal(bright, 0.05 * bright, shape).astype(np.float32)
        for k, number in enumerate(raw):
            row, col = 10 + 12 * k, 14 + rng.integers(-2, 3)
            inside = (grid[1] - row) ** 2 + (grid[2] - col) ** 2 < 16
            label[inside] = number
            image[inside] *= 1.5 + k
        volume(folder / name / f"{n}.nii.gz", image, axes)
        volume(folder / name / f"{n}_seg.nii.gz", label, axes)
        entries.append(
            {
                "id": f"{name}{n}",
                "image": f"{name}/{n}.nii.gz",
                "label": f"{name}/{n}_seg.nii.gz",
                "split": ["train", "train", "val", "test"][min(n, 3)],
            }
        )
    labels = {0: "background"} | dict(zip(raw, classes, strict=True))
    return {"labels": labels, "slice_axis": "R" if axes[0] in "RL" else "S", "cases": entries}


def manifest(folder, name="data.yaml", **domains):
    """Write a manifest."""
    path = folder / name
    path.write_text(yaml.safe_dump({"domains": domains}, sort_keys=False))
    return path
