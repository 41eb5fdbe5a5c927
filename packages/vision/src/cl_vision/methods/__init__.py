"""SimCLR, DirectCLR and MoCo v2, and how `pretrain` builds what trains."""

__all__: list[str] = []
