"""Augmentations on tensors, for any number of channels, and the papers' recipes made of them.

Everything draws from torch's generator and leaves its argument as it was. The pieces need torch
alone; the recipes build on torchvision (``cl-core[images]``), imported when one is called.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blur": ["GaussianBlur", "gaussian_blur"],
        "colour": [
            "ColorJitter",
            "Grayscale",
            "adjust_brightness",
            "adjust_contrast",
            "adjust_hue",
            "adjust_saturation",
            "luminance",
        ],
        "geometry": ["Geometry", "RandomResizedCrop"],
        "recipes": [
            "crop_and_flip",
            "directclr",
            "evaluation",
            "hcsc_multi_crop",
            "moco_v1",
            "moco_v2",
            "simclr",
            "supercon",
        ],
        "scaling": ["IMAGENET", "CenterCrop", "Normalize", "Statistics", "to_unit_range"],
    },
)
