"""Where modules went when they moved into rooms."""

__all__ = ["MOVED"]

MOVED = {
    "cli": "commands.cli",
    "outcome": "commands.outcome",
    "vectors": "runs.vectors",
    "backbones": "networks.backbones",
    "trunks": "networks.trunks",
    "small_resnet": "networks.small_resnet",
    "heads": "networks.heads",
    "weights": "networks.weights",
    "export": "networks.export",
    "onnx_export": "networks.onnx_export",
    "momentum": "networks.momentum",
    "figures": "report.figures",
    "explorer": "report.explorer",
}
