"""Folders that follow a convention as manifests: Decathlon, nnU-Net, BIDS.

* Medical Segmentation Decathlon: ``dataset.json`` with ``training`` (pairs of image and label) and
  ``labels``; the images of ``test`` come without labels.
* nnU-Net: ``dataset.json`` with ``labels`` by name, ``imagesTr/CASE_0000.nii.gz`` (one file a
  channel), ``labelsTr/CASE.nii.gz``; ``imagesTs`` and ``labelsTs`` are the test cases.
* BIDS: ``sub-X[/ses-Y]/anat/*_T1w.nii.gz`` (or another suffix) with ``*_dseg.nii.gz`` of the same
  entities beside it or below ``derivatives``; names of ids in ``dseg.tsv``.

A folder of such folders is one domain each. None of them has a ``val`` part, and BIDS and the
Decathlon no labelled test part: the run deals what is missing.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_core.tables.documents import read_json
from cl_medical.segmentation.manifest import Manifest, is_volume, volume_stem
from cl_medical.segmentation.parsing import parse_manifest

__all__ = ["read_folder"]

Record = dict[str, Any]

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_MASKS = ("dseg", "mask", "seg", "label", "labels")


def read_folder(path: Path) -> Manifest:
    """Read a data set's folder, or a folder of several.

    Raises:
        InputError: If no convention fits.
    """
    records: dict[str, Record] = {}
    own = _record(path)
    if own is not None:
        records[path.resolve().name] = own
    else:
        for child in sorted(entry for entry in path.iterdir() if entry.is_dir()):
            if (record := _record(child)) is not None:
                records[child.name] = record
    if not records:
        raise InputError(
            f"--data {path} follows no convention: a data set has a dataset.json (Decathlon, "
            "nnU-Net) or sub-*/anat (BIDS); otherwise write a manifest (docs/segmentation.md)"
        )
    return parse_manifest({"domains": records}, base=Path(), source=str(path))


def _record(path: Path) -> Record | None:
    if (path / "dataset.json").is_file() and any(
        (path / name).is_dir() for name in ("imagesTr", "imagesTs")
    ):
        content = read_json(path / "dataset.json")
        if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
            raise InputError(f"{path / 'dataset.json'} has no `labels`: it must name the ids")
        pairs = content.get("training")
        if isinstance(pairs, list) and pairs and isinstance(pairs[0], dict):
            return _decathlon(path, content)
        return _nnunet(path, content)
    if any(path.glob("sub-*/anat")) or any(path.glob("sub-*/ses-*/anat")):
        return _bids(path)
    return None


def _decathlon(path: Path, content: Mapping[str, Any]) -> Record:
    cases = []
    for pair in content["training"]:
        if not isinstance(pair, dict) or not {"image", "label"} <= set(pair):
            raise InputError(
                f"{path / 'dataset.json'}: an entry of `training` must have `image` and `label`, "
                f"got {pair!r}"
            )
        cases.append({"image": str(path / pair["image"]), "label": str(path / pair["label"])})
    return {
        "labels": {int(raw): str(name) for raw, name in content["labels"].items()},
        "modality": ", ".join(str(one) for one in dict(content.get("modality") or {}).values()),
        "cases": cases,
    }


def _nnunet(path: Path, content: Mapping[str, Any]) -> Record:
    labels: dict[int, str] = {}
    label_map: dict[int, int] = {}
    for name, raw in content["labels"].items():
        if isinstance(raw, list):
            raise InputError(
                f"{path / 'dataset.json'}: the label {name!r} is a region of several ids, which "
                "overlap; give each id a name of its own"
            )
        labels[int(raw)] = str(name)
    names = [labels[raw] for raw in sorted(labels) if labels[raw] != "ignore"]
    for raw, name in labels.items():
        label_map[raw] = 255 if name == "ignore" else names.index(name)
    cases = []
    for images, masks, split in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
        channels: dict[str, list[str]] = {}
        for file in sorted((path / images).glob("*")):
            found = _CHANNEL.match(volume_stem(file))
            if found and is_volume(file):
                channels.setdefault(found["case"], []).append(str(file))
        for case, files in channels.items():
            label = next(
                (
                    str(file)
                    for suffix in (".nii.gz", ".nii")
                    if (file := path / masks / f"{case}{suffix}").is_file()
                ),
                None,
            )
            record: Record = {"id": case, "image": files, "label": label}
            if split is None and label is None:
                record["label"] = str(path / masks / f"{case}.nii.gz")  # told to be missing
            if split is not None:
                record["split"] = split
            cases.append(record)
    return {"classes": names, "label_map": label_map, "cases": cases}


def _bids(path: Path) -> Record:
    masks: dict[str, Path] = {}
    images: dict[str, Path] = {}
    for file in sorted(path.glob("**/anat/*")):
        if not is_volume(file):
            continue
        stem, _, suffix = volume_stem(file).rpartition("_")
        derived = "derivatives" in file.relative_to(path).parts
        entities = "_".join(
            part for part in stem.split("_") if not part.startswith(("desc-", "label-", "space-"))
        )
        if suffix in _MASKS:
            masks.setdefault(entities, file)
        elif not derived:
            key = f"{entities}_{suffix}"
            images[key] = file
    cases = []
    for key, file in images.items():
        entities = key.rpartition("_")[0]
        label = masks.get(key, masks.get(entities))
        subject = next(part for part in entities.split("_") if part.startswith("sub-"))
        cases.append(
            {
                "id": key,
                "image": str(file),
                "label": None if label is None else str(label),
                "patient": subject,
                **({} if label is not None else {"split": "test"}),
            }
        )
    return {"labels": _names(path, masks), "cases": cases}


def _names(path: Path, masks: Mapping[str, Path]) -> dict[int, str]:
    """The names in ``dseg.tsv``, else the ids that occur in the masks."""
    for file in [path / "dseg.tsv", *sorted(path.glob("derivatives/**/*dseg.tsv"))]:
        if file.is_file():
            with file.open(encoding="utf-8-sig", newline="") as lines:
                rows = list(csv.DictReader(lines, delimiter="\t"))
            if not rows or not {"index", "name"} <= set(rows[0]):
                raise InputError(f"{file} must have the columns index and name")
            return {int(row["index"]): row["name"] for row in rows if row["index"]}
    from cl_medical.segmentation.nifti import label_ids

    found = sorted({raw for file in masks.values() for raw in label_ids(file)} | {0})
    return {raw: "background" if raw == 0 else f"structure {raw}" for raw in found}
