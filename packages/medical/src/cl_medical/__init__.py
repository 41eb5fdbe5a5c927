"""Skin lesion classification (SuperCon) and multi-task, multi-domain MRI segmentation.

Not built yet: there is nothing to import from this version.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("cl-medical")
