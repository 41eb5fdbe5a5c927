"""Which windows of which scenes take part, and how they are split by ground."""

__all__: list[str] = []
