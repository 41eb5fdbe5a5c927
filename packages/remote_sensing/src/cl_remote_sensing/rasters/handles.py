"""Open rasters: the one place that opens files for reading.

A GDAL data set must not be shared between threads, nor with a process that was forked while it
was open: both would move one file position. So each thread of each process keeps its own few.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import NamedTuple, TypeAlias

# GDAL reads its cache's size at the first raster a process opens and by default takes a twentieth
# of the machine's memory, in every loader worker. 128 MB hold a row of 512-pixel blocks of a raster
# 20,000 pixels wide with four bands of 16 bits. A value the user has set wins.
os.environ.setdefault("GDAL_CACHEMAX", "128")

import rasterio

from cl_remote_sensing.rasters.formats import open_allowed
from cl_remote_sensing.rasters.places import stamp_of

__all__ = ["MAX_OPEN", "handle"]

MAX_OPEN = 32
"""Files that a thread keeps open; opening one costs about a millisecond."""

Stamp: TypeAlias = tuple[int, int, int]


class _Open(NamedTuple):
    """An open file, and what it and the files behind it were when it was opened."""

    file: rasterio.DatasetReader
    stamps: tuple[tuple[str, Stamp | None], ...]


class _OpenFiles(threading.local):
    """The files this thread has open, least recently used first."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[tuple[str, bool], _Open] = OrderedDict()
        self.inherited: list[object] = []


_OPEN = _OpenFiles()


def handle(path: str, *, network: bool = False, fresh: bool = False) -> rasterio.DatasetReader:
    """The raster at ``path``, open for reading; of this process and thread alone.

    Up to :data:`MAX_OPEN` stay open, so ask for the handle at each read and do not keep it. A file
    that was replaced is opened anew.

    Args:
        path: As for :func:`~cl_remote_sensing.rasters.formats.open_allowed`.
        network: Likewise.
        fresh: Look also whether a file behind it was replaced, as a virtual raster's sources; for
            the first look at a raster, not for each window.

    Raises:
        InputError: If it is missing or no raster that is read here.
    """
    if os.getpid() != _OPEN.process:
        # Forked: the parent's files are neither used nor closed here, since GDAL may have been at
        # work on them in another thread of the parent.
        _OPEN.inherited.append(_OPEN.files)
        _OPEN.files, _OPEN.process = OrderedDict(), os.getpid()
    files, key = _OPEN.files, (path, network)
    if key in files:
        known = files[key]
        looked = known.stamps if fresh else known.stamps[:1]
        if all(stamp_of(name) == stamp for name, stamp in looked):
            files.move_to_end(key)
            return known.file
        files.pop(key).file.close()
    stamp = stamp_of(path)  # before it is opened: a change in between is found at the next look
    opened = open_allowed(path, network=network)
    behind = opened.files if opened.driver == "VRT" else ()
    names = dict.fromkeys(name for name in behind if name != path)
    files[key] = _Open(opened, ((path, stamp), *((name, stamp_of(name)) for name in names)))
    if len(files) > MAX_OPEN:
        files.popitem(last=False)[1].file.close()
    return opened
