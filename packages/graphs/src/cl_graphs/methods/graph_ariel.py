r"""ARIEL for whole graphs: GraphCL's contrast and the attack on the union of a batch.

Feng et al., "ARIEL: Adversarial Graph Contrastive Learning", ACM TKDD 2024, on top of GraphCL (You
et al. 2020). A step augments each graph of the batch, attacks the batch, and minimises

$$L(\text{clean}, \text{augmented}) + \epsilon_1 L(\text{attacked}, \text{augmented})$$

with the contrast of `graph_attack`. GraphCL itself is $\epsilon_1 = 0$.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor, nn

from cl_graphs.hyper import GraphArielHyper
from cl_graphs.methods.attack import AttackConfig
from cl_graphs.methods.augment import drop_edges, drop_nodes, grown_nodes, mask_nodes
from cl_graphs.methods.encoder import eval_mode
from cl_graphs.methods.graph_attack import graph_contrast, graph_pgd_attack
from cl_graphs.methods.graph_batch import GraphBatch, encode_graphs

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["GraphAriel", "augmented"]

AUGMENTATIONS = ("drop_nodes", "drop_edges", "subgraph", "mask")
SHARES = {"drop_nodes": 0.1, "drop_edges": 0.1, "subgraph": 0.2, "mask": 0.1}
"""What each augmentation changes; of ``subgraph`` what it keeps."""


def augmented(
    clean: GraphBatch, augmentation: str, *, generator: torch.Generator | None = None
) -> GraphBatch:
    """Augment each graph of a batch on its own.

    Args:
        clean: The batch; ``batch`` ascending.
        augmentation: ``drop_nodes`` (10 % of the nodes go), ``drop_edges`` (10 % of the directed
            entries go), ``subgraph`` (a connected 20 % of the nodes stays), ``mask`` (10 % of the
            nodes get random features), or ``random4``: one of these, drawn per graph.
        generator: Source of the draws.

    Raises:
        ValueError: If the augmentation is unknown.
    """
    if augmentation not in (*AUGMENTATIONS, "random4"):
        raise ValueError(
            f"augmentation must be random4 or one of {', '.join(AUGMENTATIONS)}, "
            f"got {augmentation!r}"
        )
    node_counts = torch.bincount(clean.batch, minlength=clean.num_graphs)
    owner = clean.batch[clean.edge_index[0]]
    by_graph = owner.argsort(stable=True)
    edge_counts = torch.bincount(owner, minlength=clean.num_graphs).tolist()
    edges_of = torch.split(clean.edge_index[:, by_graph], edge_counts, dim=1)
    xs, edges, sizes, first, start = [], [], [], 0, 0
    for x, edge_index in zip(torch.split(clean.x, node_counts.tolist()), edges_of, strict=True):
        kind = augmentation
        if kind == "random4":
            kind = AUGMENTATIONS[int(torch.randint(len(AUGMENTATIONS), (), generator=generator))]
        new_x, new_edges = _augment(x, edge_index - start, kind, generator)
        xs.append(new_x)
        edges.append(new_edges + first)
        sizes.append(len(new_x))
        start, first = start + len(x), first + len(new_x)
    counts = torch.tensor(sizes, device=clean.batch.device)
    batch = torch.arange(clean.num_graphs, device=clean.batch.device).repeat_interleave(counts)
    return GraphBatch(torch.cat(xs), torch.cat(edges, 1), batch, clean.num_graphs)


def _augment(
    x: Tensor, edge_index: Tensor, kind: str, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    share = SHARES[kind]
    if kind == "mask":
        return mask_nodes(x, share, generator=generator), edge_index
    if kind == "drop_edges":
        return x, drop_edges(edge_index, share, generator=generator)
    choose = drop_nodes if kind == "drop_nodes" else grown_nodes
    kept = choose(x, edge_index, share, generator=generator)
    position = torch.full((len(x),), -1, device=x.device)
    position[kept] = torch.arange(len(kept), device=x.device)
    moved = position[edge_index]
    return x[kept], moved[:, (moved >= 0).all(0)]


class GraphAriel(L.LightningModule):
    """Train an encoder of whole graphs without labels.

    A batch is a PyG ``Batch`` of at least two graphs with undirected edges. The random choices of a
    step follow from ``seed``, the rank and the step's number.

    Args:
        encoder: Maps a batch to embeddings ``(g, k)``: a `GIN`, or any module of a convention of
            `graph_batch`.
        head: Projection head, used in the losses only; see `encoder.graph_head`.
        hyper: Hyper-parameters; ``epsilon=0`` is GraphCL.
        seed: Of augmentation and attack.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, hyper: GraphArielHyper, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.hyper = hyper
        self.seed = seed
        self.attack = AttackConfig.of(hyper)

    def training_step(self, batch: Data, batch_idx: int) -> dict[str, Tensor]:
        key = hash((self.seed, self.global_rank, self.global_step))  # of integers: never salted
        generator = torch.Generator().manual_seed(key)
        clean = GraphBatch.of(batch)
        other = augmented(clean, self.hyper.augmentation, generator=generator)
        terms = self.objective(clean, other, generator)
        for name, value in terms.items():
            if name != "embedding":
                size = clean.num_graphs
                self.log(f"train/{name}", value, batch_size=size, prog_bar=name == "loss")
        return {"loss": terms["loss"], "embedding": terms["embedding"]}

    def objective(
        self, clean: GraphBatch, other: GraphBatch, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss of one step.

        Args:
            clean: The graphs; the attack starts from them.
            other: Their augmented view.
            generator: Source of the attack's flips.

        Returns:
            ``loss``; its unweighted terms ``contrast`` and, if used, ``adversarial``;
            ``embedding`` of the clean graphs. All but ``loss`` are detached.
        """
        hyper = self.hyper
        z, y = self._project(clean)
        _, y_other = self._project(other)
        loss = contrast = graph_contrast(y, y_other, hyper.temperature)
        terms = {"contrast": contrast.detach(), "embedding": z.detach()}
        if hyper.epsilon > 0:
            with eval_mode(self.encoder, self.head):
                y_fixed = self._project(other)[1]  # the attack sees the running statistics
            attacked = graph_pgd_attack(
                self.encoder,
                self.head,
                clean.x,
                clean.edge_index,
                clean.batch,
                y_fixed,
                self.attack,
                temperature=hyper.temperature,
                generator=generator,
            )
            moved = clean._replace(x=attacked.x, edge_index=attacked.edge_index)
            adversarial = graph_contrast(self._project(moved)[1], y_other, hyper.temperature)
            terms["adversarial"] = adversarial.detach()
            loss = loss + hyper.epsilon * adversarial
        return {"loss": loss, **terms}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(), lr=self.hyper.learning_rate, weight_decay=self.hyper.weight_decay
        )

    def _project(self, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        z = encode_graphs(self.encoder, graphs)
        return z, self.head(z)
