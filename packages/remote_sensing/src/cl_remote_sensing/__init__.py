"""Land-cover maps from few labels: global style and local matching contrast (GLCNet).

The functions are the commands: ``pretrain(PretrainConfig(data="scene.tif", out="runs/scene"))`` is
``cl-remote-sensing pretrain --data scene.tif --out runs/scene``. Everything is imported when it is
first used.
"""

import importlib.metadata

from cl_core.commands.face import attach
from cl_core.renamed import keep_old_names
from cl_remote_sensing._moved import MOVED

__version__ = importlib.metadata.version("cl-remote-sensing")

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
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
        "rasters.memory": ["Raster"],
        "rasters.raster": ["Scene", "open_scene", "open_scenes"],
        "rasters.windows": ["Window"],
        "saved": ["SavedModel", "load_model"],
    },
    verbs={
        "pipeline": ["demo", "evaluate", "finetune", "predict", "pretrain"],
    },
    loads={
        "pretrained": "saved:load_run",
        "segmentation": "saved:load_run",
    },
)
__all__ += ["__version__"]
keep_old_names(__name__, MOVED)
