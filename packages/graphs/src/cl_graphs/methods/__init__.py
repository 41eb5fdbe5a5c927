"""ARIEL and GRACE: views, encoders, contrast, attacks, batches."""

__all__: list[str] = []
