"""Image representations without labels: SimCLR, DirectCLR, MoCo v2, HCSC and dataset condensation.

Not built yet: there is nothing to import from this version.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("cl-vision")
