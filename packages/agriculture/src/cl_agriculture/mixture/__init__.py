"""A few numbers an image, and a mixture of Gaussians that explains them."""

__all__: list[str] = []
