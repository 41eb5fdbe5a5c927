"""What a mapping has finished so far, in one file that a kill cannot spoil.

A GeoTIFF under construction is worth nothing after a kill. The finished rows therefore go to a file
that only ever grows, each record with its checksum, and become GeoTIFFs at the end. The same
command run again finds the records, drops the one that was cut short, and goes on behind the last.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cl_core.errors import InputError

__all__ = ["Journal"]

_MAGIC = b"clmap1\n"
_HEAD = struct.Struct("<IIIIII")  # panel, row, rows, cols, layers, checksum of what follows


class _Record(NamedTuple):
    offset: int  # of the first layer's bytes
    sizes: tuple[int, ...]
    shape: tuple[int, int]


class Journal:
    """Rows of a map by panel (a range of columns): layers of arrays ``(rows, cols)``.

    Layer 0 is the classes, others are as the caller orders them. Use it in a ``with`` block, which
    holds other processes off; the file stays until :meth:`remove`.

    Args:
        path: The file; created if it is missing.
        key: What the rows depend on. Records under another key are of no use and dropped.
        dtypes: Type of each layer.
        keep: Whether to go on behind the records of an earlier process.

    Raises:
        InputError: If another process has it, or the place cannot be written.
    """

    def __init__(
        self, path: Path, key: Mapping[str, Any], dtypes: Sequence[str], *, keep: bool
    ) -> None:
        self.path = path
        self.dtypes = [np.dtype(dtype) for dtype in dtypes]
        self._records: dict[tuple[int, int], _Record] = {}
        header = _MAGIC + json.dumps(key, sort_keys=True).encode() + b"\n"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise InputError(
                f"{path} is in use: another process is writing this map; wait for it or choose "
                "another output"
            ) from error
        self._end = 0
        if keep and os.pread(self._file, len(header), 0) == header:
            self._end = len(header)
            self._scan()
            os.ftruncate(self._file, self._end)
        else:
            os.ftruncate(self._file, 0)
            self._write(header)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; one without a record is deleted."""
        if self._file >= 0:
            if not self._records:
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Delete the file: the map is complete."""
        self._records.clear()
        self.close()

    def __len__(self) -> int:
        return len(self._records)

    def next_row(self, panel: int, first: int) -> int:
        """The first row of a panel that is not finished, if it began at ``first``."""
        while (record := self._records.get((panel, first))) is not None:
            first += record.shape[0]
        return first

    def append(self, panel: int, row: int, layers: Sequence[NDArray[Any]]) -> None:
        """Keep finished rows.

        Raises:
            InputError: If the disk is full; what was kept before stays.
        """
        packed = [_pack(layer) for layer in layers]
        sizes = struct.pack(f"<{len(packed)}Q", *map(len, packed))
        body = b"".join([sizes, *packed])
        shape = layers[0].shape
        head = _HEAD.pack(panel, row, *shape, len(packed), zlib.crc32(body))
        start = self._end
        self._write(head + body)
        self._note(panel, row, shape, start, tuple(map(len, packed)))

    def read(self, panel: int, row: int, layer: int) -> NDArray[Any]:
        """Rows that were kept, ``(rows, cols)``."""
        record = self._records[panel, row]
        offset = record.offset + sum(record.sizes[:layer])
        data = os.pread(self._file, record.sizes[layer], offset)
        dtype = self.dtypes[layer]
        return np.frombuffer(data if dtype.kind == "f" else zlib.decompress(data), dtype).reshape(
            record.shape
        )

    def _note(
        self, panel: int, row: int, shape: tuple[int, ...], start: int, sizes: tuple[int, ...]
    ) -> None:
        offset = start + _HEAD.size + 8 * len(sizes)
        self._records[panel, row] = _Record(offset, sizes, (shape[0], shape[1]))

    def _scan(self) -> None:
        """Find the whole records; the first that is cut short or damaged ends the search."""
        size = os.fstat(self._file).st_size
        while self._end + _HEAD.size <= size:
            head = os.pread(self._file, _HEAD.size, self._end)
            panel, row, rows, cols, layers, checksum = _HEAD.unpack(head)
            start = self._end + _HEAD.size
            table = os.pread(self._file, 8 * layers, start)
            if layers != len(self.dtypes) or len(table) < 8 * layers:
                return
            sizes = struct.unpack(f"<{layers}Q", table)
            if start + 8 * layers + sum(sizes) > size:
                return
            body = os.pread(self._file, 8 * layers + sum(sizes), start)
            if zlib.crc32(body) != checksum:
                return
            self._note(panel, row, (rows, cols), self._end, sizes)
            self._end = start + len(body)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:  # a write may be cut short, by a signal or by a disk that is nearly full
                done = os.pwrite(self._file, view, self._end + len(data) - len(view))
                view = view[done:]
        except OSError as error:
            os.ftruncate(self._file, self._end)
            kept = "; the rows finished so far are kept, so free space and resume"
            told = f"cannot write {self.path}: {error.strerror}{kept if self._records else ''}"
            self.close()
            raise InputError(told) from error
        self._end += len(data)


def _pack(layer: NDArray[Any]) -> bytes:
    data = np.ascontiguousarray(layer)
    # Deflating fractions costs more time than it saves room.
    return data.tobytes() if data.dtype.kind == "f" else zlib.compress(data.data, 1)
