r"""Scores of a class map, from one confusion matrix over all pixels.

Never an average over images: with $M_{tp}$ the pixels of class $t$ that were mapped as $p$, every
figure follows from $M$ alone. A class that occurs neither in truth nor in the map has no score
(NaN) and is left out of the means; one that occurs in only one of them scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Array", "Confusion", "as_ids", "confusion_matrix", "scores"]

#: A tensor on any device or what ``numpy.asarray`` takes.
Array = Any


def confusion_matrix(
    truth: Array, predicted: Array, num_classes: int, *, ignore: int = 255
) -> np.ndarray:
    """Count the pixels of each pair of true and mapped class.

    Args:
        truth: Train ids of any shape; ``ignore`` where nothing is known.
        predicted: Train ids of the same shape; ``ignore`` where the map has no data.
        num_classes: ``k``.
        ignore: Pixels with this id in either are left out.

    Returns:
        int64 ``(k, k)``, a row a true class, a column a mapped one.

    Raises:
        ValueError: If the shapes differ or an id is neither a class nor ``ignore``.
    """
    t, p = as_ids(truth), as_ids(predicted)
    if t.shape != p.shape:
        raise ValueError(
            f"truth and map must pair pixel by pixel, got {tuple(t.shape)} and {tuple(p.shape)}"
        )
    known = (t != ignore) & (p != ignore)
    t, p = t[known].long(), p[known].to(t.device).long()
    for name, ids in (("truth", t), ("map", p)):
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= num_classes):
            raise ValueError(
                f"the {name} holds ids from {int(ids.min())} to {int(ids.max())}, expected 0 to "
                f"{num_classes - 1} or {ignore} for no data"
            )
    counts = torch.bincount(t.mul_(num_classes).add_(p), minlength=num_classes**2)
    return counts.view(num_classes, num_classes).cpu().numpy()


@dataclass
class Confusion:
    """A confusion matrix that grows window by window.

    Attributes:
        matrix: int64 ``(k, k)``, a row a true class.
        ignored: Pixels that were left out.
    """

    matrix: np.ndarray
    ignored: int = 0

    @classmethod
    def empty(cls, num_classes: int) -> Confusion:
        return cls(np.zeros((num_classes, num_classes), dtype=np.int64))

    def add(self, truth: Array, predicted: Array, *, ignore: int = 255) -> None:
        """Count the pixels of a window or batch, as :func:`confusion_matrix` does."""
        more = confusion_matrix(truth, predicted, len(self.matrix), ignore=ignore)
        self.matrix += more
        self.ignored += as_ids(truth).numel() - int(more.sum())


def scores(confusion: Confusion | np.ndarray, names: Sequence[str]) -> dict[str, float]:
    r"""Turn a confusion matrix into figures.

    With $n$ the sum of $M$, $r_c$ its rows' and $s_c$ its columns' sums,

    $$\mathrm{OA} = \frac{\sum_c M_{cc}}{n},\quad
      \kappa = \frac{n \sum_c M_{cc} - \sum_c r_c s_c}{n^2 - \sum_c r_c s_c},\quad
      F_c = \frac{2 M_{cc}}{r_c + s_c},\quad
      \mathrm{IoU}_c = \frac{M_{cc}}{r_c + s_c - M_{cc}},$$

    precision $M_{cc}/s_c$ and recall $M_{cc}/r_c$; $\kappa$ is 0 where its denominator is (one
    class only). ``macro_`` figures average over the classes that occur, ``weighted_`` ones by
    $r_c / n$.

    Args:
        confusion: Counts, with the ignored pixels if they are to be told.
        names: Name of each class.

    Returns:
        ``oa``, ``kappa``, ``miou``, ``macro_f1``, ``macro_precision``, ``macro_recall``,
        ``weighted_f1``, ``weighted_iou``; for each class ``<name>/f1``, ``/iou``, ``/precision``,
        ``/recall`` and ``/support``, its true pixels; ``pixels`` counted and ``ignored``, the
        share left out. All in [0, 1] but for kappa, which can be negative, and the counts.

    Raises:
        ValueError: If the matrix is not ``(k, k)`` for ``k`` names.
    """
    if not isinstance(confusion, Confusion):
        confusion = Confusion(np.asarray(confusion))
    m = confusion.matrix
    if m.shape != (len(names), len(names)):
        raise ValueError(f"{len(names)} class names need a square matrix, got shape {m.shape}")
    row, col, hit = m.sum(1), m.sum(0), m.diagonal()
    n, trace = int(m.sum()), int(hit.sum())
    chance = sum(int(r) * int(c) for r, c in zip(row, col, strict=True))  # exact, however large
    occurs = (row + col) > 0
    per_class = {
        "f1": _ratio(2 * hit, row + col, occurs),
        "iou": _ratio(hit, row + col - hit, occurs),
        "precision": _ratio(hit, col, occurs),
        "recall": _ratio(hit, row, occurs),
    }
    if n == 0:
        kappa = float("nan")
    else:
        kappa = (n * trace - chance) / (n**2 - chance) if n**2 > chance else 0.0
    result = {
        "oa": trace / n if n else float("nan"),
        "kappa": kappa,
        "miou": _mean(per_class["iou"]),
        **{f"macro_{name}": _mean(per_class[name]) for name in ("f1", "precision", "recall")},
        **{f"weighted_{name}": _mean(per_class[name], row) for name in ("f1", "iou")},
    }
    for c, name in enumerate(names):
        result |= {f"{name}/{figure}": float(value[c]) for figure, value in per_class.items()}
        result[f"{name}/support"] = float(row[c])
    total = n + confusion.ignored
    return result | {
        "pixels": float(n),
        "ignored": confusion.ignored / total if total else float("nan"),
    }


def as_ids(values: Array) -> torch.Tensor:
    """Class ids as a tensor: a tensor as it is, anything else as a uint8 or int64 copy."""
    if isinstance(values, torch.Tensor):
        return values
    # A copy: arrays may be read-only; widened: torch compares no unsigned integers but uint8.
    values = np.asarray(values)
    return torch.tensor(values if values.dtype == np.uint8 else values.astype(np.int64))


def _ratio(part: np.ndarray, whole: np.ndarray, occurs: np.ndarray) -> np.ndarray:
    """``part / whole``: 0 where only ``whole`` is empty, NaN where the class does not occur."""
    return np.where(occurs, part / np.maximum(whole, 1), np.nan)


def _mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    known = ~np.isnan(values)
    if not known.any() or (weights is not None and not weights[known].any()):
        return float("nan")
    return float(np.average(values[known], weights=None if weights is None else weights[known]))
