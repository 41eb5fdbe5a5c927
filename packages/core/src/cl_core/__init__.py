"""Contrastive learning primitives that every package of the suite stands on.

Losses whose memory is linear in the batch, one ``fit``, run directories, evaluation protocols,
self-contained reports and command lines. Import the room you need, such as
``from cl_core.losses import nt_xent``: this module imports nothing, so it costs nothing.
"""

from cl_core._version import __version__

__all__ = ["__version__"]
