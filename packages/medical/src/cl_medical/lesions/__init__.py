"""Skin lesions: SuperCon for imbalanced classes, what else could be trained, and honest figures."""

__all__: list[str] = []
