"""Hard attention: which pixels of an image are plant."""

__all__: list[str] = []
