"""How well the representation serves a classifier, watched while it trains.

Every ``every`` epochs labelled rows are encoded and measured, with no effect on the training: no
gradient, eval mode with every part's own mode restored, random numbers from a stream of their own.
A run with these callbacks ends with the same weights, bit for bit on a CPU, as one without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from cl_core.evaluation.features import collect, first_view, frozen
from cl_core.evaluation.knn import knn_accuracy
from cl_core.evaluation.linear import linear_probe
from cl_core.evaluation.probe import random_splits
from cl_core.evaluation.sgd import SGDSettings
from cl_core.seeding import RandomStream

__all__ = ["ONLINE_RECIPE", "Measure", "OnlineEvaluation", "OnlineKNN", "OnlineProbe"]

#: A short linear probe for features of unit length.
ONLINE_RECIPE = SGDSettings(epochs=20, learning_rate=10.0, schedule="cosine")

#: Features and labels to learn from, then to test on if there are some: a figure.
Measure = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], float]

_STREAM = 2  # sets the stream apart from the loader's and the model's


def encode_first_view(module: LightningModule, batch: Any) -> tuple[Tensor, Tensor]:
    """Output of ``module.encoder``, or of the module if it has none, and the labels."""
    inputs, labels = first_view(batch)
    encoder = getattr(module, "encoder", module)
    return encoder(inputs), labels


class OnlineEvaluation(Callback):
    """Logs figures of labelled features at the end of epochs; they become history columns.

    Every rank encodes the whole loader, so that modules whose forward pass is a joint act work
    too, and the mean of the ranks' figures is logged: they agree, but for batch statistics that
    are not synchronised. On features that are not finite nothing is logged; the training's own
    check tells.

    Args:
        loader: Labelled rows to learn from; a loader of its own with plain, not augmented views.
        test_loader: Rows to test on. Each measure says what it does without.
        measures: Figure by name.
        every: Epochs between two evaluations; the last epoch is always evaluated.
        encode: Gives features ``(n, d)`` and labels ``(n,)``, -1 for none, of a batch that is
            already where the module is.

    Raises:
        ValueError: If ``every`` is not positive.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        test_loader: Iterable[Any] | None = None,
        *,
        measures: Mapping[str, Measure],
        every: int = 1,
        encode: Callable[[LightningModule, Any], tuple[Tensor, Tensor]] = encode_first_view,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 epoch, got {every}")
        self.loader = loader
        self.test_loader = test_loader
        self.measures = dict(measures)
        self.every = every
        self.encode = encode

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = epoch % self.every == 0 or epoch == trainer.max_epochs
        figures = self._figures(trainer, pl_module, epoch) if due else {}
        for name in self.measures:
            if name in figures:
                pl_module.log(name, figures[name], sync_dist=True)
            else:  # Lightning would repeat the last one
                trainer.callback_metrics.pop(name, None)

    def _figures(self, trainer: Trainer, module: LightningModule, epoch: int) -> dict[str, float]:
        precision = trainer.precision_plugin

        def encode(batch: Any) -> tuple[Tensor, Tensor]:
            batch = move_data_to_device(batch, module.device)
            with precision.forward_context():
                return self.encode(module, precision.convert_input(batch))

        with (
            RandomStream(epoch, _STREAM).running(),
            torch.random.fork_rng([module.device] if module.device.type == "cuda" else []),
            frozen(module),
        ):
            parts = [
                collect(loader, encode, module.device)
                for loader in (self.loader, self.test_loader)
                if loader is not None
            ]
            if not all(bool(x.isfinite().all()) for x, _ in parts):
                return {}
            x_test, y_test = parts[1] if len(parts) > 1 else (None, None)
            return {
                name: measure(*parts[0], x_test, y_test) for name, measure in self.measures.items()
            }


class OnlineKNN(OnlineEvaluation):
    """Logs ``online/knn_accuracy``, by :func:`~cl_core.evaluation.knn_accuracy`.

    Args:
        loader: The bank. Without ``test_loader`` each row is labelled by the others.
        test_loader: Rows to classify.
        every: As in :class:`OnlineEvaluation`.
        k: Neighbours.
        temperature: Of their weights.
        encode: As in :class:`OnlineEvaluation`.
        name: Of the figure.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        test_loader: Iterable[Any] | None = None,
        *,
        every: int = 1,
        k: int = 200,
        temperature: float = 0.07,
        encode: Callable[[LightningModule, Any], tuple[Tensor, Tensor]] = encode_first_view,
        name: str = "online/knn_accuracy",
    ) -> None:
        def measure(x: Tensor, y: Tensor, x_test: Tensor | None, y_test: Tensor | None) -> float:
            if x_test is None or y_test is None:
                return knn_accuracy(x, y, k=k, temperature=temperature)
            return knn_accuracy(x_test, y_test, x, y, k=k, temperature=temperature)

        super().__init__(loader, test_loader, measures={name: measure}, every=every, encode=encode)


class OnlineProbe(OnlineEvaluation):
    """Logs ``online/linear_accuracy``, by :func:`~cl_core.evaluation.linear_probe`.

    A new layer is trained each time, on features scaled to unit length.

    Args:
        loader: Rows to train on. Without ``test_loader`` a random half of each class is tested on.
        test_loader: Rows to test on.
        every: As in :class:`OnlineEvaluation`.
        recipe: Of the layer's training.
        encode: As in :class:`OnlineEvaluation`.
        name: Of the figure.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        test_loader: Iterable[Any] | None = None,
        *,
        every: int = 1,
        recipe: SGDSettings = ONLINE_RECIPE,
        encode: Callable[[LightningModule, Any], tuple[Tensor, Tensor]] = encode_first_view,
        name: str = "online/linear_accuracy",
    ) -> None:
        def measure(x: Tensor, y: Tensor, x_test: Tensor | None, y_test: Tensor | None) -> float:
            if x_test is None or y_test is None:
                halves = random_splits(y, splits=1, train_fraction=0.5, seed=0, stratified=True)
                train, test = (torch.from_numpy(half).to(x.device) for half in next(halves))
                x, y, x_test, y_test = x[train], y[train], x[test], y[test]
            return linear_probe(x, y, x_test, y_test, recipe=recipe, normalize=True).accuracy

        super().__init__(loader, test_loader, measures={name: measure}, every=every, encode=encode)
