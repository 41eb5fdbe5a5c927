"""Who may write a run directory, and how one run takes the place of another without loss."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cl_core.errors import InputError
from cl_core.runs.atomic import TEMPORARY

try:
    import fcntl
except ImportError:  # Windows: runs work, a second process is not noticed
    fcntl = None  # type: ignore[assignment]

__all__ = ["MARK", "RunFolder", "launched_rank", "launched_shard"]

MARK = (
    "# Written by cl-core: the options of this run. Repeat it with --config THIS_FILE --out NEW\n"
)
"""First line of every ``config.yaml`` written here: only folders that have it are overwritten."""

_OWN = (
    "metrics.json",
    "history.csv",
    "checkpoints",
    "tensorboard",
    "model.safetensors",
    "model.json",
    "report.html",
)
_CLAIMS = ".outputs"  # names of the command's own outputs, one a line
_LOCK = ".lock"
# The run being replaced, on its way out. While files move to _LEAVING a kill undoes the move;
# _REPLACED holds all of them until the new run has a result; _GONE is deleted whenever seen.
_LEAVING, _REPLACED, _GONE = ".leaving", ".replaced", ".gone"
_SERVICE = (_LOCK, _LEAVING, _REPLACED, _GONE)

_held: set[int] = set()


def _let_go() -> None:
    """Close the locks in a forked child: a data worker must not outlive its run as the owner."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """This process's rank as the launcher tells it, 0 when alone.

    Under Lightning's own launcher only whether it is 0 can be told.
    """
    # The names of the world's size guard against a stray variable of another program.
    for name, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if world in environment and environment.get(name, "").isdecimal():
            return int(environment[name])
    if "WORLD_SIZE" in environment and environment.get("LOCAL_RANK", "").isdecimal():
        node = environment.get("NODE_RANK", "0")
        return int(environment["LOCAL_RANK"]) + int(node if node.isdecimal() else 0)
    return 0


def launched_shard(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's rank and how many torchrun or SLURM started; ``(0, 1)`` when alone.

    For work that is divided without a process group.
    """
    for name, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        place, count = environment.get(name, ""), environment.get(world, "")
        if place.isdecimal() and count.isdecimal() and int(place) < int(count):
            return int(place), int(count)
    return 0, 1


class RunFolder:
    """The right to write one run directory, from construction until :meth:`release`.

    Args:
        path: The folder; made with its parents if it does not exist.
        resume: It must hold a run, which stays.
        overwrite: A run in it is set aside until :meth:`keep`.

    Raises:
        InputError: If the folder holds what is not to be touched, belongs to a living process,
            or cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool, overwrite: bool) -> None:
        self.path = path
        self._lock: int | None = None
        _check(path, resume=resume, overwrite=overwrite)
        with _refusing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _acquire(path)
        try:
            with _refusing(path):
                self._recover(resume=resume)
                _check(path, resume=resume, overwrite=overwrite)
                self._kept = resume
                if overwrite:
                    self._set_aside()
        except BaseException:
            self._unlock()
            raise

    def claim(self, name: str) -> None:
        """Record that ``name`` belongs to the run."""
        if name not in self._claims() and name not in ("config.yaml", *_OWN):
            with _refusing(self.path), (self.path / _CLAIMS).open("a", encoding="utf-8") as file:
                file.write(name + "\n")

    def keep(self) -> None:
        """The run has a result: the one it replaces goes."""
        self._kept = True
        if (self.path / _REPLACED).exists():
            (self.path / _REPLACED).rename(self.path / _GONE)
            shutil.rmtree(self.path / _GONE, ignore_errors=True)

    def release(self, *, failed: bool) -> None:
        """Let others in; a run that failed without a result leaves the folder as it was."""
        if failed and not self._kept:
            with suppress(OSError):
                self._undo()
        self._unlock()

    def _recover(self, *, resume: bool) -> None:
        """Finish or undo what a killed process left half done."""
        shutil.rmtree(self.path / _GONE, ignore_errors=True)
        for folder in (self.path, self.path / "checkpoints"):
            for left in folder.glob(f"{TEMPORARY}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        if (self.path / _LEAVING).exists():
            _move_all(self.path / _LEAVING, self.path)
        elif (self.path / _REPLACED).exists() and not resume:
            self._undo()

    def _set_aside(self) -> None:
        leaving = self.path / _LEAVING
        leaving.mkdir()
        for file in self._files():
            file.rename(leaving / file.name)
        leaving.rename(self.path / _REPLACED)

    def _undo(self) -> None:
        for file in self._files():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        if (self.path / _REPLACED).exists():
            (self.path / _REPLACED).rename(self.path / _LEAVING)
            _move_all(self.path / _LEAVING, self.path)

    def _files(self) -> list[Path]:
        # config.yaml comes last: as long as it is there, the folder is known to be a run.
        names = [*_OWN, *self._claims(), _CLAIMS, "config.yaml"]
        return [self.path / name for name in names if (self.path / name).exists()]

    def _claims(self) -> list[str]:
        file = self.path / _CLAIMS
        names = file.read_text("utf-8").splitlines() if file.exists() else []
        return [name for name in names if name and name == Path(name).name]

    def _unlock(self) -> None:
        if self._lock is not None:
            _held.discard(self._lock)
            os.close(self._lock)
            self._lock = None


def _check(path: Path, *, resume: bool, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file: give a folder")
    with _refusing(path):
        holds = (
            sorted(e.name for e in path.iterdir() if e.name not in _SERVICE)
            if path.exists()
            else []
        )
    if resume and not _is_run(path):
        raise InputError(
            f"--resume: there is no run in {path} to continue; start it without --resume"
        )
    if resume or (not holds and not _is_run(path)):
        return
    if not overwrite:
        if _is_run(path):
            raise InputError(
                f"--out {path} holds a run: continue it with --resume, replace it with "
                "--overwrite, or give another folder"
            )
        raise InputError(f"--out {path} is not empty (it holds {holds[0]}): give another folder")
    if not _is_run(path):
        raise InputError(
            f"--overwrite: {path} holds {holds[0]} but no run, and only a run is overwritten: "
            "give another --out"
        )


def _is_run(path: Path) -> bool:
    for folder in (path, path / _REPLACED, path / _LEAVING):
        with suppress(OSError, ValueError), (folder / "config.yaml").open(encoding="utf-8") as file:
            if file.readline() == MARK:
                return True
    return False


def _move_all(source: Path, target: Path) -> None:
    for file in source.iterdir():
        file.rename(target / file.name)
    source.rmdir()


def _acquire(path: Path) -> int:
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 200).decode(errors="replace")
        os.close(descriptor)
        raise InputError(
            f"--out {path} is being written by another run ({holder}): wait for it or give "
            "another folder"
        ) from error
    except OSError:
        pass  # a file system without locks: better unguarded than unusable
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held.add(descriptor)
    return descriptor


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {path} cannot be used: {error.strerror or error}") from error
