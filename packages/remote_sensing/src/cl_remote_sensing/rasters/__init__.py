"""Rasters: opened, read in windows, measured, scaled, joined."""

__all__: list[str] = []
