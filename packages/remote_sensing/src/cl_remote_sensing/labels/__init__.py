"""Labels of every kind as train ids on a scene's grid."""

__all__: list[str] = []
