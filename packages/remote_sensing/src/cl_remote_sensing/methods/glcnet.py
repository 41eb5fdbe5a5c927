r"""GLCNet: global style and local matching contrast for semantic segmentation.

Li, Li, Zhang, Liu, Huang, Zhu, Tao: "Global and Local Contrastive Self-Supervised Learning for
Semantic Segmentation of HR Remote Sensing Images", IEEE TGRS 60, 2022, arXiv 2106.10605. Two
augmented views of a tile agree in the style of the encoder's output, and the regions of them that
show the same ground agree in the decoder's features:

$$L = \lambda L_G + (1 - \lambda) L_L.$$

SimCLR (Chen et al. 2020) on the same encoder is ``no_style`` and ``no_local``.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core import losses
from cl_core.distributed import gather_rows, rank, sum_over_ranks, world_size
from cl_core.networks.heads import build_head
from cl_core.optim import cosine_with_warmup
from cl_remote_sensing.hyper import GLCNetHyper
from cl_remote_sensing.networks.network import Encoded, SegmentationNetwork
from cl_remote_sensing.views.matching import default_region_size
from cl_remote_sensing.views.two_views import ViewPair

__all__ = ["GLCNet", "glcnet_loss", "region_means", "style_contrast", "style_vector"]

EMBEDDING = 64
"""Channels of the pretraining decoder and of both projections."""


def style_vector(e: Float[Tensor, "b c h w"], *, style: bool = True) -> Float[Tensor, "b d"]:
    r"""Describe each image by the means and unbiased variances of its channels (Li et al., Eq. 2).

    With $n = hw$ positions, $\mu_c$ their mean and $v_c = \sum (e_c - \mu_c)^2 / (n - 1)$.

    Args:
        e: The encoder's output.
        style: Whether the variances are part of it; the ablation "no style" has means alone.

    Returns:
        $(\mu, v)$ with $d = 2c$, or $\mu$ with $d = c$; in float32 or wider.

    Raises:
        ValueError: If there is one position only, which has no variance.
    """
    e = e.to(torch.promote_types(e.dtype, torch.float32)).flatten(2)
    if not style:
        return e.mean(2)
    if e.shape[2] < 2:
        raise ValueError(
            "the style of a single position has no variance: give images of more than 16 pixels, "
            "or of more than the encoder's output stride"
        )
    variance, mean = torch.var_mean(e, 2)
    return torch.cat([mean, variance], 1)


def region_means(
    features: Float[Tensor, "b c h w"],
    centers: Int64[Tensor, "b k 2"],
    *,
    region_size: int,
    size: int | None = None,
) -> Float[Tensor, "m c"]:
    r"""Average features over square regions (Li et al., Sec. III-C).

    Features of lower resolution count as scaled up bilinearly with aligned corners; as that is
    linear and the same in each axis, the mean over rows and columns is $a^\top F_c\, b$ with $a$
    and $b$ the means of the interpolation's weights, and nothing is scaled up.

    Args:
        features: The decoder's output, at any resolution.
        centers: Row and column of each region's centre in pixels of the image.
        region_size: ``p``, even: a region is rows ``r - p/2`` to ``r + p/2 - 1``, and so for
            columns.
        size: Edge of the image in pixels; by default the features are at its resolution.

    Returns:
        ``m = b k`` rows, those of an image after another; in float32 or wider.

    Raises:
        ValueError: If a region leaves the image.
    """
    height, width = features.shape[-2:]
    rows, cols = (size or height, size or width)
    half = region_size // 2
    edge = torch.tensor([rows, cols], device=centers.device) - half
    if ((centers < half) | (centers > edge)).any():
        raise ValueError(
            f"a region of {region_size} pixels around {centers.flatten(0, 1).tolist()} leaves the "
            f"image of {rows} x {cols} pixels"
        )
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    a = _mean_weights(height, rows, centers[..., 0], half).to(features)
    b = _mean_weights(width, cols, centers[..., 1], half).to(features)
    right = features @ b.mT[:, None]  # (b, c, h, k)
    means = (right * a.mT[:, None]).sum(2)
    return means.mT.flatten(0, 1)


def _mean_weights(
    length: int, size: int, center: Int64[Tensor, "b k"], half: int
) -> Float[Tensor, "b k {length}"]:
    """Average, over each region, the weights that scale ``length`` values up to ``size``."""
    weights = torch.eye(length, dtype=torch.float64, device=center.device)
    if size != length:
        weights = F.interpolate(weights[None], size=size, mode="linear", align_corners=True)[0]
    sums = F.pad(weights.cumsum(1), (1, 0)).T  # row r: the sum over pixels before r
    return (sums[center + half] - sums[center - half]) / (2 * half)


def style_contrast(
    z1: Float[Tensor, "n d"],
    z2: Float[Tensor, "n d"],
    temperature: float = 0.5,
    *,
    positive_in_denominator: bool = False,
    eps: float = 1e-8,
    gather: bool = False,
) -> Float[Tensor, ""]:
    r"""Contrast pairs of rows as GLCNet's official code does.

    With $z$ the $2n$ unit-length rows of ``[z1; z2]``, $s_{ik} = z_i^\top z_k / \tau$ and
    $p(i)$ the partner of row $i$,

    $$\ell = \frac{1}{2n} \sum_i \Bigl[ \log \Bigl( \varepsilon +
      \sum_{k \ne i,\, p(i)} e^{s_{ik}} \Bigr) - s_{i\,p(i)} \Bigr].$$

    Unlike SimCLR's, the sum leaves the positive out: the loss can be negative.

    Args:
        z1: Embeddings of one view, any length; row ``i`` pairs with row ``i`` of ``z2``.
        z2: Embeddings of the other.
        temperature: $\tau > 0$.
        positive_in_denominator: Sum over $k \ne i$ and without $\varepsilon$, which is
            :func:`cl_core.losses.nt_xent`.
        eps: $\varepsilon > 0$.
        gather: Contrast against the rows of all ranks, as in :func:`cl_core.losses.nt_xent`.

    Returns:
        Mean over the ``2n`` anchors, in nats, in float32 or wider; near $\log(2n - 2)$ for
        embeddings that know nothing.

    Raises:
        ValueError: If the shapes differ, if ``n < 2`` (no negative), or if ``temperature`` or
            ``eps`` is not positive.
    """
    if positive_in_denominator:
        return losses.nt_xent(z1, z2, temperature, gather=gather)
    if z1.ndim != 2 or z1.shape != z2.shape:
        raise ValueError(
            f"views must pair row by row as (n, d), got {tuple(z1.shape)} and {tuple(z2.shape)}"
        )
    if not temperature > 0 or not eps > 0:
        raise ValueError(f"temperature and eps must be positive, got {temperature} and {eps}")
    n, world = len(z1), world_size() if gather else 1
    if n * world < 2:
        raise ValueError(
            f"style_contrast needs at least 2 pairs, got {n}: a lone pair has no negative"
        )
    z = torch.cat([z1, z2])
    z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
    everyone = z if world == 1 else gather_rows(z)  # [z1; z2] of each rank in turn
    with torch.autocast(z.device.type, enabled=False):
        s = z @ everyone.T / temperature
    own = torch.arange(2 * n, device=z.device)
    first = rank() * 2 * n if world > 1 else 0
    partner = own.roll(n)  # p(i)
    positive = s[own, first + partner]
    hidden = torch.zeros_like(s, dtype=torch.bool)
    hidden[own, first + own] = True
    hidden[own, first + partner] = True
    negatives = s.masked_fill(hidden, float("-inf")).logsumexp(1)
    loss = (torch.logaddexp(negatives, s.new_tensor(eps).log()) - positive).mean()
    return loss if world == 1 else sum_over_ranks(loss / world)


def glcnet_loss(
    global_term: Float[Tensor, ""], local_term: Float[Tensor, ""], global_weight: float = 0.5
) -> Float[Tensor, ""]:
    r"""Return $\lambda L_G + (1 - \lambda) L_L$ (Li et al., Eq. 7), $\lambda$ in [0, 1]."""
    return global_weight * global_term + (1 - global_weight) * local_term


class GLCNet(L.LightningModule):
    """Train a network without labels; what is kept of it is the encoder, or all but its last layer.

    A batch is a :class:`ViewPair` of stacked tensors. The views go through the network one after
    the other, so that batch norm sees each view's batch alone; gradients flow into both.

    Args:
        network: With 64 outputs. Under ``no_local`` its decoder gets no gradient and is frozen.
        hyper: Hyper-parameters. With ``no_global`` or ``no_local`` the other term counts fully.
        gather: Whether several devices contrast against the rows of all of them; the official
            code's negatives are each device's own.

    Attributes:
        network: The network.
        style_head: Projection of the style vector; ``None`` under ``no_global``.
        region_head: Projection of the regions' features; ``None`` under ``no_local``.
    """

    def __init__(
        self, network: SegmentationNetwork, hyper: GLCNetHyper, *, gather: bool = True
    ) -> None:
        super().__init__()
        self.network = network
        self.hyper = hyper
        self.gather = gather
        width, outputs = network.width, network.outputs
        self.style_head: nn.Module | None = None
        self.region_head: nn.Module | None = None
        if not hyper.no_global:
            described = width if hyper.no_style else 2 * width
            self.style_head = build_head("mlp", described, EMBEDDING, hidden=width)
        if hyper.no_local:
            for parameter in network.parts()["decoder"]:
                parameter.requires_grad_(False)
        else:
            self.region_head = build_head("mlp", outputs, EMBEDDING)

    def training_step(self, batch: ViewPair, batch_idx: int) -> dict[str, Tensor]:
        terms = self.objective(batch)
        for name, value in terms.items():
            if name != "embedding":
                self.log(
                    f"train/{name}", value, batch_size=len(batch.view1), prog_bar=name == "loss"
                )
        return {"loss": terms["loss"], "embedding": terms["embedding"]}

    def objective(self, batch: ViewPair) -> dict[str, Tensor]:
        """Compute the loss of one step.

        Returns:
            ``loss``; its unweighted terms ``global`` and ``local`` as far as they are used;
            ``embedding``, the style vectors of view 1. All but ``loss`` are detached.
        """
        hyper = self.hyper
        encoded1, encoded2 = self.network.encode(batch.view1), self.network.encode(batch.view2)
        s1 = style_vector(encoded1.e, style=not hyper.no_style)
        terms = {"embedding": s1.detach()}
        if self.style_head is not None:
            s2 = style_vector(encoded2.e, style=not hyper.no_style)
            loss = style = self._contrast(self.style_head, s1, s2)
            terms["global"] = style.detach()
        if self.region_head is not None:
            f1 = self._regions(encoded1, batch.centers1)
            f2 = self._regions(encoded2, batch.centers2)
            loss = local = self._contrast(self.region_head, f1, f2)
            terms["local"] = local.detach()
            if self.style_head is not None:
                loss = glcnet_loss(style, local, hyper.global_weight)
        return {"loss": loss, **terms}

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(
            trained,
            lr=self.hyper.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.hyper.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = cosine_with_warmup(
            optimizer, warmup_steps=int(self.hyper.warmup * steps), total_steps=steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _regions(self, encoded: Encoded, centers: Tensor) -> Tensor:
        size = encoded.size[0]
        region_size = self.hyper.region_size or default_region_size(size)
        features = self.network.decode(encoded, upsample=False)
        with torch.autocast(features.device.type, enabled=False):
            return region_means(features, centers, region_size=region_size, size=size)

    def _contrast(self, head: nn.Module, x1: Tensor, x2: Tensor) -> Tensor:
        with torch.autocast(x1.device.type, enabled=False):
            return style_contrast(
                head(x1),
                head(x2),
                self.hyper.temperature,
                positive_in_denominator=self.hyper.positive_in_denominator,
                gather=self.gather,
            )
