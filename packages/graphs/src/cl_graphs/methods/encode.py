r"""Encoders of nodes, the package's and a user's own, called the way they expect.

Two conventions are understood, told apart by the second argument of ``forward``:

- ``forward(x, edge_index[, edge_weight])``, PyG's: a message goes from ``edge_index[0]`` to
  ``edge_index[1]``; self loops are the encoder's own business;
- ``forward(x, adjacency)``, the package's, if the argument is called ``adjacency``, ``adj``,
  ``adj_norm`` or ``a`` (any case) or is annotated `SparseMatrix`: $\hat A$ of
  `normalized_adjacency`, which multiplies dense matrices by ``@``.

Features are dense for the first; for the second a view's may be a `SparseMatrix`.
"""

from __future__ import annotations

import inspect

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cl_core.checks import OptionError
from cl_graphs.methods.encoder import normalized_adjacency
from cl_graphs.methods.sparse import SparseMatrix

__all__ = ["encode", "output_width", "takes_adjacency", "takes_weights"]

ADJACENCY = ("adjacency", "adj", "adj_norm", "a")


def takes_adjacency(encoder: nn.Module) -> bool:
    r"""Whether an encoder expects $\hat A$; otherwise it expects PyG's ``edge_index``."""
    parameters = list(inspect.signature(encoder.forward).parameters.values())
    if len(parameters) < 2:
        return False
    second = parameters[1]
    return second.name.lower() in ADJACENCY or "SparseMatrix" in str(second.annotation)


def takes_weights(encoder: nn.Module) -> bool:
    """Whether an encoder has an argument ``edge_weight``."""
    return "edge_weight" in inspect.signature(encoder.forward).parameters


def encode(
    encoder: nn.Module, x: Tensor | SparseMatrix, edge_index: Int64[Tensor, "2 e"]
) -> Float[Tensor, "n h"]:
    """Embed the nodes of a graph with an encoder of either convention.

    Args:
        encoder: See the module's page.
        x: Features ``(n, d)``.
        edge_index: A row per direction: row ``edge_index[0]`` hears from ``edge_index[1]``.

    Raises:
        ValueError: If the encoder does not return one row of numbers a node.
    """
    n = x.shape[0]
    if takes_adjacency(encoder):
        z = encoder(x, normalized_adjacency(edge_index, n, dtype=x.dtype))
    else:
        dense = x if isinstance(x, Tensor) else x.matrix.to_dense()
        z = encoder(dense, edge_index.flip(0))
    return checked(encoder, z, n)


def checked(encoder: nn.Module, z: object, n: int) -> Tensor:
    """Return what an encoder gave if it is one row of numbers a node."""
    if isinstance(z, Tensor) and z.ndim == 2 and len(z) == n and z.is_floating_point():
        return z
    what = f"a tensor {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
    raise OptionError(
        f"{type(encoder).__name__} must return one row of numbers a node, ({n}, width), got {what}"
    )


def output_width(encoder: nn.Module, in_features: int) -> int:
    """Find how wide an encoder's rows are, by a graph of four nodes; its modes stay.

    Raises:
        ValueError: If the encoder cannot be called with ``in_features`` features.
    """
    from cl_core.evaluation.features import device_of, frozen

    device = device_of(encoder)
    ring = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]], device=device)
    first = next((p for p in encoder.parameters() if not _is_lazy(p)), None)
    dtype = torch.float32 if first is None else first.dtype
    try:
        with frozen(encoder):
            return encode(encoder, torch.zeros(4, in_features, dtype=dtype, device=device), ring)[
                0
            ].numel()
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise OptionError(
            f"{type(encoder).__name__} cannot embed a graph with {in_features} features: {reason}"
        ) from error


def _is_lazy(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, nn.parameter.UninitializedParameter)
