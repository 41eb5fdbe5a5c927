"""Scores of maps, and of what pretraining finds again."""

__all__: list[str] = []
