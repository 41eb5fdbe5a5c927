"""What is measured on a frozen image encoder."""

__all__: list[str] = []
