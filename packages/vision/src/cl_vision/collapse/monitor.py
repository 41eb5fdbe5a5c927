"""The collapse spectrum watched while an encoder trains."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning import LightningModule, Trainer
from torch import Tensor, nn

from cl_core.runs import Run, write_atomic
from cl_core.training.online import Measure, OnlineEvaluation
from cl_vision.collapse.spectrum import parts, spectrum
from cl_vision.methods.projectors import FirstChannels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CollapseMonitor", "Snapshot", "monitor_figure", "read_snapshots"]

FILE = "spectrum.csv"


class Snapshot(NamedTuple):
    """A spectrum at the end of an epoch.

    Attributes:
        epoch: From 1.
        space: ``r``, ``z`` or ``r[d0:]``, as in :mod:`cl_vision.collapse.spectrum`.
        logs: Natural logarithms of the singular values, falling.
    """

    epoch: int
    space: str
    logs: tuple[float, ...]


class CollapseMonitor(OnlineEvaluation):
    """Logs effective ranks of an encoder's spaces, and writes their spectra to ``spectrum.csv``.

    The history gets the columns ``r/effective_rank``, ``z/effective_rank`` and, for DirectCLR,
    ``r_unseen/effective_rank`` of the channels beyond ``d0``. The file has a row a singular value:
    epoch, space, rank, natural logarithm. Training is not changed by any of it.

    Args:
        loader: Images with plain, not augmented views; the first ``rows`` of it are measured.
        run: Where to write.
        every: Epochs between two measurements; the last epoch is always measured.
        rows: Images looked at.

    Raises:
        ValueError: If ``every`` is not positive or ``rows`` is below 2.
    """

    def __init__(
        self, loader: Iterable[Any], *, run: Run, every: int = 10, rows: int = 10_000
    ) -> None:
        super().__init__(loader, measures={}, every=every)
        if rows < 2:
            raise ValueError(f"rows must be at least 2, got {rows}")
        self.run = run
        self.rows = rows
        self._snapshots: list[Snapshot] = []
        self._epoch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        projector = getattr(pl_module, "projector", None)
        spaces = ["r"]
        if isinstance(projector, nn.Module):
            spaces.append("z")
        if isinstance(projector, FirstChannels) and projector.out_features < projector.in_features:
            spaces.append(f"r[{projector.out_features}:]")
        self.measures = {_column(space): self._measure(space, projector) for space in spaces}
        path = self.run.path / FILE
        if path.is_file():  # of the part that is resumed
            self._snapshots = [
                one for one in read_snapshots(path) if one.epoch <= trainer.current_epoch
            ]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch = trainer.current_epoch + 1
        before = len(self._snapshots)
        super().on_train_epoch_end(trainer, pl_module)
        if len(self._snapshots) > before and self.run.writes:
            _write(self.run.output(FILE), self._snapshots)

    def _measure(self, space: str, projector: nn.Module | None) -> Measure:
        def measure(x: Tensor, y: Tensor, x_test: Tensor | None, y_test: Tensor | None) -> float:
            features = parts(x[: self.rows], projector)[space]
            found = spectrum(features)
            self._snapshots.append(Snapshot(self._epoch, space, tuple(found.logs.tolist())))
            return found.effective_rank

        return measure


def read_snapshots(path: Path) -> list[Snapshot]:
    """Read what a monitor wrote.

    Args:
        path: ``spectrum.csv`` of a run directory.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return [
        Snapshot(int(epoch), space, tuple(float(line["ln_singular_value"]) for line in group))
        for (epoch, space), group in groupby(lines, key=lambda line: (line["epoch"], line["space"]))
    ]


def monitor_figure(snapshots: Sequence[Snapshot]) -> Figure:
    """Draw how spectra change over the epochs: a panel a space, later epochs darker.

    Args:
        snapshots: Of :func:`read_snapshots`.

    Raises:
        ValueError: If there are none.
    """
    from cl_core.report.figures import PALETTE, new_figure

    if not snapshots:
        raise ValueError("no snapshot to draw")
    spaces = list(dict.fromkeys(one.space for one in snapshots))
    epochs = sorted({one.epoch for one in snapshots})
    figure, panels = new_figure(1, len(spaces), width=3.2 * len(spaces) + 0.6, height=3.0)
    for axes, space in zip(panels, spaces, strict=True):
        for one in snapshots:
            if one.space == space:
                axes.plot(
                    range(1, len(one.logs) + 1),
                    one.logs,
                    color=PALETTE[0],
                    alpha=(epochs.index(one.epoch) + 1) / len(epochs),
                    linewidth=1.4,
                    label=f"epoch {one.epoch}" if one.epoch in (epochs[0], epochs[-1]) else None,
                )
        axes.set_title(space, fontsize=10, loc="left")
        axes.set_xlabel("$k$")
    panels[0].set_ylabel(r"$\ln\,\sigma_k$")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _write(path: Path, snapshots: Sequence[Snapshot]) -> None:
    with write_atomic(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("epoch", "space", "rank", "ln_singular_value"))
        for one in snapshots:
            for rank, value in enumerate(one.logs, start=1):
                table.writerow((one.epoch, one.space, rank, f"{value:.6g}"))


def _column(space: str) -> str:
    name = space if space in ("r", "z") else "r_unseen"
    return f"{name}/effective_rank"
