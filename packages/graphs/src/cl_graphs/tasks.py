"""Which task the user's data poses: embed the nodes of one graph, or the graphs of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from cl_core.errors import InputError
from cl_core.runs import Run
from cl_core.runs.card import Card, read_card
from cl_core.runs.record import require_readable
from cl_graphs.cards import GraphCard, NodeCard
from cl_graphs.config import EvaluateConfig, PretrainConfig, SavedRunOptions
from cl_graphs.data import is_graph_collection, load_graph, load_graphs
from cl_graphs.graph_task import GraphModel, GraphTask
from cl_graphs.node_task import NodeModel, NodeTask

if TYPE_CHECKING:
    from lightning import LightningModule

__all__ = ["Model", "Task", "load_model", "task_of", "task_of_run"]


@runtime_checkable
class Model(Protocol):
    """What `NodeModel` and `GraphModel` have in common, beside being modules."""

    @property
    def card(self) -> Card: ...

    @property
    def name(self) -> str: ...
    def embed(self, data: Any, /) -> Tensor: ...


@runtime_checkable
class Task(Protocol):
    """What `NodeTask` and `GraphTask` have in common."""

    @property
    def model_class(self) -> type[NodeModel] | type[GraphModel]: ...
    @property
    def default_epochs(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def protocol(self) -> str: ...
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
    def model(self, config: PretrainConfig, /) -> Any: ...
    def method(self, model: Any, config: PretrainConfig, /) -> LightningModule: ...
    def loader(self, config: PretrainConfig, /) -> Any: ...
    def labels(self) -> Tensor: ...
    def raw(self) -> Tensor: ...
    def scores(self, x: Tensor, config: EvaluateConfig, /) -> dict[str, float]: ...


def task_of(config: PretrainConfig) -> Task:
    """Read the data a training names.

    Raises:
        InputError: If it is not there or not fit.
    """
    if is_graph_collection(config.data, config.root):
        graphs = load_graphs(config.data, root=config.root, download=config.download)
        return GraphTask(config.data, graphs)
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


def task_of_run(run: Run, config: SavedRunOptions) -> Task:
    """Read the data a command names, or by default what its run was trained on.

    Raises:
        InputError: If it is not there or not fit, or is of the other kind than the run's.
    """
    before = run.config
    own = config.data is None
    data = config.data or require_readable(before, run.path)
    root = before["root"] if config.root is None else config.root
    if is_graph_collection(data, root):
        return GraphTask(data, load_graphs(data, root=root, download=before["download"]))
    features, labels = (before["features"], before["labels"]) if own else (None, None)
    return NodeTask(
        load_graph(
            data,
            root=root,
            features=config.features or features,
            labels=config.labels or labels,
            normalize_features=before["normalize_features"],
            download=before["download"],
        )
    )


def load_model(run: Run, task: Task) -> Model:
    """Rebuild the model of a run, in eval mode.

    Raises:
        InputError: If the run holds no model of this package, or one for the other kind of task.
    """
    card, _ = read_card(run.path, NodeCard, GraphCard)
    if card.kind != task.model_class.card_class.kind:
        raise InputError(
            f"--run {run.path} holds a {card.kind}, but {task.name} is to be embedded by "
            f"{task.unit}; give data of the kind the run was trained on"
        )
    if isinstance(card, NodeCard):
        return run.load_model(NodeCard).build(NodeModel)
    return run.load_model(GraphCard).build(GraphModel)
