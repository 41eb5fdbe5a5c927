"""The version of every package of the suite; the builds of all of them read this line."""

__version__ = "0.1.0"
