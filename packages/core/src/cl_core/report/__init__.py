"""What a run shows: one self-contained page of tables, figures and pictures."""

from cl_core.report.page import Report

__all__ = ["Report"]
