"""k-means on any device with float64, over any number of ranks, in memory linear in the rows.

``kmeans`` clusters rows, ``assign`` finds the nearest centroid of rows that come later. The
assignment, where all the time goes, is one matrix product in tiles; ``benchmarks/kmeans.py``
compares it with faiss.
"""

from cl_core.kmeans._assign import assign
from cl_core.kmeans._lloyd import Clustering, kmeans

__all__ = [
    "Clustering",
    "assign",
    "kmeans",
]
