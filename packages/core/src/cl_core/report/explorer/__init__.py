"""Looking at images and their embeddings: contact sheets, and a plane to walk about in.

``contact_sheet`` and ``explorer_block`` give blocks for :meth:`cl_core.report.Report.block`;
``explorer_page`` writes the plane as a page of its own. Needs ``cl-core[images]`` where there are
images; everything is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "contact_sheet": ["contact_sheet"],
        "page": ["explorer_block", "explorer_page"],
        "thumbnails": ["Picture", "thumbnails"],
    },
)
