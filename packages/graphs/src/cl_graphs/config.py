"""The options of every command: one frozen dataclass each (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cl_core.checks import OptionError, require_at_least
from cl_core.commands.options import Options, Source
from cl_core.config import DemoOptions, TrainerConfig
from cl_graphs.hyper import ArielHyper, GraphArielHyper

__all__ = [
    "DemoConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "PretrainConfig",
    "RobustnessConfig",
    "SavedRunOptions",
    "TrainingOptions",
]


Perturbed = Literal[
    "random_edges", "dice", "feature_noise", "pgd_structure", "pgd_features", "pgd_both"
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """Where the data comes from, where the run goes and how long it takes.

    Args:
        data: A built-in name (`digits`, Cora, CiteSeer, PubMed, Computers, Photo, CS, Physics,
            MUTAG, ...), an edge list (.csv, .tsv, .txt, also .gz, .parquet), a .graphml, .gexf,
            .gml or .npz file, or a folder in TU layout. From Python also a graph in memory.
        out: Run directory to write.
        recipe: Published settings by name: cora, citeseer, computers, photo, cs, physics, ...
        method: `ariel`, or `grace`: the same without adversary and information term (GraphCL for a
            collection).
        encoder: An encoder of your own as `module:maker`, a function that makes it of the number of
            features; by default the paper's. From Python also the module.
        root: Folder that holds the built-in data sets; read offline if they are there.
        features: Node features for an edge list: .npy, .npz, .csv or .parquet, or `degree`.
        labels: Node labels: .csv, .npy or .txt, or the name of an attribute of a .graphml, .gexf or
            .gml. Training never reads them.
        normalize_features: Divide each feature row by its sum; the published results use raw rows.
        download: Let PyG download a built-in data set that is not under `root`.
        epochs: Optimiser steps on one random subgraph each, or passes over a collection or, with
            another sampler, over the nodes; by default 1,000 steps, or 20 passes over a collection.
        seed: Seed of initialisation, subgraphs, augmentation and attack.
        resume: Continue a run that was stopped; it ends as if it never had been.
        overwrite: Replace the run in `out`.
        subgraph_size: Nodes of the random subgraph of a step; mean nodes of a cluster; nodes whose
            neighbours are sampled.
        sampler: `random` node subsets as published; `cluster`: parts of the graph with few edges
            between them; `neighbor`: nodes with up to 10 neighbours each, and 10 of each of those.
        batch_size: Graphs of a step, for a collection.
        workers: Processes that prepare batches.
    """

    data: Source
    out: Path
    recipe: str | None = None
    method: Literal["ariel", "grace"] = "ariel"
    encoder: Source | None = None
    root: Path | None = None
    features: str | None = None
    labels: str | None = None
    normalize_features: bool = False
    download: bool = False
    epochs: int | None = None
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    subgraph_size: int = 500
    sampler: Literal["random", "cluster", "neighbor"] = "random"
    batch_size: int = 128
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ArielHyper, TrainingOptions):
    """Train a graph encoder without labels, by ARIEL or by its baseline.

    The options of the method speak of one graph with many nodes; for a collection of small graphs
    (MUTAG, PROTEINS, any folder in TU layout) those of `collection` take their place.

    Args:
        collection: The method's options for a collection of small graphs.
        trainer: Devices, precision, checkpoints.
    """

    collection: GraphArielHyper = field(default_factory=GraphArielHyper)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, epochs=self.epochs)
        require_at_least(2, subgraph_size=self.subgraph_size, batch_size=self.batch_size)
        require_at_least(0, workers=self.workers)
        require_at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class SavedRunOptions(Options):
    """A finished run, and the data to use it on.

    Args:
        run: Run directory that `pretrain` wrote.
        data: Another graph or collection than the run was trained on, with the same features.
            From Python also one in memory.
        root: Folder that holds the built-in data sets; by default the run's.
        features: Node features for an edge list; by default the run's.
        labels: Node labels for an edge list; by default the run's.
        encoder: The run's encoder of your own, whose `module:maker` you allow to be imported; from
            Python also the module.
        overwrite: Replace the results in `out`.
        progress: Tell now and then how far a long evaluation is.
    """

    run: Path
    data: Source | None = None
    root: Path | None = None
    features: str | None = None
    labels: str | None = None
    encoder: Source | None = None
    overwrite: bool = False
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SavedRunOptions):
    """Measure frozen embeddings by logistic regression from few labels, beside raw features.

    Nodes: the mean over random splits, accuracy on the nodes that are not in the training share; of
    two classes and of tasks also the area under the ROC curve. Collections: a support vector
    machine in stratified ten-fold cross-validation.

    Args:
        out: Where to write; by default `evaluate` inside the run directory.
        baseline: Another run to measure beside this one, such as one with `--method grace`.
        splits: Random splits; for a collection the number of folds, 20 being ten folds twice.
        train_fraction: Share of labelled nodes the probe learns from.
        selection: What chooses the probe's penalty on the training share: `argmax`, the accuracy
            that is reported; or `subset`, rows on which every class is decided rightly, which is
            what GRACE's released script counts. For nodes.
        probe: `exact` is the published one-vs-rest regression; `softmax` scales to millions of
            nodes; `auto` is exact up to 131,072 training rows times classes. For nodes.
        published: Train and test on the split published with the graph (its masks). For nodes.
        raw: Measure the raw features too.
        seed: Seed of the splits.
    """

    out: Path | None = None
    baseline: Path | None = None
    splits: int = 20
    train_fraction: float = 0.1
    selection: Literal["argmax", "subset"] = "argmax"
    probe: Literal["auto", "exact", "softmax"] = "auto"
    published: bool = False
    raw: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        _require_protocol(self.splits, self.train_fraction)
        require_at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(SavedRunOptions):
    """Write one vector per node, or per graph of a collection, with its id.

    Args:
        out: Where to write; by default `embed` inside the run directory.
        format: `parquet` (columns id, e0, e1, ...) or `npy` (embeddings.npy beside ids.txt).
    """

    out: Path | None = None
    format: Literal["parquet", "npy"] = "parquet"


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(SavedRunOptions):
    """Measure accuracy while the graph is perturbed and attacked, more and more.

    The probe learns on the clean graph; the encoder then meets graphs with random edges added,
    with edges removed inside and added between classes (DICE), and with structure, features or
    both changed by projected gradient ascent on the contrastive loss.

    Args:
        out: Where to write; by default `robustness` inside the run directory.
        baseline: Another run to measure beside this one, such as one with `--method grace`.
        poisoned: A .npz file with a clean and attacked versions of the graph, evaluated in place of
            the run's graph.
        perturbations: What is done to the graph.
        budgets: Edges changed, as shares of the edges there are, growing.
        radii: Largest changes of one feature value, growing.
        attack_steps: Steps of the gradient attacks.
        attack_nodes: Nodes whose contrast an attack raises; of more, random ones, since its cost is
            quadratic in their number.
        attack_candidates: Random pairs that an attack on the structure may join, besides the edges
            it may cut. By default every pair of up to 20,000 nodes, else a million, or 16,384 if
            the encoder is your own.
        splits: Random splits.
        train_fraction: Share of labelled nodes the probe learns from.
        probe: As for `evaluate`.
        seed: Seed of splits and perturbations.
    """

    out: Path | None = None
    baseline: Path | None = None
    poisoned: Path | None = None
    perturbations: tuple[Perturbed, ...] = (
        "random_edges",
        "dice",
        "feature_noise",
        "pgd_structure",
        "pgd_features",
        "pgd_both",
    )
    budgets: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    radii: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08)
    attack_steps: int = 5
    attack_nodes: int = 10_000
    attack_candidates: int | None = None
    splits: int = 10
    train_fraction: float = 0.1
    probe: Literal["auto", "exact", "softmax"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _require_protocol(self.splits, self.train_fraction)
        require_at_least(0, seed=self.seed, attack_candidates=self.attack_candidates)
        require_at_least(2, attack_nodes=self.attack_nodes)
        if not self.perturbations:
            raise OptionError("perturbations must name at least one")
        for name, values in (("budgets", self.budgets), ("radii", self.radii)):
            if not values or min(values) <= 0:
                raise OptionError(f"{name} must be positive numbers, got {values}")
        require_at_least(1, attack_steps=self.attack_steps)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DemoOptions):
    """Learn the digits' neighbour graph without labels: ARIEL, GRACE and raw features compared.

    1,797 images of handwritten digits that come with scikit-learn, as the nodes of their k-nearest-
    neighbour graph. Needs no network and no file, and takes about a minute.

    Args:
        out: Where to write the two runs and the report.
        epochs: Optimiser steps of each method.
        splits: Random splits of the comparison; robustness takes five at most.
    """

    out: Path = Path("runs/graphs-demo")
    epochs: int = 100
    splits: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, epochs=self.epochs, splits=self.splits)


def _require_protocol(splits: int, train_fraction: float) -> None:
    require_at_least(1, splits=splits)
    if not 0 < train_fraction < 1:
        raise OptionError(f"train_fraction must lie between 0 and 1, got {train_fraction}")
