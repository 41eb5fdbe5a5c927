r"""The gradient of the attack on a `GCN` in closed form, without an $N \times N$ matrix.

The official code differentiates through the dense matrix $\hat A$. Here $g_S$ has a closed form:
with $U_l$ what layer $l$ sends, $O_l = \hat A U_l$ what arrives, $dU_l$ and $G_l$ their gradients,
$r$ the row sums of $\tilde A$ and $p = r^{-1/2}$,

$$q = -\frac{1}{2r} \sum_l \mathrm{rowsum}(G_l \circ O_l + U_l \circ dU_l),$$
$$g_{ij} = C_{ij} \bigl(p_i p_j [\langle G_i, U_j\rangle + \langle G_j, U_i\rangle]
+ q_i + q_j\bigr),$$

layers side by side. It has low rank, so pairs are visited in blocks of rows and only the support
of $S$, about the budget, is ever kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core.matmul import inner
from cl_graphs.methods.contrast import FixedViewLoss
from cl_graphs.methods.encoder import GCN, normalized_adjacency
from cl_graphs.methods.pairs import PairGradient, SimpleGraph

__all__ = ["ClosedForm", "layers_known", "structure_gradient"]


def layers_known(encoder: nn.Module) -> bool:
    """Whether an encoder is a `GCN` that computes as one."""
    if not isinstance(encoder, GCN):
        return False
    kind = type(encoder)
    return kind.forward is GCN.forward and kind.trace_sent is GCN.trace_sent


def structure_gradient(
    sent: Sequence[Tensor],
    arrived: Sequence[Tensor],
    grads: Sequence[Tensor],
    degree: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    r"""Factor the loss gradient with respect to $S$, apart from the sign $C$.

    Args:
        sent: $U_l$ of each layer.
        arrived: $O_l$ of each layer.
        grads: $G_l$ of each layer, then $dU_l$ of each layer.
        degree: $r > 0$, row sums of $\tilde A$.

    Returns:
        ``left`` and ``right``: the gradient at pair $i < j$ is $C_{ij}$ times
        ``left[i] @ right[j] + left[j] @ right[i]``.
    """
    g, u = torch.cat(list(grads[: len(sent)]), 1), torch.cat(list(sent), 1)
    o, du = torch.cat(list(arrived), 1), torch.cat(list(grads[len(sent) :]), 1)
    p = degree.rsqrt()[:, None]
    q = (g * o).add_(u * du).sum(1, keepdim=True) / (-2 * degree[:, None])
    return torch.cat([g * p, q], 1), torch.cat([u * p, torch.ones_like(q)], 1)


class ClosedForm:
    """The contrastive loss of an attacked graph, with gradients in features and structure.

    Args:
        encoder: Attacked encoder.
        head: Its projection head.
        graph: Clean edges.
        contrast: The loss against the fixed view.
        x: Clean features.
        features: Whether the gradient in the features is wanted.
        structure: Whether that in the structure is.
        sent: $X W_1$, if it is known already.
    """

    def __init__(
        self,
        encoder: GCN,
        head: nn.Module,
        graph: SimpleGraph,
        contrast: FixedViewLoss,
        x: Float[Tensor, "n d"],
        *,
        features: bool,
        structure: bool,
        sent: Float[Tensor, "n m"] | None = None,
    ) -> None:
        self.encoder, self.head, self.graph, self.contrast = encoder, head, graph, contrast
        self.features, self.structure = features, structure
        self.weight = encoder.layers[0].weight.detach()
        # X W_1: each step adds what the change of X sends.
        self.clean = inner(x, self.weight.T) if sent is None else sent.detach()

    def at(
        self,
        delta: Float[Tensor, "n d"] | None,
        keys: Int64[Tensor, " s"],
        values: Float[Tensor, " s"],
        *,
        rate: float,
    ) -> tuple[float, Tensor | None, PairGradient | None]:
        """Differentiate where the features have moved by ``delta`` and S is ``values`` at ``keys``.

        Args:
            delta: Change of the features, if there is any.
            keys: Pairs where S is not 0.
            values: S there.
            rate: Factor of the gradient in the structure.

        Returns:
            The loss, its gradient in the features, and ``rate`` times that in S up to the sign C.
        """
        index, weight = self.graph.weighted(keys, values)
        n = self.graph.num_nodes
        adjacency = normalized_adjacency(index, n, weight, symmetric=True)
        first = self.clean if delta is None else self.clean + inner(delta, self.weight.T)
        with torch.enable_grad():
            z, sent, arrived = self.encoder.trace_sent(first.detach().requires_grad_(), adjacency)
            loss = self.contrast(self.head(z))
            grads = torch.autograd.grad(loss, [*arrived, *sent])
        with torch.no_grad():
            grad_x = inner(grads[len(arrived)], self.weight) if self.features else None
            if not self.structure:
                return loss.item(), grad_x, None
            degree = first.new_ones(n).index_add_(0, index[0], weight)
            left, right = structure_gradient(sent, arrived, grads, degree)
            return loss.item(), grad_x, PairGradient(left * rate, right)
