"""Contrastive learning primitives that every package of the suite stands on.

Losses whose memory is linear in the batch, one ``fit``, run directories, evaluation protocols,
self-contained reports and command lines. Import the room you need, such as
``from cl_core.losses import nt_xent``: this module imports nothing, so it costs nothing. One
function can be had from here, where it is first used: ``cl_core.load_encoder(path)``.
"""

import lazy_loader

from cl_core._moved import MOVED
from cl_core._version import __version__
from cl_core.renamed import keep_old_names

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"networks.export": ["load_encoder"]}
)
__all__ += ["__version__"]
keep_old_names(__name__, MOVED)
