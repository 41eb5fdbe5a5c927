"""Encoders, heads and momentum copies; weights read from files and written to them."""

__all__: list[str] = []
