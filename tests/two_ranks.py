"""Run a test file in two real processes of one gloo group, and read what they found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

RANKS = 2


def run_two_ranks(file: str, folder: Path) -> list[Any]:
    """Start ``file FOLDER`` under torchrun; give what rank ``r`` wrote to ``FOLDER/r.pt``."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node", str(RANKS), file, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
