"""Augmentations on tensors, for any number of channels.

Everything draws from torch's generator and leaves its argument as it was.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blur": ["GaussianBlur", "gaussian_blur"],
        "colour": [
            "ColorJitter",
            "Grayscale",
            "Solarize",
            "adjust_brightness",
            "adjust_contrast",
            "adjust_hue",
            "adjust_saturation",
            "luminance",
        ],
        "geometry": ["Geometry", "RandomResizedCrop", "Resize"],
        "scaling": ["IMAGENET", "CenterCrop", "Normalize", "Statistics", "to_unit_range"],
        "standard": ["SMALL", "crop_and_flip", "evaluation", "evaluation_view", "sequence"],
    },
)
