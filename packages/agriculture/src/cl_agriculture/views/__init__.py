"""Views of an image and its mask, which are cut, flipped and turned together."""

__all__: list[str] = []
