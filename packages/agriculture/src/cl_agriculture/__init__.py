"""Contrastive clustering of crop images with weak supervision (CLAWS).

Not built yet: there is nothing to import from this version.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("cl-agriculture")
