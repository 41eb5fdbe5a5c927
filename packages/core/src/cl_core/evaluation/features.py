"""Features of a frozen encoder, to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Pooled",
    "collect",
    "device_of",
    "eval_mode",
    "extract_features",
    "first_view",
    "frozen",
]


class Pooled(nn.Module):
    """Features ``(n, d)`` of maps ``(n, d, ...)``, by their mean; features stay as they are."""

    def forward(self, h: Tensor) -> Tensor:
        return h.flatten(2).mean(dim=2) if h.ndim > 2 else h


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter is; the CPU if it has none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Eval mode for a while, with gradients; every submodule's own mode comes back."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Eval mode without gradients for a while; every submodule's own mode comes back."""
    with eval_mode(*modules), torch.no_grad():
        yield


def first_view(batch: Any) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch ``(inputs, labels, ...)``; of several views the first."""
    inputs, labels = batch[0], batch[1]
    return (inputs[0] if isinstance(inputs, (list, tuple)) else inputs), labels


def extract_features(
    encoder: nn.Module,
    loader: Iterable[Any],
    *,
    read: Callable[[Any], tuple[Tensor, Tensor]] = first_view,
) -> tuple[Tensor, Tensor]:
    """Encode every row of a loader, in eval mode and without gradient.

    The encoder stays where it is and keeps the mode of each of its parts, batch statistics
    included.

    Args:
        encoder: Maps inputs to ``(n, d)``; maps of more dimensions, ``(n, d, h, w)``, are
            averaged over what follows the second.
        loader: Gives batches of inputs and labels, as those of
            :class:`~cl_core.images.ImageDataset`.
        read: Takes inputs and labels ``(n,)`` out of a batch.

    Returns:
        Features ``(n, d)``, in float32 or wider, and int64 labels ``(n,)``, both on the CPU.

    Raises:
        ValueError: If the loader is empty or gives a different number of labels than rows.
    """
    device = device_of(encoder)

    def encode(batch: Any) -> tuple[Tensor, Tensor]:
        inputs, labels = read(batch)
        return encoder(inputs.to(device)), labels

    with frozen(encoder):
        return collect(loader, encode, torch.device("cpu"))


def collect(
    loader: Iterable[Any],
    encode: Callable[[Any], tuple[Tensor, Tensor]],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The rows and labels that ``encode`` gives of every batch, brought to ``device``."""
    pooled, rows, labels = Pooled(), [], []
    for batch in loader:
        h, y = encode(batch)
        h = pooled(h)
        if h.ndim != 2 or y.shape != h.shape[:1]:
            raise ValueError(
                f"need features (n, d) and a label a row, got {tuple(h.shape)} and labels "
                f"{tuple(y.shape)}"
            )
        rows.append(h.to(device, torch.promote_types(h.dtype, torch.float32)))
        labels.append(y.to(device, torch.int64))
    if not rows:
        raise ValueError("the loader gives no batch: nothing to encode")
    return torch.cat(rows), torch.cat(labels)
