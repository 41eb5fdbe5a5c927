"""Graphs from files and from the field's collections."""

__all__: list[str] = []
