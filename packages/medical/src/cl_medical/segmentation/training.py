"""What a training is made of: its samples, its weights of classes, and the fit itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cl_core.config import TrainerConfig
from cl_core.errors import InputError
from cl_core.loader import make_loader
from cl_core.runs import Run
from cl_core.runs.launch import launched_shard
from cl_medical.segmentation.augment import Augmentation
from cl_medical.segmentation.data import PatchSet, Source, collate
from cl_medical.segmentation.hyper import (
    AugmentHyper,
    ContrastHyper,
    LossHyper,
    PriorHyper,
)
from cl_medical.segmentation.inference import Inference
from cl_medical.segmentation.network import MultiDomainNetwork
from cl_medical.segmentation.options import SampleOptions
from cl_medical.segmentation.planning import sources_of
from cl_medical.segmentation.preparation import Examined
from cl_medical.segmentation.sampling import rows_of_cases, sampling_order

if TYPE_CHECKING:
    from cl_core.training import FitResult
    from cl_medical.segmentation.priors import MaskPrior

__all__ = [
    "augmentation_of",
    "batch_size_of",
    "class_weights",
    "fit_network",
    "sample_loader",
    "young_statistics",
]

_RAREST = 20.0
_SETTLED = 50  # batches until what running statistics began with weighs 0.9^50, half a per cent


def augmentation_of(hyper: AugmentHyper) -> Augmentation:
    """The random changes that options name."""
    return Augmentation(
        rotation=hyper.rotation,
        scale=hyper.scale,
        shift=hyper.shift,
        geometry=hyper.geometry,
        noise=hyper.noise,
        gamma=hyper.gamma,
        gain=hyper.gain,
        offset=hyper.offset,
        flip=hyper.flip,
    )


def batch_size_of(options: SampleOptions, domains: int) -> int:
    """Samples of a step.

    Raises:
        InputError: If there are fewer than the sampling needs.
    """
    default = 24 if options.volumes.dims == 2 else 2 * domains
    size = options.batch_size or default
    if options.sampling == "balanced" and size < domains:
        raise InputError(
            f"--batch_size {size}: every step draws from each of the {domains} domains; raise it, "
            "or take --sampling alternate"
        )
    return size


def sample_loader(
    sources: Sequence[Source], options: SampleOptions, *, channels: int, domains: int
) -> DataLoader[Any]:
    """Draw training batches.

    Raises:
        InputError: If the options do not go together.
    """
    patch = options.volumes.size
    size = batch_size_of(options, domains)
    if options.sampling == "alternate" and launched_shard()[1] > 1:
        strategy = options.trainer.strategy
        if "find_unused" not in strategy:
            raise InputError(
                "--sampling alternate leaves the other domains' parameters unused in a step: with "
                "several devices say --trainer.strategy ddp_find_unused_parameters_true"
            )
    samples = PatchSet(
        sources,
        patch,
        augmentation_of(options.augment),
        rows=rows_of_cases(sources, patch, options.sampling),
        forced=options.foreground,
        channels=channels,
    )
    return make_loader(
        samples,
        batch_size=size,
        shuffle=True,
        workers=options.workers,
        seed=options.seed,
        collate=collate,
        order=sampling_order(sources, patch, options.sampling, steps=options.steps),
    )


def class_weights(examined: Examined, domains: Sequence[str]) -> list[Tensor]:
    """Of each domain: inverse frequencies, at most 20 times the least, 1 on average over voxels."""
    weights = []
    for name in domains:
        counts = np.sum(
            [f.prepared.voxels for f in examined.cases[name] if f.case.split == "train"],
            axis=0,
            dtype=np.float64,
        )
        share = np.maximum(counts / max(counts.sum(), 1), 1e-12)
        inverse = 1 / share
        inverse = np.minimum(inverse, _RAREST * inverse.min())
        weights.append(torch.tensor(inverse / (share * inverse).sum(), dtype=torch.float32))
    return weights


def fit_network(
    run: Run,
    network: MultiDomainNetwork,
    examined: Examined,
    options: SampleOptions,
    *,
    loss: LossHyper,
    contrast: ContrastHyper | None,
    prior: PriorHyper | None = None,
    trained: Sequence[nn.Parameter] | None = None,
) -> FitResult:
    """Train a network on the domains of its own that the data have, and leave it at its best.

    Args:
        run: Where to.
        network: Changed in place.
        examined: The data.
        options: Samples, epochs, devices.
        loss: Loss and optimisation.
        contrast: The regularisation, if there is one.
        prior: Anatomical priors, if there are some.
        trained: The parameters that are trained; by default all.

    Returns:
        What the fit did. The network has the weights of the epoch with the best mean Dice on the
        validation cases, or the last ones if there are no such cases.
    """
    from cl_core.training import fit, restore_weights
    from cl_medical.segmentation.method import MultiDomainSegmenter

    names = network.domains
    sources = sources_of(examined, "train", domains=names)
    cases = sources_of(examined, "val", domains=names)
    present = {source.domain for source in sources}
    loader = sample_loader(
        sources, options, channels=network.backbone.in_channels, domains=len(present)
    )
    classes = {name: _class_names(examined, network, name) for name in names}
    own_prior = None
    if prior is not None and prior.weight > 0:
        own_prior = (_fit_prior(run, classes, loader, options, loss, prior), prior.weight)
    weights = None
    if loss.class_weights == "inverse":
        weights = class_weights(examined, names)
    method = MultiDomainSegmenter(
        network,
        classes,
        loss,
        contrast,
        inference=Inference(patch=options.volumes.size),
        cases=cases,
        class_weights=weights,
        prior=own_prior,
        trained=trained,
    )
    numbers = (
        make_loader(
            [torch.tensor(k) for k in range(len(cases))],
            batch_size=1,
            shuffle=False,
            workers=0,
            seed=options.seed,
        )
        if cases
        else None
    )
    result = fit(
        method,
        loader,
        run=run,
        epochs=options.epochs,
        seed=options.seed,
        trainer=clipped(options.trainer, loss),
        monitor="val/dice" if cases else "train/loss",
        mode="max" if cases else "min",
        val_loader=numbers,
    )
    if cases and result.best is not None:
        restore_weights(method, result.best)
    network.to("cpu").requires_grad_(True).eval()
    return result


def young_statistics(options: SampleOptions) -> list[str]:
    """A note where fresh batch norms see too few batches for their running statistics."""
    if options.steps is None or options.steps * options.epochs >= _SETTLED:
        return []
    return [
        f"{options.steps * options.epochs} steps are too few for the running statistics of batch "
        f"norms, which begin at 0 and 1: masks are poor before some {_SETTLED}"
    ]


def clipped(trainer: TrainerConfig, loss: LossHyper) -> TrainerConfig:
    """The trainer's options with the loss's clipping, where the former leave it open."""
    if trainer.gradient_clip is not None:
        return trainer
    return replace(trainer, gradient_clip=loss.gradient_clip)


def _class_names(examined: Examined, network: MultiDomainNetwork, name: str) -> Sequence[str]:
    """A domain's own; of one without data here, numbers."""
    if name in examined.manifest.names:
        return examined.manifest.domain(name).classes
    return [str(k) for k in range(network.heads.classes(network.domains.index(name)))]


def _fit_prior(
    run: Run,
    classes: Mapping[str, Sequence[str]],
    loader: DataLoader[Any],
    options: SampleOptions,
    loss: LossHyper,
    hyper: PriorHyper,
) -> MaskPrior:
    """Train the auto-encoder of masks, in a run of its own inside the run."""
    from cl_core.training import fit
    from cl_medical.segmentation.priors import MaskPrior, PriorTraining

    prior = MaskPrior(
        {name: len(names) for name, names in classes.items()}, hyper.filters, options.volumes.dims
    )
    place = run.output("prior")
    resume = run.resumed and (place / "config.yaml").is_file()
    with Run.create(place, hyper, resume=resume) as own:
        fit(
            PriorTraining(prior, loss.learning_rate),
            loader,
            run=own,
            epochs=hyper.epochs,
            seed=options.seed,
            trainer=clipped(options.trainer, loss),
        )
        own.save_metrics({"epochs": hyper.epochs})
    return prior.freeze()
