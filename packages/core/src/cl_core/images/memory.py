"""Images that a caller holds: arrays, tensors, or a data set of torch's kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cl_core.errors import InputError
from cl_core.images.collection import Images
from cl_core.images.dataset import Sample
from cl_core.images.table import ImageTable
from cl_core.runs.fingerprint import Fingerprint, of_arrays
from cl_core.tables.labels import class_names, encode_labels

__all__ = ["MemoryImages", "images_in_memory", "memory_fingerprint"]

_LOOKED_AT = 64  # images whose pixels tell a data set from another


class MemoryImages(Dataset[Sample]):
    """Rows that a caller holds, as samples in as many views as asked for.

    Args:
        read: Gives the image of a row: a tensor, array or Pillow image, or a list of views.
        table: Class of each row; its names are row numbers.
        rows: Which of the caller's rows these are.
        transforms: A function per view; none gives the image, or the caller's own views.
    """

    def __init__(
        self,
        read: Callable[[int], Any],
        table: ImageTable,
        rows: Sequence[int],
        transforms: Sequence[Callable[[Tensor], Tensor]] = (),
    ) -> None:
        self.read = read
        self.table = table
        self.rows = list(rows)
        self.transforms = tuple(transforms)

    def views(
        self, n: int, transform: Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]]
    ) -> MemoryImages:
        """The same images in ``n`` views; where the rows hold views already, more are not made."""
        transforms = [transform] * n if callable(transform) else list(transform)
        if n < 1 or len(transforms) != n:
            raise ValueError(f"{n} views need a transform or {n}, got {len(transforms)}")
        return MemoryImages(self.read, self.table, self.rows, transforms)

    def select(self, rows: Sequence[int]) -> MemoryImages:
        """The images of some rows, numbered anew."""
        kept = [self.rows[row] for row in rows]
        return MemoryImages(self.read, self.table.select(rows), kept, self.transforms)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Sample:
        given = self.read(self.rows[row])
        if isinstance(given, (list, tuple)):
            views = tuple(as_image(view, f"row {row}") for view in given)
            wanted = max(1, len(self.transforms))
            if wanted == 1:
                views = tuple(transform(views[0]) for transform in self.transforms) or views[:1]
            elif len(views) != wanted:
                raise InputError(
                    f"the data in memory, row {row}: {len(views)} views, where {wanted} are taken"
                )
        else:
            image = as_image(given, f"row {row}")
            views = tuple(transform(image) for transform in self.transforms) or (image,)
        return Sample(views, int(self.table.labels[row]), row)


def images_in_memory(data: Any) -> Images:
    """Take what a caller holds for images.

    Args:
        data: ``(n, c, h, w)``, ``(n, h, w, c)`` or ``(n, h, w)`` as an array or tensor, uint8 or
            floating point in [0, 1]; such an ``x`` with labels, ``(x, y)``; or a data set with a
            length whose rows are an image (tensor, array or Pillow's), ``(image, label)``, or
            ``([view, view, ...], label)``. Labels are whole numbers, negative for none. Or a
            ``Dataset`` of Hugging Face's ``datasets`` with a column of images; its column
            ``label`` or ``labels`` gives the classes, by their names.

    Raises:
        InputError: If it is none of these, or holds no image.
    """
    if isinstance(data, Images):
        return data
    if isinstance(data, (Tensor, np.ndarray)):
        return _of_arrays(data, None)
    if isinstance(data, tuple) and len(data) == 2 and hasattr(data[0], "shape"):
        return _of_arrays(*data)
    if hasattr(data, "column_names"):
        return _of_columns(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Mapping):
        return _of_dataset(data)
    raise InputError(
        f"--data: a {type(data).__name__} in memory is no images: give an array (n, c, h, w), such "
        "an x with labels, or a data set of images or (image, label)"
    )


def memory_fingerprint(images: Images) -> Fingerprint:
    """What tells images in memory from others: their number, labels and the pixels of some."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(int))
    dataset = cast(Any, images.dataset)
    pixels = {f"image {row}": dataset[row].views[0] for row in rows.tolist()}
    return of_arrays(f"{len(images):,} images in memory", {"labels": images.labels, **pixels})


def as_image(given: Any, place: str) -> Tensor:
    """An image as a tensor ``(c, h, w)``, uint8 or floating point in [0, 1].

    Raises:
        InputError: If it is none, or its values lie elsewhere.
    """
    if hasattr(given, "convert") and hasattr(given, "getbands"):  # Pillow's
        given = np.array(given.convert("RGB") if given.mode not in ("L", "RGB", "RGBA") else given)
    pixels = torch.as_tensor(
        np.ascontiguousarray(given) if isinstance(given, np.ndarray) else given
    )
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and pixels.shape[0] > 4 >= pixels.shape[2]:
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3:
        raise InputError(
            f"the data in memory, {place}: {tuple(pixels.shape)} is no image (c, h, w) or (h, w, c)"
        )
    if pixels.is_floating_point():
        pixels = pixels.float()
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise InputError(
                f"the data in memory, {place}: values from {float(pixels.min()):g} to "
                f"{float(pixels.max()):g}: give uint8, or numbers in [0, 1]"
            )
    elif pixels.dtype != torch.uint8:
        raise InputError(f"the data in memory, {place}: {pixels.dtype} is neither uint8 nor float")
    return pixels


def _of_arrays(x: Any, y: Any) -> Images:
    if x.ndim not in (3, 4) or not len(x):
        raise InputError(
            f"--data: {tuple(x.shape)} are no images: give (n, c, h, w), (n, h, w, c) or (n, h, w)"
        )
    return _images(lambda row: x[row], len(x), None if y is None else _labels(y, len(x)))


def _of_dataset(data: Any) -> Images:
    rows = len(cast(Sized, data))
    if not rows:
        raise InputError("--data: the data set in memory is empty")
    pair = (
        isinstance(data[0], (list, tuple))
        and len(data[0]) >= 2
        and not hasattr(data[0][1], "convert")
    )
    if pair and isinstance(data[0][1], Tensor) and data[0][1].ndim > 1:
        pair = False  # views without a label
    if not pair:
        single = isinstance(data[0], (list, tuple)) and len(data[0]) == 1
        return _images(lambda row: data[row][0] if single else data[row], rows, None)
    for name in ("targets", "labels"):
        if (told := getattr(data, name, None)) is not None and len(told) == rows:
            labels = _labels(told, rows)
            break
    else:
        tensors: Any = getattr(data, "tensors", ())
        labels = _labels(
            tensors[1] if len(tensors) > 1 else [data[row][1] for row in range(rows)], rows
        )
    return _images(lambda row: data[row][0], rows, labels)


def _of_columns(data: Any) -> Images:
    """The rows of a Hugging Face ``Dataset``: each is decoded when it is asked for."""
    if isinstance(data.column_names, Mapping):
        raise InputError(
            f"--data: a DatasetDict of {', '.join(data.column_names)}: give one of them, as "
            "data['train']"
        )
    images = [name for name, kind in data.features.items() if type(kind).__name__ == "Image"]
    if len(images) != 1:
        raise InputError(
            f"--data: the data set in memory has {len(images)} columns of images among "
            f"{', '.join(data.column_names)}: select the columns to use"
        )
    if not len(data):
        raise InputError("--data: the data set in memory is empty")
    labels = None
    column = next((name for name in ("label", "labels") if name in data.features), None)
    if column is not None:
        names = getattr(data.features[column], "names", None)
        values = data[column][:]
        if names is None:
            labels = _labels(values, len(data))
        else:
            labels = [names[k] if k is not None and k >= 0 else "" for k in values]
    return _images(lambda row: data[row][images[0]], len(data), labels)


def _labels(y: Any, rows: int) -> list[str]:
    values = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if values.shape != (rows,):
        raise InputError(f"--data: {rows:,} images need a label each, got {values.shape}")
    if values.dtype.kind == "f" and not np.all(np.isnan(values) | (values == np.floor(values))):
        raise InputError("--data: labels in memory are whole numbers or text, got fractions")
    return [str(value) for value in values.tolist()]


def _images(read: Callable[[int], Any], rows: int, labels: list[str] | None) -> Images:
    classes = class_names(labels or ())
    table = ImageTable(
        source="the data in memory",
        root=".",
        files=tuple(str(row) for row in range(rows)),
        labels=(
            np.full(rows, -1, dtype=np.int64)
            if labels is None
            else encode_labels(labels, classes, source="the data in memory")
        ),
        classes=classes,
    )
    dataset = MemoryImages(read, table, range(rows))
    return Images(dataset, len(dataset[0].views[0]))
