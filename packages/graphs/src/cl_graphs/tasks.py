"""Which task the user's data poses: embed the nodes of one graph, or the graphs of a collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cl_core.commands.options import Options
from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.card import Card, read_card
from cl_core.runs.fingerprint import Fingerprint
from cl_core.runs.record import require_readable
from cl_graphs.cards import GraphCard, NodeCard
from cl_graphs.config import EvaluateConfig, PretrainConfig, SavedRunOptions
from cl_graphs.data import is_graph_collection, is_named, load_graph, load_graphs
from cl_graphs.graph_task import GraphModel, GraphTask
from cl_graphs.methods.encode import output_width
from cl_graphs.methods.graph_batch import graph_width
from cl_graphs.node_task import NodeModel, NodeTask
from cl_graphs.own import encoder_again, made_encoder
from cl_graphs.readers.features import DEGREE, degree_names

if TYPE_CHECKING:
    from lightning import LightningModule

__all__ = ["Model", "Task", "card_of_run", "load_model", "load_trained", "task_of", "task_of_run"]


@runtime_checkable
class Model(Protocol):
    """What `NodeModel` and `GraphModel` have in common, beside being modules."""

    @property
    def card(self) -> Card: ...

    @property
    def name(self) -> str: ...
    def fit(self, data: Any, /) -> Any: ...
    def embed(self, data: Any, /) -> Tensor: ...


@runtime_checkable
class Task(Protocol):
    """What `NodeTask` and `GraphTask` have in common."""

    @property
    def model_class(self) -> type[NodeModel] | type[GraphModel]: ...
    @property
    def unit(self) -> str: ...
    @property
    def data(self) -> Any: ...
    @property
    def name(self) -> str: ...
    @property
    def ids(self) -> Sequence[int] | Sequence[str]: ...
    @property
    def y(self) -> Tensor | None: ...
    @property
    def classes(self) -> Sequence[str]: ...
    def summary(self) -> list[str]: ...
    def fingerprint(self) -> Fingerprint: ...
    def model(self, config: PretrainConfig, /) -> Any: ...
    def method(self, model: Any, config: PretrainConfig, /) -> LightningModule: ...
    def nodes_of_step(self, config: PretrainConfig, /) -> int: ...
    def loader(self, config: PretrainConfig, /) -> Any: ...
    def labels(self) -> Tensor: ...
    def raw(self) -> Tensor: ...
    def default_epochs(self, config: PretrainConfig, /) -> int: ...
    def protocol(self, config: EvaluateConfig, /) -> str: ...
    def parts_of_scores(self, config: EvaluateConfig, /) -> int: ...
    def scores(
        self, x: Tensor, config: EvaluateConfig, /, tell: Callable[[str], None]
    ) -> dict[str, float]: ...


def task_of(config: PretrainConfig) -> Task:
    """Read the data a training names.

    Raises:
        InputError: If it is not there or not fit.
    """
    if is_graph_collection(config.data, config.root):
        return GraphTask(load_graphs(config.data, root=config.root, download=config.download))
    return NodeTask(
        load_graph(
            config.data,
            root=config.root,
            features=config.features,
            labels=config.labels,
            normalize_features=config.normalize_features,
            download=config.download,
        )
    )


def card_of_run(run: Run) -> NodeCard | GraphCard:
    """Read what a run says of its model, before its data and weights.

    Raises:
        InputError: If it holds no model of this package.
    """
    kinds: tuple[type[NodeCard | GraphCard], ...] = (NodeCard, GraphCard)
    card: NodeCard | GraphCard = read_card(run.path, *kinds)[0]
    return card


def task_of_run(run: Run, card: NodeCard | GraphCard, config: SavedRunOptions) -> Task:
    """Read the data a command names, or by default what its run was trained on.

    Args:
        run: The run.
        card: Of its model, which the data must fit.
        config: What the command names.

    Raises:
        InputError: If the data are not there or not fit, or are of the other kind than the run's.
    """
    before = _recorded(run)
    own = config.data is None
    data = require_readable(run.config, run.path) if own else config.data
    root = before.root if config.root is None else config.root
    collection = is_graph_collection(data, root)
    if collection != isinstance(card, GraphCard):
        unit = "graph" if collection else "node"
        raise InputError(
            f"--run {run.path} holds a {card.kind}, but {_called(data)} is to be embedded by "
            f"{unit}; give data of the kind the run was trained on"
        )
    if isinstance(card, GraphCard):
        return GraphTask(
            load_graphs(
                data,
                root=root,
                download=before.download,
                features=card.features,
                vocabulary=card.vocabulary,
            )
        )
    features, labels = (before.features, before.labels) if own else (None, None)
    if features is None and card.feature_names == degree_names() and not is_named(data):
        features = DEGREE
    return NodeTask(
        load_graph(
            data,
            root=root,
            features=config.features or features,
            labels=config.labels or labels,
            normalize_features=before.normalize_features,
            download=before.download,
        )
    )


def load_model(run: Run, card: NodeCard | GraphCard, encoder: Any = None) -> Model:
    """Rebuild the model of a run, in eval mode.

    Args:
        run: The run.
        card: Of its model.
        encoder: The encoder of a user's own that the run was trained with, see `own`.

    Raises:
        InputError: If the weights are not the model's, or its encoder is not given.
    """
    again = encoder_again(card.encoder, encoder, run.path)

    def own() -> nn.Module | None:
        """Make the user's encoder, on the CPU and with every lazy weight in place."""
        if again is None:
            return None
        with torch.device("cpu"):
            made = made_encoder(again, card.in_features)
            width = output_width if isinstance(card, NodeCard) else graph_width
            width(made, card.in_features)
        return made

    if isinstance(card, NodeCard):
        return run.load_model(NodeCard).build(lambda card: NodeModel(card, own()))
    return run.load_model(GraphCard).build(lambda card: GraphModel(card, own()))


def load_trained(run: Path | str | Run, encoder: Any = None) -> Model:
    """Load the model of a run directory, to embed other graphs or to go on with its encoder.

    Args:
        run: Run directory that `pretrain` wrote.
        encoder: The encoder of a user's own that the run was trained with: the module, a function
            that makes it, or its ``module:maker``, which allows it to be imported.

    Returns:
        A `NodeModel` or `GraphModel` in eval mode, with ``encoder``, ``head``, ``card`` and
        ``embed``.

    Raises:
        InputError: If there is no such run, it is another package's, or the encoder is not given.
    """
    opened = Run.open(run)
    return load_model(opened, card_of_run(opened), encoder)


@dataclass(frozen=True, kw_only=True)
class _Recorded(Options):
    """What a run's record says of its data, of the types it must be."""

    root: Path | None = None
    features: str | None = None
    labels: str | None = None
    normalize_features: bool = False
    download: bool = False


def _recorded(run: Run) -> _Recorded:
    record = run.config
    try:
        return _Recorded(**{f.name: record[f.name] for f in fields(_Recorded) if f.name in record})
    except ValueError as error:
        raise InputError(f"{run.path / 'config.yaml'} is damaged: {error}") from error


def _called(data: Any) -> str:
    return data if isinstance(data, str) else f"the {type(data).__name__} in memory"
