"""What is measured on a trained encoder: scores of its embedding, and robustness."""

__all__: list[str] = []
