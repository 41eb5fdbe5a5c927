"""Tables of what a manifest holds: cases, grids, intensities, volumes of classes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cl_core.runs import write_atomic
from cl_medical.segmentation.preparation import Examined

__all__ = ["domain_rows", "problem_lines", "write_problems"]


def domain_rows(examined: Examined) -> list[dict[str, object]]:
    """A row for each domain."""
    rows: list[dict[str, object]] = []
    for domain in examined.manifest:
        facts = examined.cases.get(domain.name, [])
        counts = [len(domain.of_split(split)) for split in ("train", "val", "test")]
        open_cases = len(domain.cases) - sum(counts)
        told = " / ".join(map(str, counts)) + (f" + {open_cases}" if open_cases else "")
        row: dict[str, object] = {"domain": domain.name, "train / val / test": told}
        if facts:
            shapes = np.array([one.prepared.shape for one in facts])
            spacings = np.array([one.prepared.spacing for one in facts])
            row |= {
                "shape": _ranges(shapes, "{:.0f}"),
                "spacing mm": _ranges(spacings, "{:.4g}"),
                "axes": ", ".join(sorted({one.prepared.axcodes for one in facts})),
                "slices along": examined.recipes[domain.name].slice_axis,
                "intensity": _range(
                    min(one.prepared.range[0] for one in facts),
                    max(one.prepared.range[1] for one in facts),
                    "{:.4g}",
                ),
                "median ml": ", ".join(_volumes(examined, domain.name)),
            }
        rows.append(row)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key, "-") for key in keys} for row in rows]


def _volumes(examined: Examined, name: str) -> list[str]:
    facts = [one for one in examined.cases[name] if any(one.prepared.voxels)]
    told = []
    for k, structure in enumerate(examined.manifest.domain(name).classes):
        if k and facts:
            ml = [one.prepared.voxels[k] * math.prod(one.prepared.spacing) / 1000 for one in facts]
            told.append(f"{structure} {np.median(ml):.4g}")
    return told


def _ranges(values: np.ndarray, form: str) -> str:
    return " x ".join(
        _range(float(low), float(high), form)
        for low, high in zip(values.min(0), values.max(0), strict=True)
    )


def _range(low: float, high: float, form: str) -> str:
    first, last = form.format(low), form.format(high)
    return first if first == last else f"{first}-{last}"


def problem_lines(examined: Examined) -> list[str]:
    """What is wrong and what is odd, a line each."""
    wrong = [f"error: {problem}" for problem in examined.problems]
    return [*wrong, *(f"note: {note}" for note in examined.notes)]


def write_problems(path: Path, examined: Examined) -> None:
    """Write the problems as a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("domain", "case", "path", "reason"))
    rows: Sequence[tuple[str, str, str, str]] = [
        (one.domain, one.case, one.path, one.reason) for one in examined.problems
    ]
    writer.writerows(rows)
    with write_atomic(path) as beside:
        beside.write_text(text.getvalue(), "utf-8")
