"""Random numbers that depend on the epoch, not on what came before it.

A resumed run equals the uninterrupted one only if every epoch begins with the same generators in
both. Two things stand in the way. What the model drew in earlier epochs moves the generators: they
are set to ``(seed, epoch, rank)`` when an epoch starts. And Lightning makes the iterator of the
first epoch of a process before the epoch starts and before samplers are told its number, of the
other epochs after: making it draws seeds for the workers and an order, so that happens on a
:class:`~cl_core.seeding.RandomStream` of its own, and the samplers are told first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from cl_core.seeding import RandomStream, seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lightning import LightningModule, Trainer

__all__ = ["EpochLoader", "SeedEpochs"]

_LOADING = 1  # sets the loader's stream apart from the model's


class SeedEpochs(Callback):
    """Seeds the global generators when an epoch starts, before every other hook."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed_everything(self.seed, trainer.current_epoch, trainer.global_rank)


class EpochLoader(CombinedLoader):
    """The training loader, whose epochs are functions of their number.

    Args:
        loader: Any loader, or a list of batches.
        seed: The run's seed.
        finished: Tells how many epochs a resumed run has behind it.
    """

    def __init__(self, loader: Iterable[Any], seed: int, finished: Callable[[], int]) -> None:
        if isinstance(loader, (list, tuple)):  # as such it would be taken for several loaders
            loader = DataLoader(cast(Any, loader), batch_size=None, collate_fn=_as_is)
        super().__init__(loader, "max_size_cycle")
        self.seed = seed
        self.finished = finished
        self._samplers = [getattr(part, "sampler", None) for part in self.flattened]
        self.trainer: Trainer | None = None
        self._stream: RandomStream | None = None

    def __iter__(self) -> EpochLoader:
        assert self.trainer is not None
        # Counts the finished epochs. When a run is resumed it is still behind at the first call,
        # and workers take their first batches at once.
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        epoch: int = max(progress.processed, self.finished())
        for loader, sampler in zip(self.flattened, self._samplers, strict=True):
            if (now := getattr(loader, "sampler", None)) is not sampler:
                _correct(now, sampler, self.seed)
            _set_epoch(loader, epoch)
        stream = RandomStream(self.seed, epoch, self.trainer.global_rank, _LOADING)
        with stream.running():
            super().__iter__()
        # Of a loader without a length Lightning fetches one batch ahead, at either time.
        self._stream = None if all(map(_has_length, self.flattened)) else stream
        return self

    def __next__(self) -> Any:
        if self._stream is None:
            return super().__next__()
        with self._stream.running():
            return super().__next__()


def _correct(sampler: Any, replaced: Any, seed: int) -> None:
    """Lightning's sampler for several processes shuffles always, and by seed 0: neither is ours."""
    if isinstance(sampler, DistributedSampler):
        sampler.shuffle = not isinstance(replaced, SequentialSampler)
        sampler.seed = seed


def _set_epoch(loader: Any, epoch: int) -> None:
    batches = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), getattr(batches, "sampler", None)):
        if callable(set_epoch := getattr(sampler, "set_epoch", None)):
            set_epoch(epoch)


def _has_length(loader: Any) -> bool:
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return False
    return True


def _as_is(batch: Any) -> Any:
    return batch
