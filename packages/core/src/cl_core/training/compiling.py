"""``torch.compile`` for the length of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from cl_core.errors import InputError

__all__ = ["compiled"]


@contextmanager
def compiled(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Compile the networks of a module where they stand: no weight gets another name.

    Only calls of the module's direct children are compiled, and what they hold; the step itself,
    which logs and draws, stays as it is. Afterwards nothing is compiled any more.

    Args:
        module: A LightningModule.
        wanted: ``False`` does nothing.

    Raises:
        InputError: If the compiler cannot work here, as without a C++ compiler on a CPU.
    """
    if not wanted:
        yield
        return
    children = [child for child in module.children() if any(True for _ in child.parameters())]
    for child in children:
        child.compile()
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        raise InputError(f"--trainer.compile does not work here ({line}): leave it out") from error
    finally:
        for child in children:
            child._compiled_call_impl = None
