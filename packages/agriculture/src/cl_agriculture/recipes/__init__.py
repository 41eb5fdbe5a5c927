"""Settings by data set, as ``--recipe NAME``; each file says where they come from."""

__all__: list[str] = []
