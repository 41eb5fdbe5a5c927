"""GLCNet's pretraining, and segmentation from few labels."""

__all__: list[str] = []
