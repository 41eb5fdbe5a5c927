"""A network as one ONNX file, checked against the network itself."""

from __future__ import annotations

import copy
import importlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_core.errors import InputError
from cl_core.runs import write_atomic

__all__ = ["export_onnx"]


def export_onnx(
    encoder: nn.Module, path: Path | str, example: Tensor, *, tolerance: float = 1e-4
) -> float:
    """Write ``encoder`` as one ONNX file whose batch size is free, and check it by onnxruntime.

    The file appears only if onnxruntime gives what torch gives for 1, 2 and 5 images. Input and
    output are called ``images`` and ``representations``; normalisation is not part of it.

    Args:
        encoder: Any module with one tensor in and one out; exported in evaluation mode.
        path: The file.
        example: At least one image ``(n, c, h, w)``; channels and size are fixed to its own.
        tolerance: Largest difference allowed, relative to the largest output if that exceeds 1.

    Returns:
        The largest difference seen, so measured.

    Raises:
        InputError: If the extra is missing, the network cannot be exported, the outputs differ,
            or the file cannot be written.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        _library(module)
    if example.ndim < 2 or len(example) == 0:
        raise ValueError(f"example must be a batch of images, got shape {tuple(example.shape)}")
    model = copy.deepcopy(encoder).cpu().eval()
    example = example.detach().cpu()
    with torch.no_grad():
        model(example)  # its own complaint about the example, rather than the exporter's
    # torch.export takes a batch of one for a constant.
    pair = torch.cat([example, example])[:2] if len(example) == 1 else example[:2]
    try:
        program = torch.onnx.export(
            model,
            (pair,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            input_names=["images"],
            output_names=["representations"],
            verbose=False,
        )
    except Exception as error:  # the exporter raises what any of its stages meets
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"this network cannot be exported to ONNX ({line})") from error
    assert program is not None  # torch's answer with dynamo=True
    with write_atomic(path) as temporary:
        program.save(temporary, external_data=False)
        difference = _largest_difference(model, temporary, example)
        if not difference <= tolerance:
            raise InputError(
                f"the ONNX export differs from the network by {difference:.1e}, more than "
                f"{tolerance:.1e}: nothing is written to {path}"
            )
    return difference


def _largest_difference(model: nn.Module, path: Path, example: Tensor) -> float:
    session = _library("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for n in (1, 2, 5):
        rows = example[torch.arange(n) % len(example)]
        rows = rows + torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
        with torch.no_grad():
            expected = model(rows)
        found = torch.from_numpy(session.run(None, {"images": rows.numpy()})[0])
        if found.shape != expected.shape:
            return math.inf
        scale = max(1.0, expected.abs().max().item())
        largest = max(largest, (found - expected).abs().max().item() / scale)
    return largest


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"ONNX export needs {module}: pip install cl-core[onnx]") from error
