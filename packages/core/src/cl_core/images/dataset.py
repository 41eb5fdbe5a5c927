"""The one dataset type: rows of an image table, decoded, in any number of views."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cl_core.errors import InputError
from cl_core.images.cache import DecodeCache
from cl_core.images.decode import decode_image, decode_images
from cl_core.images.decoding import Channels, Decoding, ValueRange, ValueRangeError
from cl_core.images.masks import MaskSource, fit_mask, read_mask
from cl_core.images.opening import MAX_PIXELS, UnreadableImageError
from cl_core.images.table import ImageTable

__all__ = ["ImageDataset", "JointTransform", "Sample", "Transform"]

Transform = Callable[[Tensor], Tensor]
"""Makes a view of a decoded image."""

JointTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Makes a view of a decoded image, and of the mask on it."""

View = Transform | JointTransform


class Sample(NamedTuple):
    """An image. A loader's batch has the same four fields.

    Attributes:
        views: The views, each ``(c, h, w)``; in a batch a list of ``(n, c, h, w)``.
        label: Its class, -1 for none; in a batch int64 ``(n,)``.
        row: Where it stands in the table; in a batch int64 ``(n,)``.
        masks: A mask ``(h, w)`` per view, of its geometry; in a batch a list of ``(n, h, w)``.
            Empty unless the data set has masks.
    """

    views: tuple[Tensor, ...]
    label: int
    row: int
    masks: tuple[Tensor, ...] = ()


class ImageDataset(Dataset[Sample]):
    """Images of a table: decoded as :func:`read_image` does, once for all their views.

    Nothing is resized or normalised but by ``views``' transforms. Random transforms should draw
    from torch's generator, which the loader seeds for each worker and epoch.

    Args:
        table: The images.
        channels: 1, 3, 4 or ``"keep"``; see :class:`Decoding`.
        on_error: ``stop`` raises at the first image that cannot be read or transformed. ``skip``
            gives the next row that can, with that one's label and row, the same one each time;
            :attr:`unreadable` then tells what was skipped. To have each row exactly once, as an
            evaluation needs, use :meth:`checked`.
        cache: Decoded images to take instead of the files.
        jpeg_min_side: Decode JPEG smaller; see :class:`Decoding`, as for the next two.
        max_pixels: The largest image to decode.
        value_range: The values of 32-bit files that become 0 and 1.
        masks: Where the mask of each image comes from: a column of the table that names a file
            (relative to the table's ``root``), or a function of row number and decoded image.
            Each transform then takes image and mask and returns both, as
            :class:`cl_core.transforms.RandomResizedCrop` does.
        transforms: A function per view; none gives one view, the image as decoded.

    Raises:
        ValueError: If an option is out of range, or the cache was made with others.
        InputError: If the table has no column of this name.
    """

    def __init__(
        self,
        table: ImageTable,
        *,
        channels: Channels = 3,
        on_error: Literal["stop", "skip"] = "stop",
        cache: DecodeCache | None = None,
        jpeg_min_side: int | None = None,
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        masks: str | MaskSource | None = None,
        transforms: Sequence[View] = (),
    ) -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error must be 'stop' or 'skip', got {on_error!r}")
        self.decoding = Decoding(
            channels=channels,
            jpeg_min_side=jpeg_min_side,
            max_pixels=max_pixels,
            value_range=value_range,
        )
        if cache is not None:
            cache.require(self.decoding)
        self.table = table
        self.on_error = on_error
        self.cache = cache
        self.masks = masks
        self._mask_files = table.column(masks) if isinstance(masks, str) else ()
        self.transforms = tuple(transforms)
        # Shared with the workers, which are other processes: what they meet is told here.
        self._failed = torch.zeros(len(table), dtype=torch.bool)
        if on_error == "skip":
            self._failed.share_memory_()  # type: ignore[no-untyped-call]

    def views(self, n: int, transform: View | Sequence[View]) -> ImageDataset:
        """The same images in ``n`` views.

        Args:
            n: How many views.
            transform: A function of a uint8 or float ``(c, h, w)`` tensor, applied ``n`` times
                to the decoded image, or ``n`` functions, one per view. They must not change
                their argument. Of a data set with masks they take image and mask.
        """
        transforms = [transform] * n if callable(transform) else list(transform)
        if n < 1 or len(transforms) != n:
            raise ValueError(f"{n} views need a transform or {n}, got {len(transforms)}")
        return self._like(self.table, transforms)

    def select(self, rows: Iterable[int]) -> ImageDataset:
        """The images of some rows, numbered anew."""
        return self._like(self.table.select(rows), self.transforms)

    def with_masks(self, masks: str | MaskSource) -> ImageDataset:
        """The same images, with the masks of another source, without a transform."""
        return self._like(self.table, (), masks)

    def checked(self, *, threads: int = 2) -> ImageDataset:
        """Decode every file once; drop those that cannot be read, or stop at the first.

        What was dropped is told in the notes of the new dataset's table.

        Raises:
            InputError: Under ``on_error="stop"`` for the first unreadable file, or if none is left.
        """
        good: list[int] = []
        bad: list[UnreadableImageError] = []
        images = decode_images(self.table.files, self.decoding, threads=threads)
        for row, image in enumerate(images):
            try:
                if isinstance(image, UnreadableImageError):
                    raise image
                if self._mask_files:
                    self._mask(row, image)
            except UnreadableImageError as error:
                if self.on_error == "stop":
                    raise
                bad.append(error)
            else:
                good.append(row)
        if not good:
            raise self._nothing_readable(bad[0] if bad else None)
        return self._like(self.table.select(good).noting(_told(bad)), self.transforms)

    @property
    def unreadable(self) -> list[UnreadableImageError | InputError]:
        """What ``on_error="skip"`` has passed over so far, in every worker; reads those again."""
        errors: list[UnreadableImageError | InputError] = []
        for row in self._failed.nonzero().flatten().tolist():
            try:
                self._sample(row)
            except InputError as error:
                errors.append(error)
        return errors

    @property
    def channels(self) -> Channels:
        """As asked for."""
        return self.decoding.channels

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a table of {len(self)} images")
        index %= len(self)
        if self.on_error == "stop":
            return self._sample(index)
        first: InputError | None = None
        for step in range(len(self)):
            row = (index + step) % len(self)
            try:
                return self._sample(row)
            except ValueRangeError:
                raise
            except InputError as error:
                self._failed[row] = True
                first = first or error
        raise self._nothing_readable(first)

    def _sample(self, row: int) -> Sample:
        file = self.table.files[row]
        image = None if self.cache is None else self.cache.get(file)
        if image is None:
            image = decode_image(file, self.decoding)
        label = int(self.table.labels[row])
        steps: Sequence[Any] = self.transforms
        try:
            if self.masks is None:
                return Sample(tuple(step(image) for step in steps) or (image,), label, row)
            mask = self._mask(row, image)
            pairs = [step(image, mask) for step in steps] or [(image, mask)]
        except UnreadableImageError:
            raise
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        views, masks = zip(*pairs, strict=True)
        return Sample(views, label, row, masks)

    def _mask(self, row: int, image: Tensor) -> Tensor:
        if callable(self.masks):
            return fit_mask(self.masks(row, image), image, source=self.table.files[row])
        cell = self._mask_files[row]
        try:
            if not cell:
                raise InputError(f"no mask in column '{self.masks}'")
            path = os.path.join(self.table.root, cell)  # noqa: PTH118 - for each image
            mask = read_mask(path, max_pixels=self.decoding.max_pixels)
            return fit_mask(mask, image, source=path)
        except UnreadableImageError:
            raise
        except InputError as error:
            file = self.table.files[row]
            raise UnreadableImageError(
                f"{file}: {error}; mend it, or say on_error=skip", path=file, reason=str(error)
            ) from error

    def _like(
        self,
        table: ImageTable,
        transforms: Sequence[View],
        masks: str | MaskSource | None = None,
    ) -> ImageDataset:
        return ImageDataset(
            table,
            on_error=self.on_error,
            cache=self.cache,
            masks=self.masks if masks is None else masks,
            transforms=transforms,
            **vars(self.decoding),
        )

    def _nothing_readable(self, first: InputError | None) -> InputError:
        told = f"; the first says: {first}" if first else ""
        return InputError(f"{self.table.source}: none of its {len(self)} images can be used{told}")


def _told(bad: Sequence[UnreadableImageError]) -> tuple[str, ...]:
    if not bad:
        return ()
    names = ", ".join(f"{error.path} ({error.reason})" for error in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    return (f"{len(bad)} unreadable images left out: {names}{more}",)
