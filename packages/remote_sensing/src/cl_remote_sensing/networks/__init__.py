"""DeepLabV3+ in two layouts."""

__all__: list[str] = []
