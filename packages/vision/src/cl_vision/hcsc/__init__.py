"""Hierarchical contrastive selective coding (HCSC)."""

__all__: list[str] = []
