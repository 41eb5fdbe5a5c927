"""Fine-tuning with few labels: the module that trains, and what makes its scores stable.

Lists of a dozen labelled windows leave no room for the usual slips, hence: a batch never larger
than the list, learning rates apart for what is loaded and what is fresh, a rate that ends at zero,
batch statistics measured again with the final weights, the best epoch chosen by validation kappa.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.distributed import sum_over_ranks
from cl_core.errors import InputError
from cl_core.evaluation.features import device_of, frozen
from cl_core.optim import cosine_with_warmup
from cl_remote_sensing.evaluation.metrics import Confusion, scores
from cl_remote_sensing.hyper import SegmentationHyper
from cl_remote_sensing.methods.pixel_losses import dice_loss, focal_loss

__all__ = ["Segmenter", "evaluate_network", "fitting_batch_size", "reestimate_batch_norm"]

IGNORE = 255
DECAY = 0.98
"""Factor of the learning rate an epoch under the published schedule."""

_FROZEN = {"none": (), "backbone": ("backbone",), "encoder": ("backbone", "aspp")}
_LOGGED = ("kappa", "oa", "miou", "macro_f1")


class Segmenter(L.LightningModule):
    """Train ``network`` to give each labelled pixel its class.

    A batch is ``(images, labels)``: float32 ``(b, c, h, w)`` and int64 ``(b, h, w)`` train ids
    with 255 where nothing is known. With a validation loader each epoch logs ``val/kappa``,
    ``val/oa``, ``val/miou``, ``val/macro_f1`` and ``val/loss``; ``val/kappa`` is the figure to
    choose an epoch by.

    Args:
        network: Gives logits ``(b, classes, h, w)`` of the images' size. To be frozen in part it
            has the modules ``backbone`` and ``aspp``.
        classes: Names in the order of the train ids.
        hyper: Loss, learning rates, what stays frozen.
        loaded: Names of the weights that were loaded (``LoadedParts.loaded``); their parameters
            take the loaded learning rate, all others the fresh one.
        class_weights: Of :func:`~cl_remote_sensing.methods.pixel_losses.class_weights`.

    Raises:
        ValueError: If a name in ``loaded`` is not the network's, the weights are not one a class,
            or everything is frozen.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        hyper: SegmentationHyper,
        *,
        loaded: Collection[str] = (),
        class_weights: Float[Tensor, " k"] | None = None,
    ) -> None:
        super().__init__()
        unknown = set(loaded) - set(network.state_dict())
        if unknown:
            raise ValueError(f"the network has no weights {', '.join(sorted(unknown)[:3])}")
        if class_weights is not None and len(class_weights) != len(classes):
            raise ValueError(f"{len(classes)} classes need as many weights: {class_weights}")
        self.network = network
        self.classes = tuple(classes)
        self.hyper = hyper
        self.loaded = frozenset(loaded)
        self.register_buffer("class_weights", class_weights, persistent=False)
        for part in self.frozen_parts:
            part.requires_grad_(False)
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError("nothing is left to train: freeze less")
        self._confusion = Confusion.empty(len(self.classes))

    @property
    def frozen_parts(self) -> list[nn.Module]:
        """The modules that stay as loaded, their batch statistics included."""
        return [self.network.get_submodule(name) for name in _FROZEN[self.hyper.freeze]]

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        for part in self.frozen_parts:
            part.eval()
        return self

    def on_train_epoch_start(self) -> None:
        self.train()  # whatever mode the network came in

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        return {"loss": self.loss(self.network(images), labels)}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``hyper``, in float32 whatever the precision of the network."""
        weights: Any = self.class_weights
        logits = logits.float()
        if self.hyper.loss == "focal":
            return focal_loss(logits, labels, weights=weights)
        loss = focal_loss(logits, labels, gamma=0.0, weights=weights)  # cross-entropy
        if self.hyper.loss == "dice":
            loss = loss + dice_loss(logits, labels)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._confusion = Confusion.empty(len(self.classes))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        logits = self.network(images)
        self.log("val/loss", self.loss(logits, labels), batch_size=len(images), sync_dist=True)
        self._confusion.add(labels, logits.argmax(1))

    def on_validation_epoch_end(self) -> None:
        matrix = torch.from_numpy(self._confusion.matrix).to(self.device)
        figures = scores(sum_over_ranks(matrix).cpu().numpy(), self.classes)
        # torch's metrics on MPS are float32 at most; these are shares anyway.
        self.log_dict({f"val/{name}": float(figures[name]) for name in _LOGGED})

    def configure_optimizers(self) -> Any:
        groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups[name in self.loaded].append(parameter)
        rates = {False: self.hyper.learning_rate, True: self.hyper.loaded_learning_rate}
        optimizer = torch.optim.Adam(
            [{"params": groups[key], "lr": rates[key]} for key in groups if groups[key]],
            betas=(0.9, 0.99),
            weight_decay=self.hyper.weight_decay,
        )
        if self.hyper.schedule == "exponential":
            decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, DECAY)
            return {"optimizer": optimizer, "lr_scheduler": decay}  # steps by the epoch
        steps = int(self.trainer.estimated_stepping_batches)
        cosine = cosine_with_warmup(optimizer, warmup_steps=0, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": cosine, "interval": "step"},
        }


def fitting_batch_size(samples: int, batch_size: int) -> int:
    """The batch size for so few samples: at most all of them, at least two.

    A larger batch with ``drop_last`` would mean no step at all, and a batch of one has no batch
    statistics.

    Raises:
        InputError: If there are fewer than two samples.
    """
    if samples < 2:
        raise InputError(
            f"fine-tuning needs at least 2 labelled windows, got {samples}: label more, or take "
            "smaller windows"
        )
    return max(2, min(batch_size, samples))


def reestimate_batch_norm(
    network: nn.Module, loader: Iterable[Any], *, keep: Sequence[nn.Module] = ()
) -> int:
    """Measure the running statistics of batch norm again, with the weights as they are now.

    Running averages lag behind the weights and hang on the last batches; after a short training
    that costs accuracy. Every statistic becomes the plain mean over the loader's batches. Dropout
    is off, and every part keeps its mode.

    Args:
        network: Changed in place, where it is.
        loader: Batches of images, or tuples that begin with them. Batches of one image are passed
            over.
        keep: Parts whose statistics stay, being frozen.

    Returns:
        How many batches were used.

    Raises:
        ValueError: If no batch has two images; the statistics stay as they were.
    """
    kept = {id(layer) for part in keep for layer in part.modules()}
    layers = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and layer.track_running_stats
        and id(layer) not in kept
    ]
    momenta = [layer.momentum for layer in layers]
    device = device_of(network)
    used = 0
    with frozen(network):
        try:
            for batch in loader:
                images = batch if isinstance(batch, Tensor) else batch[0]
                if len(images) < 2:
                    continue
                if used == 0:
                    for layer in layers:
                        layer.reset_running_stats()
                        layer.momentum = None  # torch's sign for a plain mean
                        layer.train()
                network(images.to(device))
                used += 1
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
    if layers and used == 0:
        raise ValueError("batch statistics need a batch of at least 2 images, got none")
    return used


def evaluate_network(
    network: nn.Module, loader: Iterable[Any], num_classes: int, *, ignore: int = IGNORE
) -> Confusion:
    """Count what ``network`` makes of labelled windows, a batch in memory at a time.

    Args:
        network: Gives logits ``(b, num_classes, h, w)``; every part keeps its mode.
        loader: Batches ``(images, labels)``.
        num_classes: Of the labels.
        ignore: Label of pixels left out.

    Returns:
        The confusion matrix over all pixels, for
        :func:`~cl_remote_sensing.evaluation.metrics.scores`. Where logits tie, the lowest class
        counts.
    """
    confusion = Confusion.empty(num_classes)
    device = device_of(network)
    with frozen(network):
        for images, labels in loader:
            confusion.add(labels.to(device), network(images.to(device)).argmax(1), ignore=ignore)
    return confusion
