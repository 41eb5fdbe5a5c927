"""Settings by name, as ``--recipe NAME``."""

__all__: list[str] = []
