"""Where modules went when they moved into rooms."""

__all__ = ["MOVED"]

MOVED = {
    "glcnet": "methods.glcnet",
    "segmentation": "methods.segmentation",
    "pixel_losses": "methods.pixel_losses",
    "pretraining": "methods.pretraining",
    "finetuning": "methods.finetuning",
    "start": "methods.start",
    "metrics": "evaluation.metrics",
    "measure": "evaluation.measure",
    "retrieval": "evaluation.retrieval",
    "scenes": "tiles.scenes",
    "labelled": "tiles.labelled",
    "landscape_demo": "landscape.demo",
}
