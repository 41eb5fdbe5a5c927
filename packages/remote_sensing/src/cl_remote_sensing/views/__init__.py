"""Two views of a tile, what shows the same ground in both, and how they are recoloured."""

__all__: list[str] = []
