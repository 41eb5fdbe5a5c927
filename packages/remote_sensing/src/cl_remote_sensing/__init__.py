"""Global and local contrastive learning (GLCNet), from GeoTIFF mosaics to class maps.

Not built yet: there is nothing to import from this version.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("cl-remote-sensing")
