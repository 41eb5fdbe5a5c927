"""What a virtual raster (VRT) may name: plain rasters on this machine, read as such.

A VRT is a script. It may take its pixels from a server, from any file as raw bytes, or compute
them in Python. GDAL reads it leniently (any case, attributes for elements), so it is judged by
every name and value in it, not by its outline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from cl_core.errors import InputError
from cl_remote_sensing.rasters.places import is_remote, is_virtual

__all__ = ["check_virtual"]

_MAX_BYTES = 256 * 2**20

_REFUSED = {
    "vrtrawrasterband": "reads a file as raw bytes",
    "vrtmultidim": "is multidimensional",
    "vrtprocesseddataset": "runs processing steps",
    "python": "computes pixels in Python",
    "pixelfunctioncode": "computes pixels in Python",
    "dempath": "names a terrain model",
    "geoloctransformer": "warps by the arrays of another file",
}
"""Names and values, in lower case, that no VRT may hold."""

_SOURCES = frozenset(("sourcefilename", "sourcedataset"))

_PREFIX = re.compile(r"\w+:")
"""What begins a driver's own syntax (``WMS:...``), or a URL."""


def check_virtual(path: str, check: Callable[[str], None] | None) -> None:
    """Refuse a VRT that leads off this machine or reads what is no raster.

    Args:
        path: The VRT.
        check: Called with each source, a file; raises if it is no raster. ``None`` lets sources
            be anything and anywhere.

    Raises:
        InputError: If it does, naming the source or the element.
    """
    if path.startswith("/vsimem/"):
        return  # made in this process
    if is_virtual(path):
        raise InputError(f"{path}: a virtual raster inside an archive is not read; unpack it")
    for name, value, relative in _values(_parsed(path)):
        reason = _REFUSED.get(name) or _REFUSED.get(value.lower())
        if reason is not None:
            raise InputError(f"{path}: a virtual raster that {reason}, which is not read")
        if check is None:
            continue
        if (value.startswith("/vsi") or _PREFIX.match(value)) and is_remote(value):
            raise InputError(
                f"{path}: names {value!r} on the network, which is not read without --allow_network"
            )
        if name in _SOURCES:
            _check_source(path, value, relative, check)


def _check_source(
    path: str, value: str, relative: bool | None, check: Callable[[str], None]
) -> None:
    if value.startswith("/vsimem/"):
        check(value)
        return
    if is_virtual(value):
        raise InputError(f"{path}: names {value!r} inside an archive; unpack it")
    source = Path(path).parent / value if relative else Path(value)
    try:
        there = source.is_file()
    except (OSError, ValueError):
        there = False
    if not there or relative is None or _PREFIX.match(value):
        raise InputError(f"{path}: names {value!r}, which is no plain file; check its sources")
    check(str(source))


def _parsed(path: str) -> ElementTree.Element:
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: a virtual raster of over {_MAX_BYTES // 2**20} MB")
        text = file.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if b"<!" in text.replace(b"<!--", b"").replace(b"<![CDATA[", b""):
        raise InputError(f"{path}: a virtual raster with declarations, which is not read")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise InputError(f"{path}: not a virtual raster in XML ({error})") from None


def _values(root: ElementTree.Element) -> Iterator[tuple[str, str, bool | None]]:
    """Names of elements and attributes in lower case, their values, and whether these are relative.

    Of attributes that is not known (``None``). Plain metadata may hold anything, since GDAL follows
    it nowhere.
    """
    todo = [root]
    while todo:
        element = todo.pop()
        name = element.tag.lower()
        attributes = {key.lower(): text.strip() for key, text in element.attrib.items()}
        if name == "metadata" and "domain" not in attributes:
            continue
        relative = attributes.get("relativetovrt", "0") not in ("", "0")
        for text in (element.text, *(child.tail for child in element)):
            if text and text.strip():
                yield name, text.strip(), relative
        if element.text is None and not len(element):
            yield name, "", relative
        for key, text in attributes.items():
            yield key, text, None
        todo.extend(element)
