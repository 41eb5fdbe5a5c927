"""Open rasters: the one place that opens files for reading.

A GDAL data set must not be shared between threads, nor with a process that was forked while it
was open: both would move one file position. So each thread of each process keeps its own few.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from pathlib import Path

# GDAL reads its cache's size at the first raster a process opens and by default takes a twentieth
# of the machine's memory, in every loader worker. 128 MB hold a row of 512-pixel blocks of a raster
# 20,000 pixels wide with four bands of 16 bits. A value the user has set wins.
os.environ.setdefault("GDAL_CACHEMAX", "128")

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from cl_core.errors import InputError

__all__ = ["MAX_OPEN", "handle"]

MAX_OPEN = 32
"""Files that a thread keeps open; opening one costs about a millisecond."""


class _OpenFiles(threading.local):
    """The files this thread has open, least recently used first."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[str, rasterio.DatasetReader] = OrderedDict()
        self.inherited: list[object] = []


_OPEN = _OpenFiles()


def handle(path: str) -> rasterio.DatasetReader:
    """The raster at ``path``, open for reading; of this process and thread alone.

    Up to :data:`MAX_OPEN` stay open, so ask for the handle at each read and do not keep it. A file
    that is replaced while it is open is read as it was.

    Args:
        path: Anything GDAL opens; ``/vsi...`` paths and URLs are handed on as they are.

    Raises:
        InputError: If it is missing or no raster.
    """
    if os.getpid() != _OPEN.process:
        # Forked: the parent's files are neither used nor closed here, since GDAL may have been at
        # work on them in another thread of the parent.
        _OPEN.inherited.append(_OPEN.files)
        _OPEN.files, _OPEN.process = OrderedDict(), os.getpid()
    files = _OPEN.files
    if path in files:
        files.move_to_end(path)
        return files[path]
    opened = _open(path)
    files[path] = opened
    if len(files) > MAX_OPEN:
        files.popitem(last=False)[1].close()
    return opened


def _open(path: str) -> rasterio.DatasetReader:
    try:
        with warnings.catch_warnings():  # that it has no georeference is told by the scene
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path)
    except (RasterioError, UnicodeError, ValueError) as error:
        if not (path.startswith("/vsi") or "://" in path):
            file = Path(path)
            if file.is_dir():
                raise InputError(f"{path}: a folder, not a raster; name a file in it") from None
            if not file.exists() and ":" not in path:
                raise InputError(f"{path}: no such file; check the path") from None
            if file.is_file() and file.stat().st_size == 0:
                raise InputError(f"{path}: the file is empty (0 bytes); fetch it again") from None
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a raster that GDAL can read ({reason})") from None
