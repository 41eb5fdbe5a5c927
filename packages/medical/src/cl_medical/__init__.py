"""Skin lesion classification (SuperCon), and multi-task, multi-domain MRI segmentation.

The functions of :mod:`cl_medical.lesions` are the commands of ``cl-medical lesions``, those of
:mod:`cl_medical.segmentation` the commands of ``cl-medical segment``; :func:`demo` runs both
demos. Everything is imported when it is first used.
"""

import importlib.metadata

from cl_core.commands.face import attach

__version__ = importlib.metadata.version("cl-medical")

__getattr__, __dir__, __all__ = attach(
    __name__,
    {"config": ["DemoConfig"]},
    verbs={"pipeline": ["demo"]},
    loads={
        "lesion classifier": "lesions.model:load_lesion_model",
        "volume segmentation": "segmentation.saved:SavedModel.load",
    },
    rooms=["lesions", "segmentation"],
)
__all__ += ["__version__"]
