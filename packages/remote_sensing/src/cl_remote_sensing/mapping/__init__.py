"""From a network to maps of any size: blended, written, resumed, measured."""

__all__: list[str] = []
