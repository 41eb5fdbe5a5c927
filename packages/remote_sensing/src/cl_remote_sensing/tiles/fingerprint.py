"""What data a training was begun with: the contents of its files, or what was given in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cl_core.runs.fingerprint import Fingerprint, of_files
from cl_remote_sensing.labels.vector_files import VECTOR_SUFFIXES
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.listing import RASTER_SUFFIXES, list_rasters
from cl_remote_sensing.rasters.memory import is_in_memory, named
from cl_remote_sensing.rasters.places import is_virtual
from cl_remote_sensing.tiles.manifest import find_listed, read_listing

__all__ = ["fingerprint_of"]


def fingerprint_of(*data: Any, network: bool = False) -> Fingerprint:
    """The fingerprint of rasters and labels, as the options name them.

    Args:
        data: Each as ``data`` or ``labels`` of a training; ``None`` for what is not given.
        network: Whether lists and virtual rasters may name places on the network.

    Raises:
        InputError: If a file is missing or cannot be read.
    """
    files: list[str] = []
    held: list[str] = []
    for one in data:
        for entry in one if isinstance(one, list | tuple) else [one]:
            if is_in_memory(entry):
                path, memory = named(entry)
                (held if memory is not None else files).append(path)
            elif entry is not None:
                files += _files(str(entry), network)
    found = of_files(dict.fromkeys(files))
    names = [Path(path).stem for path in held]  # they are called by their contents
    about = ", ".join([*([found.about] if files else []), *names])
    digest = hashlib.sha256("\n".join([found.digest, *names]).encode()).hexdigest()
    return Fingerprint(about, digest)


def _files(entry: str, network: bool) -> Iterator[str]:
    path = Path(entry)
    if path.suffix.lower() == ".csv":
        yield entry
        for row in read_listing(path, ["image", "label"]):
            yield from (str(find_listed(row[name], path)) for name in ("image", "label"))
    elif path.suffix.lower() in VECTOR_SUFFIXES:
        yield entry
    elif path.is_dir():
        suffixes = RASTER_SUFFIXES | VECTOR_SUFFIXES
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in suffixes and file.is_file():
                yield str(file)
    else:
        for raster in list_rasters([entry], network=network):
            if not is_virtual(raster):
                behind = handle(raster, network=network).files
                yield from (name for name in (raster, *behind) if Path(name).is_file())
