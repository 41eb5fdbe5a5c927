r"""Batch normalisation with one set of parameters and statistics a domain.

Boutillon et al., "Multi-task, multi-domain deep segmentation with shared representations and
contrastive regularization for sparse pediatric datasets", MICCAI 2021, arXiv 2105.10310; the layer
follows Chang et al., "Domain-Specific Batch Normalization", CVPR 2019. Filters are shared; of a
batch with domains $d$, the rows $X_k = \{x_i : d_i = k\}$ are normalised by themselves,

$$y = \gamma_k \frac{x - \mu_k}{\sqrt{v_k + \epsilon}} + \beta_k,$$

with $\mu_k, v_k$ of $X_k$ in training and the running ones of domain $k$ in evaluation. A domain
that is not in the batch is not touched: neither its parameters nor its statistics nor its counter.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl_core.distributed import sum_over_ranks, world_size
from cl_medical.segmentation.rows import Ids, Rows, domain_number, rows_of

__all__ = [
    "DomainBatchNorm",
    "add_domain",
    "convert_batch_norm",
    "domain_layers",
    "use_domain",
]


class DomainBatchNorm(nn.Module):
    """A batch norm for each domain, in one place of a network.

    Made of a batch norm, it starts as a copy of it for every domain. Whose each row is must be
    said by :func:`use_domain` before the forward pass.

    Args:
        norm: The layer it takes the place of, of any dimension.
        domains: Names, in the order of their numbers.
        synchronized: In training, take the statistics over the rows of all ranks, so that several
            devices normalise as one would.

    Attributes:
        sets: The batch norm of each domain.
        domains: Their names.
    """

    def __init__(
        self,
        norm: nn.modules.batchnorm._BatchNorm,
        domains: Sequence[str],
        *,
        synchronized: bool = False,
    ) -> None:
        super().__init__()
        if not domains or len(set(domains)) != len(domains):
            raise ValueError(f"domains need names of their own, got {list(domains)}")
        self.sets = nn.ModuleList(copy.deepcopy(norm) for _ in domains)
        self.domains = tuple(domains)
        self.synchronized = synchronized
        self.rows: Rows | None = None

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        if self.rows is None:
            raise ValueError(
                "a domain batch norm must know whose the rows are: "
                "run the network inside `with use_domain(network, ids):`"
            )
        joint = self.synchronized and self.training and world_size() > 1
        if joint:
            return _normalise_jointly(x, self.sets, self.rows)
        return self.rows.join([self.sets[k](part) for k, part in self.rows.split(x)])

    def extra_repr(self) -> str:
        return f"domains={', '.join(self.domains)}"


def _normalise_jointly(x: Tensor, sets: nn.ModuleList, rows: Rows) -> Tensor:
    """Normalise by the statistics of all ranks' rows, which need not be of the same domains."""
    own = dict(rows.split(x))
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    made: dict[int, Tensor] = {}
    for k, norm in enumerate(sets):  # every rank meets every domain: the sums are joint acts
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        part = own.get(k, x[:0])
        count = sum_over_ranks(x.new_tensor(float(part.numel() // x.shape[1])))
        total = sum_over_ranks(part.sum(axes))
        if count == 0:
            continue
        if count == 1:
            raise ValueError(f"domain {k} has one value a channel in this step: no variance")
        mean = total / count
        centred = part - mean.view(shape)
        variance = sum_over_ranks(centred.square().sum(axes)) / count
        if norm.track_running_stats:
            _update(norm, mean.detach(), variance.detach() * count / (count - 1))
        y = centred * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            y = y * norm.weight.view(shape) + norm.bias.view(shape)
        made[k] = y
    return rows.join([made[k] for k in rows.domains])


@torch.no_grad()
def _update(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    weight = norm.momentum
    if weight is None:  # torch's sign for a plain mean over the batches
        weight = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, weight)
    norm.running_var.lerp_(variance, weight)


def convert_batch_norm(
    model: nn.Module, domains: Sequence[str], *, synchronized: bool = False
) -> nn.Module:
    """Put a :class:`DomainBatchNorm` in the place of every batch norm of a network.

    Each domain begins with the layer's own parameters and statistics, those of a pretrained network
    included. A layer that occurs in several places stays one.

    Args:
        model: Any network with batch norms of one, two or three dimensions; changed in place.
        domains: Names, in the order of their numbers.
        synchronized: See :class:`DomainBatchNorm`.

    Returns:
        ``model``, or what takes its place if it is itself a batch norm.

    Raises:
        ValueError: If there is no batch norm to convert, or one is converted already.

    Warns:
        UserWarning: If layers of another kind keep parameters or statistics that the domains share.
    """
    if any(isinstance(layer, DomainBatchNorm) for layer in model.modules()):
        raise ValueError("the network has domains already; add one with add_domain")
    kind = nn.modules.batchnorm._BatchNorm
    made = {
        layer: DomainBatchNorm(layer, domains, synchronized=synchronized)
        for layer in model.modules()
        if isinstance(layer, kind) and not isinstance(layer, _INSTANCE)
    }
    if not made:
        raise ValueError(
            "the network has no batch norm: build it with one, as in MONAI's norm='batch'"
        )
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in made:
                parent._modules[name] = made[child]
    shared = sorted({type(layer).__name__ for layer in model.modules() if _is_shared_norm(layer)})
    if shared:
        warnings.warn(
            f"{', '.join(shared)} of the network keep parameters or statistics that all domains "
            "share",
            stacklevel=2,
        )
    return made.get(model, model)  # type: ignore[call-overload, no-any-return]


_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def _is_shared_norm(layer: nn.Module) -> bool:
    if not isinstance(layer, (*_INSTANCE, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
        return False
    return any(True for _ in layer.parameters()) or any(True for _ in layer.buffers())


def domain_layers(model: nn.Module) -> list[DomainBatchNorm]:
    """The domain batch norms of a network, each once."""
    return [layer for layer in model.modules() if isinstance(layer, DomainBatchNorm)]


@contextmanager
def use_domain(model: nn.Module, ids: Ids) -> Iterator[None]:
    """Say whose the rows of a batch are, for every domain batch norm of a network.

    It is set on the layers, for MONAI's networks are sequences that pass one tensor on. Inside, the
    network may be run any number of times on batches of these rows; afterwards, also after an
    exception, it must be said anew.

    Args:
        model: The network. One without domain batch norms is left alone.
        ids: A number or name a row, or one for all rows.

    Raises:
        ValueError: If there is no such domain.
    """
    layers = domain_layers(model)
    rows = rows_of(ids, layers[0].domains) if layers else None
    before = [layer.rows for layer in layers]
    for layer in layers:
        layer.rows = rows
    try:
        yield
    finally:
        for layer, earlier in zip(layers, before, strict=True):
            layer.rows = earlier


def add_domain(model: nn.Module, name: str, *, copy_of: str | None = None) -> list[nn.Module]:
    """Give every domain batch norm one more set.

    Args:
        model: A converted network; changed in place.
        name: Of the new domain, whose number is the next one.
        copy_of: The domain it starts as; by default fresh: gamma 1, beta 0, mean 0, variance 1.

    Returns:
        The new sets, one a layer.

    Raises:
        ValueError: If the name is taken, or there is no domain to copy.
    """
    layers = domain_layers(model)
    if not layers:
        raise ValueError("the network has no domain batch norm: convert it first")
    if name in layers[0].domains:
        raise ValueError(f"there is a domain {name!r} already")
    source = 0 if copy_of is None else domain_number(copy_of, layers[0].domains)
    added: list[nn.Module] = []
    for layer in layers:
        fresh = copy.deepcopy(layer.sets[source])
        assert isinstance(fresh, nn.modules.batchnorm._BatchNorm)
        if copy_of is None:
            fresh.reset_parameters()
        fresh.requires_grad_(True)
        layer.sets.append(fresh)
        layer.domains = (*layer.domains, name)
        added.append(fresh)
    return added
