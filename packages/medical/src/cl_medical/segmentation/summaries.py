"""Scores of cases as tables and figures: written, read again, summed up by structure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cl_core.errors import InputError
from cl_core.runs import write_atomic
from cl_core.tables.files import read_table
from cl_medical.segmentation.scores import DISTANCES, FIGURES, MaskScores
from cl_medical.segmentation.scoring import CaseScores

__all__ = ["read_case_scores", "summarise", "summary_rows", "write_cases", "write_summary"]

_COLUMNS = ("domain", "case", "split", "structure", *FIGURES, "spacing")


def write_cases(path: Path, scores: Sequence[CaseScores]) -> None:
    """Write a row for each case and structure, undefined and infinite figures as they are."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in scores:
        spacing = " ".join(f"{mm:.6g}" for mm in one.spacing)
        for name, figures in one.structures.items():
            row = [repr(getattr(figures, figure)) for figure in FIGURES]
            writer.writerow([one.domain, one.case, one.split, name, *row, spacing])
    with write_atomic(path) as beside:
        beside.write_text(text.getvalue(), "utf-8")


def write_summary(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the rows of :func:`summary_rows`."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with write_atomic(path) as beside:
        beside.write_text(text.getvalue(), "utf-8")


def read_case_scores(path: Path) -> list[CaseScores]:
    """Read what :func:`write_cases` wrote.

    Raises:
        InputError: If the file is none of these.
    """
    table = read_table(path, header="yes")
    columns = {name: table.column(name) for name in _COLUMNS}
    lacking = [name for name, column in columns.items() if column is None]
    if lacking:
        raise InputError(f"{path} has no column {lacking[0]}: give a run of evaluate")
    cells = {name: column.cells for name, column in columns.items() if column is not None}
    made: dict[tuple[str, str], CaseScores] = {}
    for i in range(len(table)):
        try:
            figures = MaskScores(**{name: float(cells[name][i]) for name in FIGURES})
        except ValueError as error:
            raise InputError(f"{path}, row {i + 1}: {error}; evaluate again") from error
        key = cells["domain"][i], cells["case"][i]
        before = made.get(key)
        structures = {**(before.structures if before else {}), cells["structure"][i]: figures}
        spacing = tuple(float(mm) for mm in cells["spacing"][i].split())
        made[key] = CaseScores(*key, cells["split"][i], spacing, structures)
    return list(made.values())


@dataclass(frozen=True)
class Spread:
    """A figure over cases.

    Attributes:
        mean: Over those where it is finite.
        std: Sample standard deviation over those.
        n: How many these are.
        n_failed: In how many one of the masks alone was empty.
        penalised: The mean where a failed case counts with the diagonal of its volume.
    """

    mean: float
    std: float
    n: int
    n_failed: int
    penalised: float

    @classmethod
    def of(cls, scores: Sequence[MaskScores], figure: str) -> Spread:
        """Sum up one figure."""
        values = np.array([getattr(one, figure) for one in scores], dtype=np.float64)
        finite = values[np.isfinite(values)]
        diagonals = np.array([one.diagonal for one in scores])
        filled = np.where(np.isinf(values), diagonals, values)
        penalised = filled[~np.isnan(filled)] if figure in DISTANCES else finite
        return cls(
            mean=float(finite.mean()) if len(finite) else math.nan,
            std=float(finite.std(ddof=1)) if len(finite) > 1 else math.nan,
            n=len(finite),
            n_failed=sum(one.failed for one in scores),
            penalised=float(penalised.mean()) if len(penalised) else math.nan,
        )


def grouped(scores: Sequence[CaseScores]) -> Iterator[tuple[str, str, list[MaskScores]]]:
    """The scores of each structure of each domain, in order."""
    found: dict[tuple[str, str], list[MaskScores]] = {}
    for one in scores:
        for structure, figures in one.structures.items():
            found.setdefault((one.domain, structure), []).append(figures)
    for (domain, structure), own in found.items():
        yield domain, structure, own


def summarise(scores: Sequence[CaseScores]) -> dict[str, float]:
    """Flat figures: means over cases, then over structures, then over domains.

    Returns:
        ``dice``; ``<domain>/dice``; ``<domain>/<structure>/dice``, ``/dice_std``, ``/hd95``,
        ``/hd95_penalised``, ``/assd``, ``/assd_penalised``, ``/mssd``, ``/sensitivity``,
        ``/specificity``, ``/ravd``, ``/volume_ml``, ``/true_volume_ml``, ``/n`` and
        ``/n_failed``, the cases in which one of the masks alone was empty.
    """
    figures: dict[str, float] = {}
    by_domain: dict[str, list[float]] = {}
    for domain, structure, own in grouped(scores):
        prefix = f"{domain}/{structure}"
        for figure in FIGURES:
            if figure == "diagonal":
                continue
            spread = Spread.of(own, figure)
            figures[f"{prefix}/{figure}"] = spread.mean
            if figure == "dice":
                figures[f"{prefix}/dice_std"] = spread.std
                by_domain.setdefault(domain, []).append(spread.mean)
            if figure in DISTANCES:
                figures[f"{prefix}/{figure}_penalised"] = spread.penalised
        figures[f"{prefix}/n"] = len(own)
        figures[f"{prefix}/n_failed"] = sum(one.failed for one in own)
    domains = {name: sum(values) / len(values) for name, values in by_domain.items()}
    top = {"dice": sum(domains.values()) / len(domains) if domains else math.nan}
    return top | {f"{name}/dice": value for name, value in domains.items()} | figures


def summary_rows(scores: Sequence[CaseScores]) -> list[dict[str, object]]:
    """A row for each structure: mean, spread, number and failures of every figure."""
    rows: list[dict[str, object]] = []
    for domain, structure, own in grouped(scores):
        row: dict[str, object] = {"domain": domain, "structure": structure, "n": len(own)}
        row["n_failed"] = sum(one.failed for one in own)
        for figure in FIGURES:
            if figure == "diagonal":
                continue
            spread = Spread.of(own, figure)
            row |= {figure: spread.mean, f"{figure}_std": spread.std, f"{figure}_n": spread.n}
            if figure in DISTANCES:
                row[f"{figure}_penalised"] = spread.penalised
        rows.append(row)
    return rows
