"""Many small graphs in memory, with what says how their node features came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["FeatureKind", "GraphCollection"]

FeatureKind = Literal["labels", "attributes", "degrees", "given"]


@dataclass(frozen=True, eq=False)
class GraphCollection(Sequence[Any]):
    """A sequence of PyG ``Data``.

    Attributes:
        name: What messages call it.
        graphs: One ``Data`` a graph: ``x`` float32 ``(n, d)``, ``edge_index`` with both directions,
            and ``y`` int64 ``(1,)`` if there are graph labels.
        features: What the node features are: one-hot node ``labels``, node ``attributes``, one-hot
            ``degrees``, or ``given`` with graphs in memory.
        vocabulary: For one-hot labels the labels of the columns, a tuple for each column of the
            file.
        notes: What was assumed or left out, a line each.
    """

    name: str
    graphs: Sequence[Data]
    features: FeatureKind = "given"
    vocabulary: tuple[tuple[int, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.graphs)

    @overload
    def __getitem__(self, place: int) -> Data: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Data]: ...
    def __getitem__(self, place: int | slice) -> Data | Sequence[Data]:
        return self.graphs[place]
