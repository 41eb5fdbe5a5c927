"""Does pretraining learn? Find a tile, and a region, again in its other view.

With no label at all: view 1 is the query, all second views of the tiles are searched by cosine
similarity, and the share that finds its own partner first is told. Chance is one over the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cl_core.evaluation.features import device_of, frozen
from cl_remote_sensing.methods.glcnet import GLCNet, region_means, style_vector
from cl_remote_sensing.views.two_views import ViewPair

__all__ = ["partner_found", "view_retrieval"]


def partner_found(queries: Float[Tensor, "n d"], keys: Float[Tensor, "n d"]) -> float:
    """Share of rows whose most similar key is the one of the same row, in [0, 1]."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T
    return float((similarity.argmax(1).cpu() == torch.arange(len(queries))).double().mean())


def view_retrieval(
    method: GLCNet, batches: Iterable[ViewPair], *, region_size: int, tiles: int = 64
) -> dict[str, float]:
    """Retrieve tiles by style vector and regions by the decoder's mean features.

    Args:
        method: Its network is run in eval mode.
        batches: Pairs of views; as many as ``tiles`` needs are drawn.
        region_size: Edge of a region in pixels.
        tiles: Tiles to tell apart; their regions are told apart all together.

    Returns:
        ``retrieval/tile`` and ``retrieval/region``, shares found first; ``retrieval/tile_chance``
        and ``retrieval/region_chance``.
    """
    styles: list[list[Tensor]] = [[], []]
    regions: list[list[Tensor]] = [[], []]
    network = method.network
    with frozen(network):
        for batch in _first(batches, tiles, device_of(network)):
            for side, (view, centers) in enumerate(
                ((batch.view1, batch.centers1), (batch.view2, batch.centers2))
            ):
                encoded = network.encode(view)
                features = network.decode(encoded, upsample=False)
                styles[side].append(style_vector(encoded.e, style=not method.hyper.no_style))
                regions[side].append(
                    region_means(features, centers, region_size=region_size, size=view.shape[-1])
                )
    found = {}
    for name, (queries, keys) in (("tile", styles), ("region", regions)):
        found[f"retrieval/{name}"] = partner_found(torch.cat(queries), torch.cat(keys))
        found[f"retrieval/{name}_chance"] = 1 / sum(map(len, queries))
    return found


def _first(batches: Iterable[ViewPair], tiles: int, device: torch.device) -> Iterator[ViewPair]:
    left = tiles
    for batch in batches:
        taken: Any = (part[:left].to(device) for part in batch)
        yield ViewPair(*taken)
        left -= len(batch.view1)
        if left <= 0:
            return
