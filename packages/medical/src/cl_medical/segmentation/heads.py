"""The last layer of each domain: a 1x1 convolution from shared features to its own classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from cl_medical.segmentation.rows import Rows

__all__ = ["DomainHeads"]


class DomainHeads(nn.Module):
    """A head for each domain.

    Args:
        width: Channels of the features.
        classes: Classes of each domain, its background included.
        spatial_dims: 2 or 3.

    Attributes:
        heads: The convolutions, in the order of the domains' numbers.
    """

    def __init__(self, width: int, classes: Sequence[int], spatial_dims: int) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        self.width = width
        self.spatial_dims = spatial_dims
        self.heads = nn.ModuleList()
        for count in classes:
            self.add(count)

    def add(self, classes: int) -> nn.Module:
        """Append the head of one more domain, and return it."""
        if classes < 2:
            raise ValueError(f"a domain has a background and a structure at least, got {classes}")
        convolution = nn.Conv2d if self.spatial_dims == 2 else nn.Conv3d
        self.heads.append(convolution(self.width, classes, kernel_size=1))
        return self.heads[-1]

    def classes(self, domain: int) -> int:
        """How many classes a domain has."""
        return int(cast(nn.Conv2d, self.heads[domain]).out_channels)

    def forward(
        self, features: Float[Tensor, "n c ..."], rows: Rows
    ) -> dict[int, Float[Tensor, "m k ..."]]:
        """Logits of the rows of each domain present, in the batch's order, by its number."""
        return {k: self.heads[k](part) for k, part in rows.split(features)}
