"""The network of all domains: a shared backbone, a norm set and a head a domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from cl_medical.segmentation.backbones import Backbone
from cl_medical.segmentation.contrast import pooled
from cl_medical.segmentation.domain_norm import (
    add_domain,
    convert_batch_norm,
    domain_layers,
    use_domain,
)
from cl_medical.segmentation.heads import DomainHeads
from cl_medical.segmentation.rows import Ids, Rows, rows_of

__all__ = ["MultiDomainNetwork", "Segmented"]


@dataclass(frozen=True)
class Segmented:
    """What the network makes of a batch.

    Attributes:
        rows: Whose each row is.
        logits: Of the rows of each domain present, by its number, in the batch's order.
        maps: Feature maps of the levels asked for, of all rows.
    """

    rows: Rows
    logits: dict[int, Tensor]
    maps: list[Tensor]


class MultiDomainNetwork(nn.Module):
    """Segments images of several domains, each with classes of its own.

    Args:
        backbone: With plain batch norms.
        classes: Number of classes of each domain by its name; their order numbers the domains.
        domain_norm: Give each domain batch norms of its own, else they are shared.
        synchronized: Take batch statistics over the rows of all ranks; with domain norms only.

    Attributes:
        domains: Their names in order.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Mapping[str, int],
        *,
        domain_norm: bool,
        synchronized: bool = False,
    ) -> None:
        super().__init__()
        self.domains = tuple(classes)
        spatial_dims = len(backbone.multiple)
        if domain_norm:
            convert_batch_norm(backbone, self.domains, synchronized=synchronized)
        self.backbone = backbone
        self.heads = DomainHeads(backbone.width, list(classes.values()), spatial_dims)

    @property
    def domain_norm(self) -> bool:
        """Whether each domain has batch norms of its own."""
        return bool(domain_layers(self))

    def forward(
        self, x: Float[Tensor, "n c ..."], ids: Ids, *, levels: Sequence[int] = ()
    ) -> Segmented:
        """Segment a batch.

        Args:
            x: Images whose sizes the backbone's ``multiple`` divides.
            ids: Whose each row is, by number or name; one for all rows.
            levels: Levels whose maps are wanted, -1 for the bottleneck.
        """
        rows = rows_of(ids, self.domains)
        with use_domain(self, ids):
            features, maps = self.backbone.with_maps(x, levels)
        return Segmented(rows, self.heads(features, rows), maps)

    def embed(self, x: Float[Tensor, "n c ..."], ids: Ids) -> Float[Tensor, "n d"]:
        """The pooled feature map of the bottleneck, which the contrast acts on."""
        with use_domain(self, ids):
            _, maps = self.backbone.with_maps(x)
        return pooled(maps[0])

    def add_domain(
        self, name: str, classes: int, *, copy_of: str | None = None
    ) -> list[nn.Parameter]:
        """Give the network one more domain, without touching what the others have.

        Args:
            name: Of the domain; its number is the next one.
            classes: Its classes, background included.
            copy_of: The domain whose norm set it starts as; by default a fresh one.

        Returns:
            The new parameters.

        Raises:
            ValueError: If the name is taken, or all domains share their norms.
        """
        added = [*add_domain(self, name, copy_of=copy_of), self.heads.add(classes)]
        self.domains = (*self.domains, name)
        return [parameter for part in added for parameter in part.parameters()]
