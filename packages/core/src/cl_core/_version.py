"""The version of every package of the suite; the builds of all of them read this line."""

__all__ = ["__version__"]

__version__ = "0.1.0"
