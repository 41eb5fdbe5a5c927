"""HCSC's training: MoCo v2 whose negatives are selected by clusters estimated anew every epoch.

`hcsc` has the paper's equations, `estimate` and `prototypes` the clusters. An epoch from the
warm-up's end on begins with the features of all images, by the key encoder in eval mode, and their
clustering.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn

from cl_core.distributed import sum_over_ranks, world_size
from cl_core.errors import InputError
from cl_core.evaluation.features import frozen
from cl_core.images.batches import Batch, as_batch
from cl_vision.hcsc import equations as hcsc
from cl_vision.hcsc.estimate import Encoded, Estimate, encode_shard, estimate
from cl_vision.hcsc.prototypes import Prototypes, suggest_clusters
from cl_vision.hyper import HCSCHyper
from cl_vision.methods.moco import MoCo, fitting_queue, projector_card, unit_rows
from cl_vision.methods.optimisation import OptimizerHyper

if TYPE_CHECKING:
    from cl_vision.config import PretrainConfig

__all__ = ["HCSC", "prepare", "projector_card"]

_MEASURED = 10  # every how many steps the selection is compared with the labels


def prepare(config: PretrainConfig, images: int) -> tuple[PretrainConfig, list[str]]:
    """Choose what was left open, and fit what a recipe says to fewer images than its own.

    Clusters, queue and warm-up of a recipe are for the data it was made on; on fewer images or
    epochs they become what this package takes by default, told in the notes. What the user gave
    stays.
    """
    hyper, notes = config.hcsc, []
    suggested, why = suggest_clusters(images)
    if not hyper.clusters:
        hyper = replace(hyper, clusters=suggested)
    elif max(hyper.clusters) > suggested[0] and config.is_of_recipe("hcsc", "clusters"):
        notes.append(
            f"the recipe's clusters {list(hyper.clusters)} became {list(suggested)}: {why}"
        )
        hyper = replace(hyper, clusters=suggested)
    queue, note = fitting_queue(hyper.queue, config.batch_size, images)
    if note and config.is_of_recipe("hcsc", "queue"):
        hyper = replace(hyper, queue=queue)
        notes.append(note)
    warmup = hyper.warmup_epochs
    if (
        warmup is not None
        and warmup >= config.epochs
        and config.is_of_recipe("hcsc", "warmup_epochs")
    ):
        hyper = replace(hyper, warmup_epochs=None)
        notes.append(
            f"the recipe's {warmup} epochs before the first clusters became a tenth of the "
            f"{config.epochs}"
        )
    return replace(config, hcsc=hyper), notes


class HCSC(MoCo):
    """Train ``encoder`` by HCSC; without both selections it is PCL (Li et al. 2021).

    Random choices of a step come from torch's global generator, which `fit` seeds for each epoch
    and rank. Logged at each epoch, beside the terms of the loss: `Prototypes.figures`, the seconds
    of the estimate, and where images have labels ``selection/level_1/precision``, the share of
    dropped keys with the query's label, beside ``selection/base_rate``, that of all keys.

    Args:
        encoder: Maps images ``(n, c, h, w)`` of any size to ``(n, out_features)``.
        hyper: Hyper-parameters.
        optimizer: Optimiser and schedule.
        cluster_loader: All training images, in their order, under the evaluation's transform; its
            batches carry rows. Each rank gets a share (``make_loader(..., shard=True)``).
        seed: Of queue, shuffling and clustering.

    Raises:
        InputError: If the clusters do not fit the number of images.
    """

    hyper: HCSCHyper
    queue_sums: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        hyper: HCSCHyper,
        *,
        optimizer: OptimizerHyper,
        cluster_loader: Iterable[Any],
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, hyper, optimizer=optimizer, seed=seed)
        self.cluster_loader = cluster_loader
        images = len(cluster_loader.dataset)  # type: ignore[attr-defined]
        clusters = hyper.clusters or suggest_clusters(images)[0]
        self.prototypes = Prototypes(images, clusters, hyper.dim)
        self.clustered = False  # whether this epoch's prototypes have been estimated
        shape = (len(self.prototypes), hyper.queue)  # `hcsc.log_sums` of every key at every level
        self.register_buffer("queue_sums", torch.zeros(shape), persistent=False)
        self._tally: Tensor | None = None
        self._most_kept = 0.999 if hyper.compat == "official" else 1.0

    @property
    def warmup_epochs(self) -> int:
        """Epochs of plain MoCo before the first estimate."""
        if self.hyper.warmup_epochs is not None:
            return self.hyper.warmup_epochs
        return max(1, round(0.1 * (self.trainer.max_epochs or 1)))

    def on_fit_start(self) -> None:
        epochs = self.trainer.max_epochs or 1
        if self.warmup_epochs >= epochs:
            raise InputError(
                f"warmup_epochs {self.warmup_epochs} leaves none of the {epochs} epochs for "
                "clusters: lower it or train longer"
            )

    def on_train_epoch_start(self) -> None:
        self.clustered = self.current_epoch >= self.warmup_epochs
        if not self.clustered:
            return
        start = time.perf_counter()
        before = self.prototypes.assignment.clone()
        self.estimate()
        figures = self.prototypes.figures(before) | {"seconds": time.perf_counter() - start}
        self.log_dict({f"clusters/{name}": value for name, value in figures.items()})
        self._steps = 0
        self._tally = None
        if self.hyper.instance_selection and bool((self.prototypes.labels >= 0).any()):
            shape = len(self.prototypes) + 1, 2
            self._tally = self.queue_sums.new_zeros(shape, dtype=torch.float64)

    def estimate(self) -> tuple[Encoded, Estimate]:
        """Estimate the prototypes by the present key encoder; every rank has to call it.

        Returns:
            This rank's share of the images, and their clusters.
        """
        batches = getattr(self.cluster_loader, "batch_sampler", None)
        if callable(set_epoch := getattr(batches, "set_epoch", None)):
            set_epoch(0)  # or a resumed run would read under other seeds
        with frozen(self):
            encoded = encode_shard(self.cluster_loader, self._encode)
        found = estimate(
            encoded.features[encoded.mine],
            [len(level) for level in self.prototypes],
            temperature=self.hyper.temperature,
            iterations=self.hyper.kmeans_iterations,
            restarts=self.hyper.kmeans_restarts,
            seed=self.seed,
        )
        self.prototypes.adopt(encoded, found)
        self._refresh(torch.arange(len(self.queue), device=self.queue.ids.device))
        return encoded, found

    def objective(self, q: Tensor, k: Tensor, batch: Batch) -> dict[str, Tensor]:
        queries = [q]
        if self.hyper.multi_crop:
            queries += [self.query(view)[1] for view in batch.views[2:]]
        own = self.own_keys(batch)
        if not self.clustered:
            losses = [self.contrast(query, k, own) for query in queries]
            return {"loss": torch.stack(losses).sum()}
        with torch.autocast(q.device.type, enabled=False):
            clusters = self._clusters(batch)
            negatives = self.queue.features.to(q.dtype, copy=True)  # changes before backward
            drop = self._instance_drops(negatives, clusters, own)
            self._measure(drop, batch)
            instance, prototype = [], []
            for view, query in enumerate(queries):
                selected = view == 0 or self.hyper.selection_on_local
                instance.append(
                    self._instance(query, k, negatives, drop if selected else None, own)
                )
                prototype.append(self._prototype(query, clusters))
            loss = hcsc.total_loss(instance, prototype, self.hyper.switches.level_reduction)
        terms = {"loss": loss, "instance": instance[0].mean(), "prototype": prototype[0].mean()}
        if len(queries) > 1:
            terms["local_instance"] = torch.stack([x.mean() for x in instance[1:]]).mean()
            terms["local_prototype"] = torch.stack(prototype[1:]).mean()
        return terms

    def enqueue(self, k: Tensor, rows: Tensor) -> None:
        first = self.queue.pointer.clone()
        super().enqueue(k, rows)
        if self.clustered:
            new = torch.arange(len(k) * world_size(), device=first.device)
            self._refresh((first + new) % len(self.queue))

    def on_train_epoch_end(self) -> None:
        if self._tally is None:
            return
        same, all_ = sum_over_ranks(self._tally).unbind(1)
        shares = (same / all_.clamp(min=1)).tolist()
        for level, share in enumerate(shares[:-1], start=1):
            self.log(f"selection/level_{level}/precision", share)
        self.log("selection/base_rate", shares[-1])

    def _encode(self, batch: Any) -> Tensor:
        images = move_data_to_device(as_batch(batch).views[0], self.device)
        if self._trainer is None:
            return unit_rows(self.key(images))
        precision = self.trainer.precision_plugin
        with precision.forward_context():
            return unit_rows(self.key(precision.convert_input(images)))

    def _clusters(self, batch: Batch) -> list[Int[Tensor, " n"]]:
        clusters = self.prototypes.clusters_of(batch.row)
        # On a device a look at the values waits for it: there the first step of an epoch has to do.
        if (batch.row.device.type == "cpu" or self._steps == 0) and bool((clusters[0] < 0).any()):
            raise ValueError(
                "the batch holds images that have no cluster: the cluster loader must give every "
                "image of the training, with the same rows"
            )
        return clusters

    def _instance_drops(
        self, negatives: Tensor, clusters: list[Tensor], own: Tensor | None
    ) -> Bool[Tensor, "l n r"] | None:
        """Draw which keys are no negatives of each query, at each level."""
        if not self.hyper.instance_selection:
            return None
        places = list(zip(self.prototypes, clusters, strict=True))
        keep = hcsc.instance_keep(
            negatives,
            self.queue_sums,
            torch.stack([level.vectors[c] for level, c in places]),
            torch.stack([level.phi[c] for level, c in places]),
            most=self._most_kept,
        )
        drop = torch.rand_like(keep) >= keep
        return drop if own is None else drop & ~own

    def _instance(
        self,
        q: Tensor,
        k: Tensor,
        negatives: Tensor,
        drop: Tensor | None,
        own: Tensor | None,
    ) -> Float[Tensor, " l"]:
        logits = hcsc.instance_logits(q, k, negatives, self.hyper.temperature)
        if own is not None:
            logits = logits.masked_fill(nn.functional.pad(own, (1, 0)), -torch.inf)
        return hcsc.instance_loss(logits, drop, self.hyper.switches.masking)

    def _prototype(self, q: Tensor, clusters: list[Tensor]) -> Float[Tensor, " l"]:
        switches = self.hyper.switches
        levels = list(self.prototypes)
        losses = []
        for depth, level in enumerate(levels):
            drop = None
            if self.hyper.prototype_selection and depth + 1 < len(levels):
                above, parent = levels[depth + 1], clusters[depth + 1]
                keep = hcsc.prototype_keep(
                    level.vectors, level.sums, above.vectors[parent], above.phi[parent]
                )
                drop = torch.rand_like(keep) >= keep
            logits = hcsc.prototype_logits(q, level.vectors, level.phi)
            only = None
            if switches.proto_negatives == "official":
                only = hcsc.batch_negatives(clusters[depth], level.largest)
            losses.append(
                hcsc.prototype_loss(logits, clusters[depth], drop, switches.masking, negatives=only)
            )
        return torch.stack(losses)

    def _refresh(self, slots: Int[Tensor, " m"]) -> None:
        """Compute anew what instance selection has to know of these slots of the queue.

        Prototypes stay through an epoch and a step changes few slots: so a step compares its own
        keys with the prototypes, not the whole queue.
        """
        if not self.hyper.instance_selection:
            return
        keys = self.queue.features[slots]
        for level, sums in zip(self.prototypes, self.queue_sums, strict=True):
            sums[slots] = hcsc.log_sums(keys, level.vectors, level.phi).to(sums)

    @torch.no_grad()
    def _measure(self, drop: Tensor | None, batch: Batch) -> None:
        """Count how often a dropped key, and any key, has the query's label."""
        self._steps += 1
        if self._tally is None or drop is None or self._steps % _MEASURED != 1:
            return
        ids = self.queue.ids
        labels = self.prototypes.labels[ids.clamp(min=0)]
        known = (ids >= 0) & (labels >= 0) & (batch.label[:, None] >= 0)
        same = known & (batch.label[:, None] == labels)
        for tally, mask in zip(self._tally, (*drop, known), strict=True):
            tally += torch.stack([(same & mask).sum(), (known & mask).sum()])

    def _same_on_every_rank(self) -> tuple[str, ...]:
        return "queue.", "queue_sums", "prototypes."
