"""Where modules went when they moved into rooms."""

__all__ = ["MOVED"]

MOVED = {
    "ariel": "methods.ariel",
    "graph_ariel": "methods.graph_ariel",
    "attack": "methods.attack",
    "graph_attack": "methods.graph_attack",
    "projection": "methods.projection",
    "pairs": "methods.pairs",
    "augment": "methods.augment",
    "contrast": "methods.contrast",
    "encoder": "methods.encoder",
    "sparse": "methods.sparse",
    "sampling": "methods.sampling",
    "arrays": "readers.arrays",
    "tables": "readers.tables",
    "files": "readers.files",
    "graphml": "readers.networks",
    "tu": "readers.tu",
    "datasets": "readers.datasets",
    "features": "readers.features",
    "poisoned": "readers.poisoned",
    "pyg": "readers.pyg",
    "robustness": "evaluation.robustness",
    "perturbation": "evaluation.perturbation",
    "embedding": "evaluation.embedding",
}
