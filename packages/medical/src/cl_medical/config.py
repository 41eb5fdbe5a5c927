"""The options of the commands on both halves of the package (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cl_core.config import DemoOptions

__all__ = ["DemoConfig"]


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DemoOptions):
    """Run both demos, of lesions and of segmentation, and show them on one page.

    Needs no network and no file, and takes under five minutes on two cores.

    Args:
        out: Where to write; the halves lie in `lesions` and `segment`.
    """

    out: Path = Path("runs/medical-demo")
