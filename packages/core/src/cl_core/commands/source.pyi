from typing import Any

__all__ = ["Source"]

Source = Any
