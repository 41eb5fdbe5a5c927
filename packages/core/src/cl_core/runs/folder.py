"""Who may write a run directory, and how one run takes the place of another without loss."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cl_core.errors import InputError
from cl_core.runs.atomic import TEMPORARY, remove
from cl_core.tables.documents import read_text

try:
    import fcntl
except ImportError:  # Windows: runs work, a second process is not noticed
    fcntl = None  # type: ignore[assignment]

__all__ = ["MARK", "RunFolder", "refuse_links", "require_free"]

MARK = (
    "# Written by cl-core: the options of this run. Repeat it with --config THIS_FILE --out NEW\n"
)
"""First line of every ``config.yaml`` written here: only folders that have it are overwritten."""

_OWN = (
    "data.json",
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
_LARGEST_CLAIMS = 2**20
_ORPHANS_MAY_TAKE = 5.0  # seconds, until a killed run's children have closed its lock

_held: set[int] = set()


def _let_go() -> None:
    """Close the locks in a forked child: a data worker must not outlive its run as the owner."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


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
        require_free(path, resume=resume, overwrite=overwrite)
        with _refusing(path):
            self._made = [part for part in (path, *path.parents) if not part.exists()]
            path.mkdir(parents=True, exist_ok=True)
            _refuse_all_links(path)
            self._lock = _acquire(path)
        try:
            with _refusing(path):
                self._recover(resume=resume)
                require_free(path, resume=resume, overwrite=overwrite)
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
                if self._made and [entry.name for entry in self.path.iterdir()] == [_LOCK]:
                    (self.path / _LOCK).unlink()
                    for part in self._made:  # from within; a folder that is used stays
                        part.rmdir()
        self._unlock()

    def _recover(self, *, resume: bool) -> None:
        """Finish or undo what a killed process left half done."""
        shutil.rmtree(self.path / _GONE, ignore_errors=True)
        for folder in (self.path, self.path / "checkpoints"):
            for left in folder.glob(f"{TEMPORARY}*"):
                remove(left)
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
            remove(file)
        if (self.path / _REPLACED).exists():
            (self.path / _REPLACED).rename(self.path / _LEAVING)
            _move_all(self.path / _LEAVING, self.path)

    def _files(self) -> list[Path]:
        # config.yaml comes last: as long as it is there, the folder is known to be a run.
        names = [*_OWN, *self._claims(), _CLAIMS, "config.yaml"]
        return [self.path / name for name in names if os.path.lexists(self.path / name)]

    def _claims(self) -> list[str]:
        """The outputs that are recorded; what is no plain name in the folder is nobody's."""
        file = self.path / _CLAIMS
        if not file.exists():
            return []
        names = read_text(file, most=_LARGEST_CLAIMS).splitlines()
        return [name for name in dict.fromkeys(names) if _is_plain(name)]

    def _unlock(self) -> None:
        if self._lock is not None:
            _held.discard(self._lock)
            os.close(self._lock)
            self._lock = None


def require_free(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a place that a run may not be written to, having touched nothing.

    Args:
        path: The folder, which need not exist.
        resume: It must hold a run.
        overwrite: A run in it may be replaced, and nothing else.

    Raises:
        InputError: Telling what lies there and what to do.
    """
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


def refuse_links(folder: Path, inside: Path) -> None:
    """Refuse a path in a run directory on whose way lies a link: it leads who knows where.

    Raises:
        InputError: Naming the link.
    """
    place = folder
    for part in inside.parts:
        place = place / part
        if place.is_symlink():
            raise InputError(
                f"{place} is a link, and a run directory holds none: remove it, or give another "
                "folder"
            )


def _refuse_all_links(path: Path) -> None:
    """Look where this module will read, write or remove."""
    for folder in (path, *(path / name for name in ("checkpoints", _LEAVING, _REPLACED))):
        refuse_links(path, folder.relative_to(path))
        if folder.is_dir():
            for entry in folder.iterdir():
                own = entry.name in (*_OWN, *_SERVICE, _CLAIMS, "config.yaml")
                if own or folder != path:
                    refuse_links(path, entry.relative_to(path))


def _is_plain(name: str) -> bool:
    return (
        name not in ("", ".", "..", *_SERVICE)
        and "/" not in name
        and os.sep not in name
        and "\0" not in name
    )


def _is_run(path: Path) -> bool:
    for folder in (path, path / _REPLACED, path / _LEAVING):
        file = folder / "config.yaml"
        with suppress(OSError, ValueError):
            if file.is_file():  # anything else might never end
                with file.open(encoding="utf-8") as opened:
                    if opened.readline(len(MARK) + 1) == MARK:
                        return True
    return False


def _move_all(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if os.path.lexists(target / file.name):
            raise InputError(
                f"{target} and {source} both hold {file.name}: remove or rename one of them"
            )
        file.rename(target / file.name)
    source.rmdir()


def _acquire(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path / _LOCK, flags, 0o666)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise InputError(f"{path / _LOCK} is no file of this folder alone: remove it")
    deadline = time.monotonic() + _ORPHANS_MAY_TAKE
    while fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace")
            if _is_gone(holder) and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise InputError(
                f"--out {path} is being written by another run ({holder}): wait for it or give "
                "another folder"
            ) from error
        except OSError:
            break  # a file system without locks: better unguarded than unusable
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held.add(descriptor)
    return descriptor


def _is_gone(holder: str) -> bool:
    """Whether a lock's owner lives no more, and only children of it have yet to let go."""
    found = re.fullmatch(r"process (\d{1,9}) on (.*)", holder)
    if found is None or found[2] != socket.gethostname():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {path} cannot be used: {error.strerror or error}") from error
