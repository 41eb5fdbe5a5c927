"""A batch of all devices together, shared out among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from cl_core.errors import InputError
from cl_core.loader import EpochBatches

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer

__all__ = ["ShareBatch"]


class ShareBatch(Callback):
    """Divides the batch among the devices, whose number is known only when they are there.

    Args:
        loader: Of :func:`cl_core.loader.make_loader`, made for the whole batch.
        batch_size: Images a step, of all devices together.
    """

    def __init__(self, loader: DataLoader[Any], batch_size: int) -> None:
        self.batches = loader.batch_sampler
        self.batch_size = batch_size

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        share, left = divmod(self.batch_size, trainer.world_size)
        if left or share < 2:
            raise InputError(
                f"--batch_size {self.batch_size} is of all devices together and must be a multiple "
                f"of their number, {trainer.world_size}, with at least 2 images on each"
            )
        assert isinstance(self.batches, EpochBatches)
        self.batches.batch_size = share
