r"""ARIEL: adversarial graph contrastive learning with information regularisation, node level.

Feng, Jing, Zhu, Tong: "Adversarial Graph Contrastive Learning with Information Regularization",
WWW 2022, and its extension "ARIEL: Adversarial Graph Contrastive Learning", ACM TKDD 2024. One step
draws two views of a subgraph by dropping edges and feature columns, builds a third by attacking
the subgraph, and minimises

$$L(1, 2) + \epsilon_1 L(1, 3) + \epsilon_2 L_I,$$

with $L$ the contrast of GRACE (Zhu et al. 2020) and $L_I$ the information regulariser. GRACE
itself is $\epsilon_1 = \epsilon_2 = 0$.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.losses import nt_xent
from cl_graphs.hyper import ArielHyper
from cl_graphs.methods.attack import AttackConfig, pgd_attack
from cl_graphs.methods.augment import drop_edges, drop_features
from cl_graphs.methods.closed_form import layers_known
from cl_graphs.methods.encode import encode
from cl_graphs.methods.encoder import GCN, eval_mode, product
from cl_graphs.methods.sparse import SparseMatrix

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["Ariel", "View", "curriculum", "grace_loss", "information_regularizer"]

SPARSE_BELOW = 0.1
"""Share of non-zero features below which a sparse product is the faster one."""


def grace_loss(
    h1: Float[Tensor, "n d"], h2: Float[Tensor, "n d"], temperature: float
) -> Float[Tensor, ""]:
    r"""Contrast two views of the same nodes (GRACE; Zhu et al. 2020, Eqs. 1-2).

    With $s$ the cosine similarity and $\tau$ the temperature,

    $$\ell_i(a,b) = -\log \frac{e^{s(a_i,b_i)/\tau}}
      {\sum_j e^{s(a_i,b_j)/\tau} + \sum_{j \ne i} e^{s(a_i,a_j)/\tau}},\quad
      L = \frac{1}{2n} \sum_i [\ell_i(h^1,h^2) + \ell_i(h^2,h^1)],$$

    which is NT-Xent over the $2n$ rows.

    Args:
        h1: Projections of view 1.
        h2: Projections of view 2; row ``i`` is the same node.
        temperature: $\tau > 0$.

    Returns:
        Mean over nodes and directions, in nats; about $\log(2n - 1)$ for random rows.
    """
    return nt_xent(h1, h2, temperature)


def information_regularizer(
    h1: Float[Tensor, "n d"],
    h2: Float[Tensor, "n d"],
    h0: Float[Tensor, "n d"],
    temperature: float,
    *,
    detach: bool = True,
) -> Float[Tensor, ""]:
    r"""Penalise views that agree more with each other than with the clean graph.

    With $w(a,b) = e^{\cos(a,b)/\tau}$ row by row (Feng et al. 2022, Sec. 3.3),

    $$L_I = \frac1n \sum_i \max(2 w_i(1,2) - w_i(1,0) - w_i(2,0),\ 0).$$

    Args:
        h1: Projections of view 1.
        h2: Projections of view 2.
        h0: Projections of the clean graph.
        temperature: $\tau > 0$.
        detach: As in the official code, no gradient passes through $w(1,0)$ and $w(2,0)$, so only
            the agreement of views 1 and 2 is pushed down; False follows the paper's formula.
    """

    def w(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp((F.normalize(a) * F.normalize(b)).sum(1) / temperature)

    limit = w(h1, h0) + w(h2, h0)
    if detach:
        limit = limit.detach()
    return F.relu(2 * w(h1, h2) - limit).mean()


def curriculum(epsilon: float, step: int, gamma: float, every: int) -> float:
    """Return the adversarial weight at a step: ``epsilon`` times ``gamma`` each ``every`` steps.

    Args:
        epsilon: Weight at the start.
        step: Counted from 1; the first rise is at step ``every``.
        gamma: Factor; 1 switches the curriculum off.
        every: Steps between two rises.
    """
    return float(epsilon * gamma ** (step // every))


class View(NamedTuple):
    """A graph as the encoder meets it: features, and rows and columns of the adjacency.

    ``fast`` are the same features in the form that multiplies fastest, where somebody has it.
    """

    x: Tensor | SparseMatrix
    edge_index: Tensor
    fast: Tensor | SparseMatrix | None = None

    def prepared(self) -> View:
        """Return the view with ``fast``: sparse features if few are not 0."""
        x = self.x
        if isinstance(x, Tensor) and x.count_nonzero() < SPARSE_BELOW * x.numel():
            x = SparseMatrix.from_dense(x)
        return self._replace(fast=x)


class Ariel(L.LightningModule):
    """Train ``encoder`` without labels; evaluation uses its output, not the head's.

    A batch is a PyG ``Data`` (sub)graph with dense float ``x`` and ``edge_index`` holding both
    directions of every edge. All random choices of a step follow from ``seed``, the rank and
    the step's number, so a resumed run continues as if never stopped (RReLU's noise alone is
    drawn from torch's global generator).

    Args:
        encoder: Maps a graph to embeddings ``(n, width)``: a `GCN`, or any module of a convention
            of `encode`.
        head: Projection head, used in the losses only.
        hyper: Hyper-parameters; ``epsilon=0`` is GRACE.
        seed: Of views and attack.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, hyper: ArielHyper, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.hyper = hyper
        self.seed = seed
        self.attack = AttackConfig.of(hyper)
        # Modules like these answer differently in training and in eval mode; who knows of others.
        self._stochastic = not layers_known(encoder) or any(
            isinstance(m, nn.RReLU | nn.Dropout) for m in (*encoder.modules(), *head.modules())
        )

    def training_step(self, batch: Data, batch_idx: int) -> dict[str, Tensor]:
        generator = self.generator()
        clean = View(batch.x, batch.edge_index).prepared()
        terms = self.objective(clean, *self.draw_views(clean, generator), generator)
        for name, value in terms.items():
            if name != "embedding":
                self.log(f"train/{name}", value, batch_size=1, prog_bar=name == "loss")
        return {"loss": terms["loss"], "embedding": terms["embedding"]}

    def draw_views(self, clean: View, generator: torch.Generator) -> tuple[View, View]:
        """Draw views 1 and 2: edges of view 1, of view 2, then columns of view 1, of view 2."""
        hyper = self.hyper
        edges = [
            drop_edges(
                clean.edge_index, rate, undirected=hyper.undirected_drop, generator=generator
            )
            for rate in (hyper.drop_edge_1, hyper.drop_edge_2)
        ]
        x = clean.prepared().fast if clean.fast is None else clean.fast
        assert x is not None
        features = [
            drop_features(x, rate, generator=generator)
            for rate in (hyper.drop_feature_1, hyper.drop_feature_2)
        ]
        return View(features[0], edges[0]), View(features[1], edges[1])

    def objective(
        self,
        clean: View,
        view1: View,
        view2: View,
        generator: torch.Generator | None = None,
        *,
        bernoulli_u: Float[Tensor, "n n"] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss of one step.

        Args:
            clean: The (sub)graph; the attack starts from it.
            view1: Its first random view.
            view2: Its second.
            generator: Source of the attack's flips.
            bernoulli_u: These draws for every pair of nodes, instead of the generator's.

        Returns:
            ``loss``; its unweighted terms ``contrast``, ``adversarial`` and ``information`` as far
            as they are used; ``embedding`` of view 1. All but ``loss`` are detached.
        """
        hyper = self.hyper
        z1, h1 = self._project(view1)
        _, h2 = self._project(view2)
        loss = contrast = grace_loss(h1, h2, hyper.temperature)
        terms = {"contrast": contrast.detach(), "embedding": z1.detach()}
        epsilon = curriculum(
            hyper.epsilon, self.global_step + 1, hyper.epsilon_gamma, hyper.epsilon_every
        )
        if epsilon > 0:
            view3 = self._attacked(clean, view1, h1, generator, bernoulli_u)
            adversarial = grace_loss(h1, self._project(view3)[1], hyper.temperature)
            terms["adversarial"] = adversarial.detach()
            loss = loss + epsilon * adversarial
        if hyper.information_weight > 0:
            information = information_regularizer(
                h1, h2, self._project(clean)[1], hyper.temperature, detach=hyper.information_detach
            )
            terms["information"] = information.detach()
            loss = loss + hyper.information_weight * information
        return {"loss": loss, **terms}

    def generator(self) -> torch.Generator:
        """Return the generator of this rank's current step."""
        key = hash((self.seed, self.global_rank, self.global_step))  # of integers: never salted
        return torch.Generator().manual_seed(key)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(), lr=self.hyper.learning_rate, weight_decay=self.hyper.weight_decay
        )

    def _project(self, view: View) -> tuple[Tensor, Tensor]:
        z = encode(self.encoder, view.x if view.fast is None else view.fast, view.edge_index)
        return z, self.head(z)

    def _attacked(
        self,
        clean: View,
        view1: View,
        h1: Tensor,
        generator: torch.Generator | None,
        bernoulli_u: Tensor | None,
    ) -> View:
        if isinstance(clean.x, SparseMatrix):
            raise ValueError("the attack changes every feature: give the clean graph a dense x")
        if self._stochastic:
            with eval_mode(self.encoder, self.head):
                h1 = self._project(view1)[1]
        sent = None
        if clean.fast is not None and isinstance(self.encoder, GCN) and layers_known(self.encoder):
            with torch.no_grad():
                sent = product(clean.fast, self.encoder.layers[0].weight)
        attacked = pgd_attack(
            self.encoder,
            self.head,
            clean.x,
            clean.edge_index,
            h1,
            self.attack,
            temperature=self.hyper.temperature,
            generator=generator,
            bernoulli_u=bernoulli_u,
            sent=sent,
        )
        return View(attacked.x, attacked.edge_index)
