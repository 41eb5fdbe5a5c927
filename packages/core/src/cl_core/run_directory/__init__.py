"""The parts of a run directory; :mod:`cl_core.runs` is what others use."""

__all__: list[str] = []
