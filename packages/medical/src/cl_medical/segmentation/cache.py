"""Prepared volumes, decoded once: in memory, or in a folder that later runs share.

What lies in the folder is mapped into memory and read as it is needed, so data sets may be larger
than memory, and workers share what one of them has read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_core.runs import write_atomic
from cl_medical.segmentation.manifest import Case, Domain
from cl_medical.segmentation.volumes import Recipe

__all__ = ["Prepared", "VolumeCache", "case_key"]

_FORMAT = 1
"""Of the files in a folder; what another version wrote is prepared again."""


@dataclass(frozen=True)
class Prepared:
    """A case on the network's grid.

    Attributes:
        image: float32 ``(c, z, h, w)``, standardised, slice axis first.
        label: Classes, uint8 ``(z, h, w)``.
        shape: Of the file's volume.
        spacing: mm of the file's axes.
        axcodes: Of the file's axes.
        range: Least and greatest intensity of the first image.
        voxels: Of each class in the file.
        least: Least standardised value of each image: what lies outside it.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axcodes: str
    range: tuple[float, float]
    voxels: tuple[int, ...]
    least: tuple[float, ...]

    @property
    def ras_axes(self) -> str:
        """Along which of R, A, S each axis of the file lies, whichever way it points."""
        opposite = {"L": "R", "P": "A", "I": "S"}
        return "".join(opposite.get(code, code) for code in self.axcodes)


def case_key(case: Case, domain: Domain, recipe: Recipe) -> str:
    """Tells a prepared case from every other: its files as they are now, and how it is prepared."""
    files: Sequence[Path] = (*case.images, *([case.label] if case.label else []))
    told = {
        "format": _FORMAT,
        "files": [(str(f.resolve()), (s := f.stat()).st_size, s.st_mtime_ns) for f in files],
        "frame": case.volume_index,
        "label_map": sorted(domain.label_map.items()),
        "classes": domain.count,
        "recipe": asdict(recipe),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


class VolumeCache:
    """Keeps prepared cases.

    Args:
        folder: Where to; made if it does not exist. ``None`` for memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._kept: dict[str, Prepared] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str, make: Callable[[], Prepared], *, keep: bool = True) -> Prepared:
        """The case of a key, made if it is not there yet.

        Args:
            key: Of :func:`case_key`.
            make: Prepares it.
            keep: Whether its arrays stay in memory, where there is no folder; else they are left
                out of what comes back.
        """
        if key in self._kept:
            return self._kept[key]
        prepared = make() if self.folder is None else self._stored(self.folder, key, make)
        if self.folder is None and not keep:
            empty = replace(prepared, image=prepared.image[:0], label=prepared.label[:0])
            return replace(empty, image=empty.image.copy(), label=empty.label.copy())
        self._kept[key] = prepared
        return prepared

    def _stored(self, folder: Path, key: str, make: Callable[[], Prepared]) -> Prepared:
        # Files of their own, the facts last: two runs that share the folder may make a case at
        # once, and each of them then replaces a file by the same file.
        arrays = {name: folder / f"{key}.{name}.npy" for name in ("image", "label")}
        facts = folder / f"{key}.json"
        if not facts.is_file():
            prepared = make()
            for name, path in arrays.items():
                with write_atomic(path) as beside:
                    np.save(beside, getattr(prepared, name))
            with write_atomic(facts) as beside:
                told = {name: getattr(prepared, name) for name in _FACTS}
                beside.write_text(json.dumps(told), "utf-8")
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(facts.read_text("utf-8")).items()
        }
        for name, path in arrays.items():
            made[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return Prepared(**made)


_FACTS = ("shape", "spacing", "axcodes", "range", "voxels", "least")
