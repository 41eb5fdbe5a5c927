"""The manifest: which domains there are, their cases, their classes, and what is wrong with it.

A YAML or JSON file, or folders by convention
(:mod:`cl_medical.segmentation.conventions`)::

    domains:
      knee:
        labels: {0: background, 1: femur, 2: tibia}   # raw ids in the files
        cases:
          - {id: k01, image: knee/k01.nii.gz, label: knee/k01_seg.nii.gz, split: train}

Everything that is wrong is told at once (:mod:`cl_medical.segmentation.parsing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cl_core.checks import near
from cl_core.errors import InputError
from cl_core.runs import write_atomic
from cl_medical.segmentation.problems import Problem

__all__ = [
    "IGNORE",
    "SPLITS",
    "Axis",
    "Case",
    "Domain",
    "Manifest",
    "is_volume",
    "volume_stem",
    "write_manifest",
]

SPLITS = ("train", "val", "test")
IGNORE = 255
"""Class in a label map for raw ids about which nothing is to be learnt."""

_SUFFIXES = (".nii", ".nii.gz")

Axis = Literal["S", "A", "R"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume of one patient.

    Attributes:
        name: Unique in its domain.
        images: A file a channel.
        label: The mask, if there is one.
        split: ``train``, ``val`` or ``test``; ``None`` where the run deals it.
        patient: Cases of one patient never part; by default the case itself.
        volume_index: Which frame of a 4-D file is meant.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    split: str | None = None
    patient: str = ""
    volume_index: int | None = None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A data set with classes of its own.

    Attributes:
        name: Of the domain.
        classes: Their names, background first.
        label_map: Raw id in the files to class, 255 for what is not to be learnt from.
        cases: In the manifest's order.
        slice_axis: Axis across which slices are cut: R, A or S; ``None`` for the coarsest of the
            domain.
        spacing: mm along R, A, S to train at, ``None`` an axis to leave as it is; ``None`` for
            the median of the domain.
        modality: In words.
    """

    name: str
    classes: tuple[str, ...]
    label_map: Mapping[int, int]
    cases: tuple[Case, ...]
    slice_axis: Axis | None = None
    spacing: tuple[float | None, float | None, float | None] | None = None
    modality: str = ""

    def of_split(self, *splits: str) -> tuple[Case, ...]:
        """The cases of some splits."""
        return tuple(case for case in self.cases if case.split in splits)

    def raw_ids(self) -> tuple[tuple[int, ...], str]:
        """For each class the raw id that is written for it, and a note where that is not possible.

        Where several raw ids are one class, the classes' own numbers are written.
        """
        back = [[raw for raw, c in self.label_map.items() if c == k] for k in range(self.count)]
        if all(len(raws) == 1 for raws in back):
            return tuple(raws[0] for raws in back), ""
        return tuple(range(self.count)), (
            f"{self.name}: several labels of the files are one class, so masks hold the classes' "
            f"numbers ({', '.join(f'{k} {name}' for k, name in enumerate(self.classes))})"
        )

    @property
    def count(self) -> int:
        """Classes, background included."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Images of a case."""
        return len(self.cases[0].images) if self.cases else 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Domains and their cases.

    Attributes:
        source: The file or folder it was read from.
        domains: In its order.
        problems: What is wrong with it, as far as no voxel has been read.
    """

    source: str
    domains: tuple[Domain, ...]
    problems: tuple[Problem, ...] = ()

    def __iter__(self) -> Iterator[Domain]:
        return iter(self.domains)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the domains."""
        return tuple(domain.name for domain in self.domains)

    def domain(self, name: str) -> Domain:
        """The domain of a name.

        Raises:
            InputError: If there is none.
        """
        for domain in self.domains:
            if domain.name == name:
                return domain
        raise InputError(
            f"{self.source} has no domain {name!r}: {near(name, self.names)}"
            f"there are {', '.join(self.names)}"
        )

    def only(self, names: Iterable[str]) -> Manifest:
        """The manifest of some domains, in the order given.

        Raises:
            InputError: If one of them is not there.
        """
        return replace(self, domains=tuple(self.domain(name) for name in names))

    def files(self) -> list[Path]:
        """Every image and label."""
        return [
            path
            for domain in self.domains
            for case in domain.cases
            for path in (*case.images, *([case.label] if case.label else []))
        ]


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest as JSON, splits included, with absolute paths."""
    import json

    record = {
        "format": "multidomain-segmentation/1",
        "domains": {domain.name: _plain_domain(domain) for domain in manifest},
    }
    with write_atomic(path) as beside:
        beside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _plain_domain(domain: Domain) -> dict[str, Any]:
    record: dict[str, Any] = {
        "classes": list(domain.classes),
        "label_map": {str(raw): k for raw, k in domain.label_map.items()},
        "modality": domain.modality,
    }
    if domain.slice_axis is not None:
        record["slice_axis"] = domain.slice_axis
    if domain.spacing is not None:
        record["spacing_mm"] = list(domain.spacing)
    record["cases"] = [
        {
            "id": case.name,
            "image": [str(one.resolve()) for one in case.images],
            "label": None if case.label is None else str(case.label.resolve()),
            "split": case.split,
            "patient": case.patient,
            "volume_index": case.volume_index,
        }
        for case in domain.cases
    ]
    return record


def is_volume(path: Path) -> bool:
    """Whether a name is that of a NIfTI volume."""
    return path.name.lower().endswith(_SUFFIXES)


def volume_stem(path: Path) -> str:
    """A file's name without ``.nii`` or ``.nii.gz``."""
    name = path.name
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem
