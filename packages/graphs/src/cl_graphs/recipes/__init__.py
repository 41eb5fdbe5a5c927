"""Published settings: the official configuration per data set, as ``--recipe NAME``."""

__all__: list[str] = []
