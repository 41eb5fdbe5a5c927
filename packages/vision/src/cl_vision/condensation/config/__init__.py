"""The options of condensation: one frozen dataclass a command (standard library only)."""

from __future__ import annotations

from cl_vision.condensation.config.condense import CondenseConfig
from cl_vision.condensation.config.trials import AssessConfig, ContinualConfig

__all__ = ["AssessConfig", "CondenseConfig", "ContinualConfig"]
