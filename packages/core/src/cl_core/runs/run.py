"""A run: one folder, written or read."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

from cl_core._version import __version__
from cl_core.errors import InputError
from cl_core.runs.atomic import write_atomic
from cl_core.runs.card import Card, CardOf, Saved, load_model, save_model, write_json
from cl_core.runs.folder import MARK, RunFolder, refuse_links
from cl_core.runs.history import History
from cl_core.runs.launch import launched_rank
from cl_core.runs.record import (
    HOW_CALLED,
    changed_options,
    environment,
    plain,
    read_config,
)
from cl_core.tables.documents import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cl_core.runs.fingerprint import Fingerprint

__all__ = ["Run"]


_DATA = "data.json"


class Run:
    """A run directory, being written (:meth:`create`) or only read (:meth:`open`).

    Use it in a ``with`` block: leaving it releases the folder, and leaving it by an exception
    before the run has a first result (a checkpoint, a model, metrics) undoes what was begun, so
    that the corrected command can simply be typed again.

    In a training over several processes every process creates the run with the same arguments;
    only the first one checks and writes, for the others each saving method does nothing.

    Attributes:
        path: The folder.
        resumed: Whether an earlier run is being continued.
    """

    def __init__(self, path: Path, *, folder: RunFolder | None = None, resumed: bool = False):
        self.path = path
        self.resumed = resumed
        self._folder = folder
        self._start = time.perf_counter()
        self.history = History(path / "history.csv")

    @classmethod
    def create(
        cls,
        out: Path | str,
        config: object,
        *,
        resume: bool = False,
        overwrite: bool = False,
        data: Fingerprint | None = None,
    ) -> Run:
        """Begin a run in ``out``, or continue the one that lies there.

        A folder that holds anything is refused unless ``resume`` or ``overwrite`` is given, and
        then must hold an earlier run. ``overwrite`` sets the files of the earlier run aside and
        deletes them when the new run has its first result; a new run that fails before brings
        them back. Files that no run made are never touched. A second process that wants the
        same folder is refused while the first one lives; a killed one holds nothing back.

        Args:
            out: The folder; made with its parents if it does not exist.
            config: The command's dataclass (others may be nested in it) or a mapping. Recorded
                in ``config.yaml`` but for ``resume`` and ``overwrite``, which say how a command
                was called and would be repeated with it.
            resume: Continue. ``config`` may differ from the recorded one in ``epochs``, ``out``
                and ``trainer`` only, which leave the meaning of the epochs so far unchanged.
            overwrite: Replace.
            data: What the run learns from; recorded, and compared when the run is continued.

        Raises:
            InputError: If one of the above is not met, or the folder cannot be written.
            ValueError: If ``config`` holds what YAML cannot.
        """
        record = {name: value for name, value in plain(config).items() if name not in HOW_CALLED}
        if resume and overwrite:
            raise InputError("--resume and --overwrite exclude each other: give only one")
        path = Path(out).expanduser()
        if launched_rank() != 0:
            return cls(path, resumed=resume)
        folder = RunFolder(path, resume=resume, overwrite=overwrite)
        try:
            if resume:
                change = changed_options(before=read_config(path), now=record)
                if change:
                    raise InputError(
                        f"--resume: {change} in {path / 'config.yaml'}; only --epochs and "
                        "--trainer.* may change"
                    )
                if data is not None and (path / _DATA).exists():
                    data.require_same(_mapping(path / _DATA), str(path))
            with write_atomic(path / "config.yaml") as temporary:
                temporary.write_text(MARK + yaml.safe_dump(record, sort_keys=False), "utf-8")
            if data is not None:
                write_json(path / _DATA, {"about": data.about, "digest": data.digest})
        except BaseException:
            folder.release(failed=True)
            raise
        return cls(path, folder=folder, resumed=resume)

    def wait_for_first(self, config: object, *, seconds: float = 600.0) -> None:
        """On any process but the first, wait until the first has begun this very run.

        For work that processes share without talking to each other: what one of them wrote too
        early would make the first one refuse the folder as not empty.

        Args:
            config: That of :meth:`create`.
            seconds: How long to wait.

        Raises:
            InputError: If the first process has not begun by then.
        """
        if launched_rank() == 0:
            return
        record = {name: value for name, value in plain(config).items() if name not in HOW_CALLED}
        wanted = yaml.safe_load(yaml.safe_dump(record))
        end = time.monotonic() + seconds
        while not ((self.path / "config.yaml").is_file() and self.config == wanted):
            if time.monotonic() > end:
                raise InputError(
                    f"--out {self.path}: the first of the processes has not begun there in "
                    f"{seconds:.0f} s; see what it says"
                )
            time.sleep(0.05)

    @classmethod
    def open(cls, path: Path | str | Run) -> Run:
        """Read an earlier run; one that is open already stays as it is.

        Raises:
            InputError: If there is no run at ``path``.
        """
        if isinstance(path, Run):
            return path
        path = Path(path).expanduser()
        if not (path / "config.yaml").is_file():
            what = "is not a run directory: it has no config.yaml" if path.exists() else "not found"
            raise InputError(f"--run {path}: {what}; give the --out folder of an earlier run")
        return cls(path)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def close(self, *, failed: bool = False) -> None:
        """Release the folder; ``failed`` undoes a run without a first result."""
        if self._folder is not None:
            self._folder.release(failed=failed)
            self._folder = None

    @property
    def writes(self) -> bool:
        """Whether this process may write here: false for other ranks and for an opened run."""
        return self._folder is not None

    @property
    def config(self) -> dict[str, Any]:
        """The recorded options, nested as in ``config.yaml``."""
        return read_config(self.path)

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint to resume from lies, if there is one."""
        return self.path / "checkpoints" / "last.ckpt"

    def output(self, name: str) -> Path:
        """Claim a file or folder of the command's own, as in ``run.output("embeddings.npy")``.

        What is claimed belongs to the run, so ``--overwrite`` replaces it.

        Args:
            name: A name inside the run directory; folders on the way to it are made.

        Returns:
            Its path, to be given to :func:`write_atomic`.
        """
        path = self.path / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
            raise ValueError(f"an output lies inside the run directory, got {name!r}")
        if self._folder is not None:
            refuse_links(self.path, Path(name))
            self._folder.claim(Path(name).parts[0])
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def begun(self) -> None:
        """Say that the run has a result worth keeping; what it overwrites is deleted now."""
        if self._folder is not None:
            self._folder.keep()

    def save_metrics(self, metrics: Mapping[str, object], *, seconds: float | None = None) -> None:
        """Write ``metrics.json``: the figures and what they were computed with.

        Args:
            metrics: Flat names to numbers (Python's, numpy's or tensors of one element). A figure
                that is not finite is undefined (the AUROC of one class) and becomes ``null``.
            seconds: How long the run took; by default the time since it was created here.
        """
        if not self.writes:
            return
        elapsed = time.perf_counter() - self._start if seconds is None else seconds
        write_json(
            self.path / "metrics.json",
            {
                "metrics": {name: _number(name, value) for name, value in metrics.items()},
                "environment": environment(),
                "seconds": round(elapsed, 3),
                "version": __version__,
            },
        )
        self.begun()

    def metrics(self) -> dict[str, float | None]:
        """The figures in ``metrics.json``.

        Raises:
            InputError: If there are none or the file is damaged.
        """
        path = self.path / "metrics.json"
        if not path.exists():
            raise InputError(
                f"{self.path} has no {path.name}: the run has not got that far, resume it"
            )
        figures = _mapping(path).get("metrics")
        if not isinstance(figures, dict) or not all(map(_is_figure, figures.values())):
            raise InputError(f"{path} holds no metrics: run the command again")
        return figures

    def save_model(self, model: nn.Module | Mapping[str, Tensor], card: Card) -> None:
        """Write ``model.safetensors`` and ``model.json``.

        Args:
            model: The deployable part, or its ``state_dict``.
            card: How to rebuild it.
        """
        if self.writes:
            save_model(self.path, model, card)
            self.begun()

    def load_model(self, *kinds: type[CardOf]) -> Saved[CardOf]:
        """The saved weights and their card.

        Args:
            kinds: The cards that will do.

        Raises:
            InputError: If the run has no model (yet), one of another kind or package, or its files
                are damaged or do not belong together.
        """
        return load_model(self.path, *kinds)


def _is_figure(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _mapping(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged (not an object): run the command again")
    return record


def _number(name: str, value: object) -> float | int | None:
    try:
        number = value if isinstance(value, int) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metric {name} must be a number, got {value!r}") from error
    return number if math.isfinite(number) else None
