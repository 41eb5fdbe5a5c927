"""Images on disk to one dataset type: listing, decoding, cache, splits, views.

``list_images`` reads a folder or a manifest into an :class:`ImageTable`; :class:`ImageDataset`
decodes its rows and gives as many views of each as asked for. Needs ``cl-core[images]``;
everything is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["DecodeCache"],
        "collection": ["Images", "open_images"],
        "dataset": ["ImageDataset", "Sample"],
        "decode": ["read_image", "read_images"],
        "decoding": ["Decoding", "ValueRangeError"],
        "loaders": ["evaluation_loader", "measure_statistics", "training_loader"],
        "masks": ["read_mask"],
        "opening": ["MAX_PIXELS", "UnreadableImageError", "open_image"],
        "sources": ["list_images"],
        "split": [
            "fold_by_group",
            "rare_classes",
            "refuse_shared_groups",
            "refuse_shared_pixels",
            "split_by_group",
            "write_splits",
        ],
        "statistics": ["channel_statistics", "measure_value_range"],
        "table": ["ImageTable", "class_names", "encode_labels"],
    },
)
