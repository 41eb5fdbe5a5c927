"""Land-cover maps from few labels: global style and local matching contrast (GLCNet).

The functions are the commands: ``pretrain(PretrainConfig(data="scene.tif", out="runs/scene"))`` is
``cl-remote-sensing pretrain --data scene.tif --out runs/scene``. Everything is imported when it is
first used.
"""

import importlib.metadata

import lazy_loader

from cl_core.renamed import keep_old_names
from cl_remote_sensing._moved import MOVED

__version__ = importlib.metadata.version("cl-remote-sensing")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": [
            "DemoConfig",
            "EvaluateConfig",
            "FinetuneConfig",
            "PredictConfig",
            "PretrainConfig",
        ],
        "labels.legend": ["Legend"],
        "labels.scene_labels": ["Labels", "open_labels"],
        "mapping.job": ["MapJob"],
        "mapping.maps": ["job_of"],
        "mapping.scene_map": ["MapResult", "map_scene"],
        "mapping.values": ["MapValues"],
        "methods.glcnet": ["GLCNet"],
        "networks.network": ["SegmentationNetwork", "build_network"],
        "pipeline": ["demo", "evaluate", "finetune", "predict", "pretrain"],
        "rasters.memory": ["Raster"],
        "rasters.raster": ["Scene", "open_scene", "open_scenes"],
        "rasters.windows": ["Window"],
        "saved": ["SavedModel", "load_model"],
    },
)
__all__ += ["__version__"]
keep_old_names(__name__, MOVED)
