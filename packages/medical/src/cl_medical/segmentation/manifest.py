"""The manifest: which domains there are, their cases, their classes, and what is wrong with it.

A YAML or JSON file, or folders by convention
(:mod:`cl_medical.segmentation.conventions`)::

    domains:
      knee:
        labels: {0: background, 1: femur, 2: tibia}   # raw ids in the files
        cases:
          - {id: k01, image: knee/k01.nii.gz, label: knee/k01_seg.nii.gz, split: train}

Everything that is wrong is told at once, with domain, case, path and reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from cl_core.checks import near
from cl_core.errors import InputError
from cl_core.runs import write_atomic

__all__ = [
    "SPLITS",
    "Case",
    "Domain",
    "Manifest",
    "ManifestError",
    "Problem",
    "is_volume",
    "parse_manifest",
    "volume_stem",
    "write_manifest",
]

SPLITS = ("train", "val", "test")
IGNORE = 255
"""Class in a label map for raw ids about which nothing is to be learnt."""

_MOST_CLASSES = 255
_SUFFIXES = (".nii", ".nii.gz")

Axis = Literal["S", "A", "R"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        reason: What, and what to do.
        domain: Where.
        case: Of which case.
        path: In which file.
    """

    reason: str
    domain: str = ""
    case: str = ""
    path: str = ""

    def __str__(self) -> str:
        place = "/".join(part for part in (self.domain, self.case) if part)
        return ": ".join(part for part in (place, self.path, self.reason) if part)


class ManifestError(InputError):
    """All that is wrong with the data, in one line.

    Attributes:
        problems: One by one.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, source: str, problems: Sequence[Problem]) -> ManifestError:
        """Tell the problems of one source."""
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        told = "; ".join(f"({n}) {p}" for n, p in enumerate(problems, 1))
        return cls(f"{source} has {count}: {told}", problems)


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


@dataclass
class _Reader:
    """Collects problems while a manifest is read."""

    base: Path
    problems: list[Problem] = field(default_factory=list)

    def tell(self, reason: str, domain: str = "", case: str = "", path: object = "") -> None:
        self.problems.append(Problem(reason, domain, case, str(path)))

    def unknown_keys(
        self, record: Mapping[str, Any], known: Sequence[str], domain: str = "", case: str = ""
    ) -> None:
        """Other keys are the user's notes, unless they look like a slip."""
        for key in map(str, record):
            alike = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
            if key not in known and alike:
                self.tell(f"unknown entry {key!r}: did you mean {alike[0]}?", domain, case)


def parse_manifest(content: Any, *, base: Path, source: str) -> Manifest:
    """Make a manifest of plain values.

    Args:
        content: A mapping with ``domains``, as in the module's example.
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
    reader = _Reader(base / str(content.get("root") or "."))
    reader.unknown_keys(content, ("format", "root", "domains"))
    domains = [
        domain
        for name, record in content["domains"].items()
        if (domain := _domain(reader, str(name), record)) is not None
    ]
    if not content["domains"]:
        reader.tell("there is no domain")
    order = _order(reader, content["domains"])
    channels = {domain.channels for domain in domains if domain.cases}
    if len(channels) > 1:
        told = ", ".join(f"{domain.name} {domain.channels}" for domain in domains)
        reader.tell(f"domains must agree on the number of images a case: {told}")
    domains.sort(key=lambda domain: order[domain.name])
    return Manifest(source=source, domains=tuple(domains), problems=tuple(reader.problems))


def _order(reader: _Reader, records: Mapping[str, Any]) -> dict[str, int]:
    """The place of each domain: by its `id` if all have one, else as written."""
    ids = [r.get("id") if isinstance(r, Mapping) else None for r in records.values()]
    places = list(range(len(ids)))
    if any(one is not None for one in ids):
        if any(not _is_int(one) for one in ids):
            reader.tell(f"`id` must be a whole number in every domain or in none, got {ids}")
        elif len(set(ids)) < len(ids):
            reader.tell(f"`id` must differ between domains, got {ids}")
        else:
            places = [sorted(cast(list[int], ids)).index(one) for one in cast(list[int], ids)]
    return {str(name): place for name, place in zip(records, places, strict=True)}


def _domain(reader: _Reader, name: str, record: Any) -> Domain | None:
    if not isinstance(record, Mapping):
        reader.tell("must be a mapping with `labels` and `cases`", name)
        return None
    reader.unknown_keys(record, _DOMAIN_KEYS, name)
    if not name.strip() or any(c in name for c in "/\\\n\r\t") or name in (".", ".."):
        reader.tell(f"a domain's name is part of file names: {name!r} will not do", name)
    classes, label_map = _classes(reader, name, record)
    axis = record.get("slice_axis")
    if axis is not None and axis not in ("R", "A", "S"):
        reader.tell(f"slice_axis must be R, A or S, got {axis!r}", name)
    cases = record.get("cases")
    if not isinstance(cases, list) or not cases:
        reader.tell("there is no case: `cases` must be a list of them", name)
        cases = []
    index = record.get("volume_index")
    made = [
        case
        for place, one in enumerate(cases)
        if (case := _case(reader, name, place, one, index)) is not None
    ]
    _check_cases(reader, name, made)
    return Domain(
        name=name,
        classes=classes,
        label_map=label_map,
        cases=tuple(made),
        slice_axis=cast(Axis | None, axis),
        spacing=_spacing(reader, name, record.get("spacing_mm")),
        modality=str(record.get("modality") or ""),
    )


def _classes(
    reader: _Reader, name: str, record: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[int, int]]:
    labels = record.get("labels")
    raw: dict[int, str] = {}
    if labels is not None:
        if not isinstance(labels, Mapping):
            reader.tell("labels must be a mapping from raw ids to names", name)
        else:
            for key, value in labels.items():
                number = _whole(key)
                if number is None:
                    reader.tell(f"labels: {key!r} is no whole number", name)
                else:
                    raw[number] = str(value)
    classes = record.get("classes")
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(one, (str, int)) for one in classes)
    ):
        reader.tell("classes must be a list of names, background first", name)
        classes = None
    given = record.get("label_map")
    if given is not None and not isinstance(given, Mapping):
        reader.tell("label_map must be a mapping from raw ids to classes", name)
        given = None
    if classes is None and not raw:
        reader.tell("needs `labels`, a mapping from the ids in the files to names", name)
        return ("background", "structure"), {0: 0, 1: 1}
    if classes is None:
        raw = {0: "background"} | raw
        names = list(dict.fromkeys(raw[number] for number in sorted(raw)))
        label_map = {number: names.index(raw[number]) for number in raw}
    else:
        names = [str(one) for one in classes]
        label_map = {number: number for number in range(len(names))}
    if given is not None:
        label_map = {}
        for key, value in given.items():
            source, target = _whole(key), _whole(value)
            if source is None or target is None:
                reader.tell(f"label_map: {key!r}: {value!r} are no whole numbers", name)
            elif not (0 <= target < len(names) or target == IGNORE):
                reader.tell(
                    f"label_map: {source} leads to class {target}, but the classes are 0 to "
                    f"{len(names) - 1} ({', '.join(names)}), and {IGNORE} for voxels to ignore",
                    name,
                )
            else:
                label_map[source] = target
        label_map.setdefault(0, 0)
    if len(set(names)) < len(names):
        reader.tell(f"classes need names of their own, got {', '.join(names)}", name)
    if not 2 <= len(names) <= _MOST_CLASSES:
        reader.tell(
            f"needs a background and 1 to {_MOST_CLASSES - 1} structures, got {len(names)} classes",
            name,
        )
    if any("/" in one for one in names):
        reader.tell("the name of a class must not hold a slash", name)
    return tuple(names), label_map


def _spacing(
    reader: _Reader, name: str, value: Any
) -> tuple[float | None, float | None, float | None] | None:
    if value is None:
        return None
    if value == "native":
        return (None, None, None)
    fits = isinstance(value, (list, tuple)) and len(value) == 3
    if not fits or not all(
        one is None or (isinstance(one, (int, float)) and 0 < one < 1000) for one in value
    ):
        reader.tell(
            "spacing_mm must be three numbers along R, A, S (null leaves an axis as it is), or "
            f"native, got {value!r}",
            name,
        )
        return None
    r, a, s = (None if one is None else float(one) for one in value)
    return r, a, s


def _case(reader: _Reader, domain: str, place: int, record: Any, index: Any) -> Case | None:
    if not isinstance(record, Mapping) or "image" not in record:
        reader.tell("a case must be a mapping with `image`", domain, f"case {place + 1}")
        return None
    images = record["image"]
    images = images if isinstance(images, list) else [images]
    if not images or not all(isinstance(one, str) and one for one in images):
        reader.tell("image must be a path or a list of them", domain, f"case {place + 1}")
        return None
    paths = tuple(reader.base / one for one in images)
    name = str(record.get("id") or volume_stem(paths[0]))
    reader.unknown_keys(record, _CASE_KEYS, domain, name)
    if any(c in name for c in "/\\\n\r\t") or name in (".", ".."):
        reader.tell(f"a case's id is part of file names: {name!r} will not do", domain, name)
    label = record.get("label")
    if label is not None and not isinstance(label, str):
        reader.tell("label must be a path", domain, name)
        label = None
    split = record.get("split")
    if split is not None and split not in SPLITS:
        reader.tell(f"split must be train, val or test, got {split!r}", domain, name)
    volume_index = record.get("volume_index", index)
    if volume_index is not None and (not _is_int(volume_index) or volume_index < 0):
        reader.tell(f"volume_index counts frames from 0, got {volume_index!r}", domain, name)
        volume_index = None
    target = None if label is None else reader.base / label
    for path in (*paths, *([target] if target else [])):
        if not path.is_file():
            reader.tell("the file does not exist", domain, name, path)
        elif not is_volume(path):
            reader.tell("a volume is a .nii or .nii.gz file", domain, name, path)
    if target is None and split in ("train", "val"):
        reader.tell(f"a case of {split} needs a label", domain, name)
    return Case(
        name=name,
        images=paths,
        label=target,
        split=split,
        patient=str(record.get("patient") or name),
        volume_index=volume_index,
    )


def _check_cases(reader: _Reader, domain: str, cases: Sequence[Case]) -> None:
    """Nothing twice, nobody on both sides of a split."""
    by_name: dict[str, Case] = {}
    by_image: dict[Path, Case] = {}
    by_patient: dict[str, Case] = {}
    for case in cases:
        twin = by_name.setdefault(case.name, case)
        if twin is not case:
            where = f"in {twin.split} and {case.split}" if twin.split != case.split else "twice"
            reader.tell(f"the case is listed {where}", domain, case.name)
            continue
        image = case.images[0].resolve()
        other = by_image.setdefault(image, case)
        if other is not case:
            reader.tell(f"its image is that of {other.name} too", domain, case.name, case.images[0])
            continue
        relative = by_patient.setdefault(case.patient, case)
        if relative.split != case.split:
            reader.tell(
                f"patient {case.patient} is in {relative.split} and {case.split}", domain, case.name
            )
        if len(case.images) != len(cases[0].images):
            reader.tell(
                f"has {len(case.images)} images, but {cases[0].name} has {len(cases[0].images)}",
                domain,
                case.name,
            )


def _whole(value: Any) -> int | None:
    if _is_int(value):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
