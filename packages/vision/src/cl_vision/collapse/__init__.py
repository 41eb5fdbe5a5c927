"""Dimensional collapse: how it is seen, and the toy studies that explain it."""

__all__: list[str] = []
