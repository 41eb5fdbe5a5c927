r"""The equations of HCSC, hierarchical contrastive selective coding, as pure functions.

Guo et al., "HCSC: Hierarchical Contrastive Selective Coding", CVPR 2022 (arXiv 2202.00455). MoCo v2
with prototypes $C^l$ of unit length and concentrations $\phi^l$ at levels $l = 1..L$, fine to
coarse. $a^l(i)$ is the cluster of image $i$ and $p = a^{l+1}(i)$ its parent. The probability that
a vector $x$ belongs to cluster $c$ is

$$p^l(c \mid x) = \operatorname{softmax}_c(x^\top C^l_c / \phi^l_c).$$

**Selection.** Key $n_j$ of the queue stays a negative of query $i$ with probability
$1 - p^l(a^l(i) \mid n_j)$, drawn anew for each level; prototype $c \ne a^l(i)$ stays one with
probability $1 - p^{l+1}(a^{l+1}(i) \mid C^l_c)$. So what probably shares the query's cluster is
probably not pushed away. PCL (Li et al. 2021) is the same without selection.

**Losses**, cross-entropies at each level: the query's key among the kept keys at temperature $T$,
and its own prototype among the kept prototypes, each logit over its own $\phi$.

No function here holds rows x clusters as a whole: a softmax read at one column a query needs that
column and the log-sum-exp of its row, and the latter is visited in tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cl_core.distributed import sum_over_ranks
from cl_core.matmul import inner, matmul

__all__ = [
    "Masking",
    "batch_negatives",
    "concentrations",
    "instance_keep",
    "instance_logits",
    "instance_loss",
    "log_sums",
    "member_distances",
    "prototype_keep",
    "prototype_logits",
    "prototype_loss",
    "total_loss",
]

Masking = Literal["exclude", "multiply"]

_LEAST_PHI = 1e-3  # of a cluster of equal rows, whose own concentration is 0
_TILE = {"cpu": 2**20}  # similarities at a time: 4 MB, which stay in a core's cache
_DEVICE_TILE = 2**26
_ROWS = 8192


def member_distances(
    x: Float[Tensor, "n d"],
    centroids: Float[Tensor, "k d"],
    assignment: Int[Tensor, " n"],
    *,
    gather: bool = False,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Count each cluster's rows and add up their distances to its centroid.

    Args:
        x: Rows.
        centroids: As k-means left them, not scaled to unit length.
        assignment: Cluster of each row.
        gather: ``x`` is this rank's share of the rows; the result is that of all.

    Returns:
        Rows and sum of Euclidean (not squared) distances of each cluster, in float64.
    """
    counts = torch.bincount(assignment, minlength=len(centroids))
    sums = torch.zeros(len(centroids), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), _ROWS):
        index = assignment[start : start + _ROWS]
        rows = x[start : start + _ROWS].to(centroids.dtype)
        distances = (rows - centroids[index]).norm(dim=1).to(sums.dtype)
        if sums.device.type == "cpu":
            sums.index_add_(0, index, distances)
        else:  # sorts first, so that the order of additions is the same every time
            sums.index_put_((index,), distances, accumulate=True)
    if gather:
        counts, sums = sum_over_ranks(counts), sum_over_ranks(sums)
    return counts, sums


def concentrations(
    counts: Int[Tensor, " k"], distances: Float[Tensor, " k"], temperature: float
) -> Float[Tensor, " k"]:
    r"""Return $\phi$ of each cluster, which is the temperature of its prototype (PCL, Eq. 12).

    With $n_c$ members at mean distance $\bar d_c$, $r_c = \bar d_c / \ln(n_c + 10)$, of clusters of
    at most one member the largest $r$. $r$ is clipped to its 10th and 90th percentile and
    scaled to mean $T$.

    Args:
        counts: $n_c$.
        distances: $n_c \bar d_c$, as of :func:`member_distances`.
        temperature: $T$, the mean of the result.

    Returns:
        Concentrations in float64; all equal where no cluster has two different members.
    """
    several = counts > 1
    raw = distances.to(torch.float64) / counts.clamp(min=1) / (counts + 10.0).log()
    raw = torch.where(several, raw, torch.zeros_like(raw))
    raw = torch.where(several, raw, raw.max())
    low, high = raw.quantile(raw.new_tensor([0.1, 0.9]))
    raw = raw.clamp(low, high)
    mean = raw.mean()
    return torch.where(mean > 0, temperature * raw / mean, torch.full_like(raw, temperature))


@torch.no_grad()
def log_sums(
    x: Float[Tensor, "m d"],
    prototypes: Float[Tensor, "k d"],
    phi: Float[Tensor, " k"],
    *,
    block_size: int | None = None,
) -> Float[Tensor, " m"]:
    r"""Return $\log \sum_c e^{x^\top C_c / \phi_c}$ of every row, in tiles.

    Args:
        x: Rows of unit length.
        prototypes: $C$.
        phi: $\phi$, at least 0.001 wherever it is used.
        block_size: Rows of a tile; changes speed and memory only.
    """
    scaled = _scaled(prototypes, phi)
    if block_size is None:
        tile = _TILE.get(x.device.type, _DEVICE_TILE)
        block_size = max(1, min(_ROWS, tile // len(prototypes)))
    parts = [inner(rows, scaled).logsumexp(1) for rows in torch.split(_wide(x), block_size)]
    return torch.cat(parts) if parts else x.new_zeros(0)


@torch.no_grad()
def instance_keep(
    negatives: Float[Tensor, "r d"],
    sums: Float[Tensor, "l r"],
    prototypes: Float[Tensor, "l n d"],
    phi: Float[Tensor, "l n"],
    *,
    most: float = 1.0,
) -> Float[Tensor, "l n r"]:
    r"""Return the probability $1 - p(a(i) \mid n_j)$ that a key stays a negative of a query.

    Args:
        negatives: The queue $n_j$.
        sums: Their :func:`log_sums` over all prototypes of each level.
        prototypes: At each level that of each query's own cluster, $C_{a(i)}$.
        phi: Its concentration.
        most: Upper bound of the result. The released code's 0.999 drops one key in a thousand
            whatever it shows.
    """
    keep = _keep(negatives, prototypes.flatten(0, 1), phi.flatten(), sums)
    return keep.clamp_(0.0, most)


@torch.no_grad()
def prototype_keep(
    prototypes: Float[Tensor, "k d"],
    sums: Float[Tensor, " k"],
    parents: Float[Tensor, "n d"],
    phi: Float[Tensor, " n"],
) -> Float[Tensor, "n k"]:
    r"""Return the probability that a prototype stays a negative of a query.

    $1 - p(a^{l+1}(i) \mid C^l_c)$, clipped to [0.0001, 0.999].

    Args:
        prototypes: $C^l$.
        sums: Their :func:`log_sums` over all prototypes one level up.
        parents: The prototype there of each query's cluster, $C^{l+1}_{a(i)}$.
        phi: Its concentration.
    """
    return _keep(prototypes, parents, phi, sums[None])[0].clamp_(1e-4, 0.999)


def instance_logits(
    query: Float[Tensor, "n d"],
    keys: Float[Tensor, "n d"],
    negatives: Float[Tensor, "r d"],
    temperature: float,
) -> Float[Tensor, "n c"]:
    """Return similarities over the temperature, ``c = 1 + r``; column 0 is the query's own key.

    Args:
        query: Rows of unit length.
        keys: Row ``i`` is the positive of query ``i``.
        negatives: The queue.
        temperature: $T$.
    """
    positive = (query * keys).sum(1, keepdim=True)
    return torch.cat([positive, matmul(query, negatives.T)], 1) / temperature


def instance_loss(
    logits: Float[Tensor, "n c"], drop: Bool[Tensor, "l n r"] | None, masking: Masking = "exclude"
) -> Float[Tensor, " l"]:
    """Return the mean cross-entropy of column 0 for each of ``l`` sets of dropped negatives.

    Args:
        logits: Of :func:`instance_logits`.
        drop: Which negatives are dropped, ``r = c - 1``; None for none, and a single loss.
        masking: ``"exclude"`` leaves them out (paper); ``"multiply"`` gives them a logit of 0,
            which stays in the sum (released code).
    """
    if drop is None:
        drop = logits.new_zeros(1, len(logits), logits.shape[1] - 1, dtype=torch.bool)
    kept = logits.masked_fill(F.pad(drop, (1, 0)), _fill(masking))
    return kept.logsumexp(2).mean(1) - logits[:, 0].mean()


def prototype_logits(
    query: Float[Tensor, "n d"], prototypes: Float[Tensor, "k d"], phi: Float[Tensor, " k"]
) -> Float[Tensor, "n k"]:
    """Return the similarity of every query to every prototype over the prototype's phi."""
    return matmul(query, _scaled(prototypes, phi).T)


def prototype_loss(
    logits: Float[Tensor, "n k"],
    clusters: Int[Tensor, " n"],
    drop: Bool[Tensor, "n k"] | None,
    masking: Masking = "exclude",
    *,
    negatives: Int[Tensor, " m"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the query's own prototype among the kept ones.

    Args:
        logits: Of :func:`prototype_logits`.
        clusters: The query's own.
        drop: Which prototypes are dropped; the own one is kept in any case. None for none.
        masking: As in :func:`instance_loss`.
        negatives: The only prototypes to take as negatives, for all queries, such as
            :func:`batch_negatives`; by default all but the query's own.
    """
    own = clusters[:, None]
    if drop is not None:
        logits = logits.masked_fill(drop.scatter(1, own, False), _fill(masking))
    if negatives is not None:
        logits = torch.cat([logits.gather(1, own), logits[:, negatives]], 1)
        clusters = torch.zeros_like(clusters)
    return F.cross_entropy(logits, clusters)


def batch_negatives(clusters: Int[Tensor, " n"], largest: int) -> Int[Tensor, " m"]:
    """Return the prototypes that the released code takes as negatives of a whole batch.

    Those below ``largest`` that are no query's own. If all are, the loss is 0.

    Args:
        clusters: Of the batch.
        largest: The largest cluster of any image; it is itself never a negative.
    """
    free = torch.ones(largest + 1, dtype=torch.bool, device=clusters.device)
    free[clusters] = False
    return free[:-1].nonzero().flatten()


def total_loss(
    instance: Sequence[Float[Tensor, " _"]],
    prototype: Sequence[Float[Tensor, " l"]],
    level_reduction: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, ""]:
    """Combine the terms of all levels and views: global query first, then the small crops.

    Args:
        instance: For each view its losses over the levels, or the one loss without selection.
        prototype: For each view its losses over the levels.
        level_reduction: Instance terms are averaged over the levels as the prototype terms always
            are (``"mean"``), or summed (``"sum"``, released code). Views are summed.
    """
    over = torch.mean if level_reduction == "mean" else torch.sum
    total = torch.stack([over(losses) for losses in instance]).sum()
    return total + torch.stack([losses.mean() for losses in prototype]).sum()


def _scaled(prototypes: Tensor, phi: Tensor) -> Tensor:
    prototypes = _wide(prototypes)
    return prototypes / phi.to(prototypes.dtype).clamp(min=_LEAST_PHI)[:, None]


def _keep(x: Tensor, prototypes: Tensor, phi: Tensor, sums: Tensor) -> Tensor:
    """Return $1 - p$ of all of ``x`` (columns) for each prototype, whose level has ``sums``."""
    log_p = inner(_scaled(prototypes, phi), _wide(x)).view(len(sums), -1, len(x))
    return log_p.sub_(sums[:, None]).exp_().neg_().add_(1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _fill(masking: Masking) -> float:
    return -torch.inf if masking == "exclude" else 0.0
