"""A manifest made of plain values, and all that is wrong with it before a voxel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cl_core.errors import InputError
from cl_medical.segmentation.label_sets import classes_of, is_whole
from cl_medical.segmentation.manifest import (
    SPLITS,
    Axis,
    Case,
    Domain,
    Manifest,
    is_volume,
    volume_stem,
)
from cl_medical.segmentation.problems import Problems

__all__ = ["parse_manifest"]

_DOMAIN_KEYS = (
    "id",
    "modality",
    "classes",
    "labels",
    "label_map",
    "slice_axis",
    "spacing_mm",
    "volume_index",
    "cases",
)
_CASE_KEYS = ("id", "image", "label", "split", "patient", "volume_index")


def parse_manifest(content: Any, *, base: Path, source: str) -> Manifest:
    """Make a manifest of plain values.

    Args:
        content: A mapping with ``domains``, as in :mod:`cl_medical.segmentation.manifest`.
        base: The folder that paths are relative to, together with its ``root``.
        source: Named in messages.

    Returns:
        What could be understood, and the problems with the rest.

    Raises:
        InputError: If it is no manifest at all.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("domains"), Mapping):
        raise InputError(
            f"{source} is no manifest: it must be a mapping with `domains`, each with `labels` and "
            "`cases`"
        )
    problems = Problems(base / str(content.get("root") or "."))
    problems.unknown_keys(content, ("format", "root", "domains"))
    domains = [
        domain
        for name, record in content["domains"].items()
        if (domain := _domain(problems, str(name), record)) is not None
    ]
    if not content["domains"]:
        problems.tell("there is no domain")
    order = _order(problems, content["domains"])
    domains.sort(key=lambda domain: order[domain.name])
    return Manifest(source=source, domains=tuple(domains), problems=tuple(problems.found))


def _order(problems: Problems, records: Mapping[str, Any]) -> dict[str, int]:
    """The place of each domain: by its `id` if all have one, else as written."""
    ids = [r.get("id") if isinstance(r, Mapping) else None for r in records.values()]
    places = list(range(len(ids)))
    if any(one is not None for one in ids):
        if any(not is_whole(one) for one in ids):
            problems.tell(f"`id` must be a whole number in every domain or in none, got {ids}")
        elif len(set(ids)) < len(ids):
            problems.tell(f"`id` must differ between domains, got {ids}")
        else:
            places = [sorted(cast(list[int], ids)).index(one) for one in cast(list[int], ids)]
    return {str(name): place for name, place in zip(records, places, strict=True)}


def _domain(problems: Problems, name: str, record: Any) -> Domain | None:
    if not isinstance(record, Mapping):
        problems.tell("must be a mapping with `labels` and `cases`", name)
        return None
    problems.unknown_keys(record, _DOMAIN_KEYS, name)
    if not name.strip() or any(c in name for c in "/\\\n\r\t") or name in (".", ".."):
        problems.tell(f"a domain's name is part of file names: {name!r} will not do", name)
    classes, label_map = classes_of(problems, name, record)
    axis = record.get("slice_axis")
    if axis is not None and axis not in ("R", "A", "S"):
        problems.tell(f"slice_axis must be R, A or S, got {axis!r}", name)
        axis = None
    cases = record.get("cases")
    if not isinstance(cases, list) or not cases:
        problems.tell("there is no case: `cases` must be a list of them", name)
        cases = []
    index = record.get("volume_index")
    made = [
        case
        for place, one in enumerate(cases)
        if (case := _case(problems, name, place, one, index)) is not None
    ]
    _check_cases(problems, name, made)
    return Domain(
        name=name,
        classes=classes,
        label_map=label_map,
        cases=tuple(made),
        slice_axis=cast(Axis | None, axis),
        spacing=_spacing(problems, name, record.get("spacing_mm")),
        modality=str(record.get("modality") or ""),
    )


def _spacing(
    problems: Problems, name: str, value: Any
) -> tuple[float | None, float | None, float | None] | None:
    if value is None:
        return None
    if value == "native":
        return (None, None, None)
    fits = isinstance(value, (list, tuple)) and len(value) == 3
    if not fits or not all(
        one is None or (isinstance(one, (int, float)) and 0 < one < 1000) for one in value
    ):
        problems.tell(
            "spacing_mm must be three numbers along R, A, S (null leaves an axis as it is), or "
            f"native, got {value!r}",
            name,
        )
        return None
    r, a, s = (None if one is None else float(one) for one in value)
    return r, a, s


def _case(problems: Problems, domain: str, place: int, record: Any, index: Any) -> Case | None:
    if not isinstance(record, Mapping) or "image" not in record:
        problems.tell("a case must be a mapping with `image`", domain, f"case {place + 1}")
        return None
    images = record["image"]
    images = images if isinstance(images, list) else [images]
    if not images or not all(isinstance(one, str) and one for one in images):
        problems.tell("image must be a path or a list of them", domain, f"case {place + 1}")
        return None
    paths = tuple(problems.base / one for one in images)
    name = str(record.get("id") or volume_stem(paths[0]))
    problems.unknown_keys(record, _CASE_KEYS, domain, name)
    if any(c in name for c in "/\\\n\r\t") or name in (".", ".."):
        problems.tell(f"a case's id is part of file names: {name!r} will not do", domain, name)
    label = record.get("label")
    if label is not None and not isinstance(label, str):
        problems.tell("label must be a path", domain, name)
        label = None
    split = record.get("split")
    if split is not None and split not in SPLITS:
        problems.tell(f"split must be train, val or test, got {split!r}", domain, name)
    volume_index = record.get("volume_index", index)
    if volume_index is not None and (not is_whole(volume_index) or volume_index < 0):
        problems.tell(f"volume_index counts frames from 0, got {volume_index!r}", domain, name)
        volume_index = None
    target = None if label is None else problems.base / label
    for path in (*paths, *([target] if target else [])):
        if not path.is_file():
            problems.tell("the file does not exist", domain, name, path)
        elif not is_volume(path):
            problems.tell("a volume is a .nii or .nii.gz file", domain, name, path)
    if target is None and split in ("train", "val"):
        problems.tell(f"a case of {split} needs a label", domain, name)
    return Case(
        name=name,
        images=paths,
        label=target,
        split=split,
        patient=str(record.get("patient") or name),
        volume_index=volume_index,
    )


def _check_cases(problems: Problems, domain: str, cases: Sequence[Case]) -> None:
    """Nothing twice, nobody on both sides of a split."""
    by_name: dict[str, Case] = {}
    by_image: dict[Path, Case] = {}
    by_patient: dict[str, Case] = {}
    for case in cases:
        twin = by_name.setdefault(case.name, case)
        if twin is not case:
            where = f"in {twin.split} and {case.split}" if twin.split != case.split else "twice"
            problems.tell(f"the case is listed {where}", domain, case.name)
            continue
        image = case.images[0].resolve()
        other = by_image.setdefault(image, case)
        if other is not case:
            problems.tell(
                f"its image is that of {other.name} too", domain, case.name, case.images[0]
            )
            continue
        relative = by_patient.setdefault(case.patient, case)
        if relative.split != case.split:
            problems.tell(
                f"patient {case.patient} is in {relative.split} and {case.split}", domain, case.name
            )
        if len(case.images) != len(cases[0].images):
            problems.tell(
                f"has {len(case.images)} images, but {cases[0].name} has {len(cases[0].images)}",
                domain,
                case.name,
            )
