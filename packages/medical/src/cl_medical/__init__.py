"""Skin lesion classification (SuperCon), and multi-task, multi-domain MRI segmentation.

The functions of :mod:`cl_medical.lesions.pipeline` are the commands of ``cl-medical lesions``.
Everything is imported when it is first used.
"""

import importlib.metadata

import lazy_loader

__version__ = importlib.metadata.version("cl-medical")

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["lesions"])
__all__ += ["__version__"]
