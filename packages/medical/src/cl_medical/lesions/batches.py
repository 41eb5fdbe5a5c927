"""The batches of each stage: which views of an image, in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from cl_core.transforms import Statistics
from cl_medical.lesions.augment import View, augmented_view, plain_view
from cl_medical.lesions.config import TrainConfig
from cl_medical.lesions.data import Lesions, plain_loader, training_loader

__all__ = ["Batches"]


@dataclass(frozen=True)
class Batches:
    """Makes the loaders of a training.

    Attributes:
        config: Of the command.
        statistics: Normalise the images.
    """

    config: TrainConfig
    statistics: Statistics

    def of_two_views(self, lesions: Lesions) -> DataLoader[Any]:
        """Those of stage 1 and of the one-stage methods: plain and augmented, or augmented twice.

        A last batch that is not full is left out: it would mix classes otherwise.
        """
        if self.config.stage1.views == "aug+aug":
            return self._random(lesions, [self._augmented()] * 2)
        plain = plain_view(self.config.image_size, self.statistics)
        return self._random(lesions, [plain, self._augmented()])

    def of_one_view(self, lesions: Lesions) -> DataLoader[Any]:
        """Those of stage 2: augmented, every image."""
        return self._random(lesions, [self._augmented()], drop_last=False)

    def plain(self, lesions: Lesions) -> DataLoader[Any]:
        """Each image once, in order, as it is."""
        return plain_loader(
            lesions,
            self.config.image_size,
            self.statistics,
            batch_size=2 * self.config.batch_size,
            workers=self.config.workers,
        )

    def _random(
        self, lesions: Lesions, views: list[View], *, drop_last: bool = True
    ) -> DataLoader[Any]:
        config = self.config
        return training_loader(
            lesions,
            views,
            sampling=config.sampling,
            batch_size=config.batch_size,
            workers=config.workers,
            seed=config.seed,
            drop_last=drop_last,
        )

    def _augmented(self) -> View:
        config = self.config
        return augmented_view(
            config.image_size,
            self.statistics,
            augmentation=config.augmentation,
            library=config.library,
        )
