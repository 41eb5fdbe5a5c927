"""Where a raster lies: on this machine, inside an archive or in memory, or on the network."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["is_remote", "is_virtual", "stamp_of"]

_LOCAL = frozenset(("/vsizip", "/vsitar", "/vsigzip", "/vsi7z", "/vsirar", "/vsimem"))
"""GDAL's file systems that stay on this machine, as long as what they hold does."""

_LOCAL_SCHEMES = frozenset(("file", "zip", "tar", "gzip"))


def is_virtual(path: str) -> bool:
    """Whether a name is handed to GDAL as it is, being no path of this machine's file system."""
    return path.startswith("/vsi") or "://" in path


def is_remote(path: str) -> bool:
    """Whether opening a name reaches out: a URL, or a file system of GDAL's over the network.

    What is not known to be local is taken as remote.
    """
    if path.startswith("/vsi"):
        parts = re.findall(r"/vsi[^/]*", path)
        return "://" in path or any(part.lower() not in _LOCAL for part in parts)
    scheme, separator, rest = path.partition("://")
    if not separator:
        return False
    return scheme.lower() not in _LOCAL_SCHEMES or is_remote(rest)


def stamp_of(path: str) -> tuple[int, int, int] | None:
    """What tells a file from one that took its place: size, time of change (ns) and inode.

    ``None`` for what is no file of this machine.
    """
    if is_virtual(path):
        return None
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
