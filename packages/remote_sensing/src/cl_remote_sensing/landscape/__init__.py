"""The made-up landscape of the demo."""

__all__: list[str] = []
