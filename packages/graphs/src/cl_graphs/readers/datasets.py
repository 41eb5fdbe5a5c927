"""Named node-classification graphs, read offline from the files their authors published.

Raw files are read directly and without running anything that is in them: nothing is written next to
them, so a read-only folder works, and no ``processed/`` cache can go stale or hold a pickle.
Features are left as published (0/1 for most sets), never normalised unless asked.

Sources: Planetoid (Yang et al. 2016), Amazon and Coauthor (Shchur et al. 2018), Facebook and
LastFM Asia (Rozemberczki et al. 2019, 2020); class order and cleaning follow PyTorch Geometric.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_core.errors import InputError
from cl_core.tables.arrays import read_arrays, readable
from cl_graphs.graph import AttributedGraph, make_graph
from cl_graphs.readers.arrays import csr_matrix

__all__ = ["NAMED_GRAPHS", "NamedGraph", "digits", "fetch", "load_named", "raw_folder"]


@dataclass(frozen=True, kw_only=True)
class NamedGraph:
    """Where a named graph lies and how it is read.

    Attributes:
        folder: Its folder below the root, which holds ``raw/``.
        files: Names of the raw files.
        read: Builds the graph from the raw folder.
        loader: PyG's class that knows where to download it, and the name it goes by there.
    """

    folder: str
    files: tuple[str, ...]
    read: Callable[[Path, str, bool], AttributedGraph]
    loader: tuple[str, str | None]


def load_named(
    name: str, root: str | Path | None, *, normalize_features: bool = False, download: bool = False
) -> AttributedGraph:
    """Load a graph of `NAMED_GRAPHS`, or ``digits``, which needs no files.

    Args:
        name: Exact name, as in `NAMED_GRAPHS`.
        root: Folder with ``<name>/raw/<files>`` (PyG's layout); the set's own folder or the one
            with the files is understood too. Only ever written to by a download.
        normalize_features: Divide each feature row by its sum.
        download: Fetch missing files into ``root`` with PyG's downloader.

    Raises:
        InputError: If the files are not there and may not be fetched, or cannot be read.
    """
    if name == "digits":
        return digits(normalize_features=normalize_features)
    known = NAMED_GRAPHS[name]
    if root is None:
        raise InputError(
            f"{name} is read from files: give --root DIR, the folder that holds "
            f"{known.folder}/raw/{known.files[0]}"
        )
    raw = raw_folder(Path(root), known.folder, known.files)
    if raw is None and download:
        class_name, name_there = known.loader
        place = Path(root) if name_there else Path(root) / known.folder
        raw = fetch(class_name, name_there, place)
    if raw is None:
        more = f" and {len(known.files) - 1} more files" if len(known.files) > 1 else ""
        raise InputError(
            f"{name} is not in {root}: expected {known.folder}/raw/{known.files[0]}{more} there; "
            "correct --root, or add --download true to fetch it"
        )
    return known.read(raw, name, normalize_features)


def raw_folder(root: Path, folder: str, files: tuple[str, ...]) -> Path | None:
    """Return the folder at or below ``root`` that holds all ``files``, if there is one."""
    for place in (root / folder / "raw", root / "raw", root):
        if all((place / file).is_file() for file in files):
            return place
    return None


def digits(*, neighbours: int = 8, normalize_features: bool = False) -> AttributedGraph:
    """Join scikit-learn's handwritten digits to their nearest neighbours.

    1,797 images of 8 x 8 pixels in 10 classes; features are the 64 grey values scaled to [0, 1].
    An edge joins two images if either is among the other's ``neighbours`` nearest by Euclidean
    distance of the pixels (labels play no part), of equally near ones the first. With 8, 96 % of
    the 9,929 edges join equal digits. Distances are computed in whole numbers, so that the graph is
    the same on every machine.
    """
    from sklearn.datasets import load_digits

    pixels, y = load_digits(return_X_y=True)
    product = pixels @ pixels.T  # whole numbers below 2^53, exact in any order of summation
    length = np.diagonal(product)
    distance = length[:, None] + length - 2 * product
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argsort(axis=1, kind="stable")[:, :neighbours]
    source = np.repeat(np.arange(len(pixels)), neighbours)
    graph = make_graph(
        "digits", pixels / 16, source, nearest.ravel(), y=y, normalize_features=normalize_features
    )
    note = f"edges join each image to its {neighbours} nearest, in either direction"
    return AttributedGraph(**{**vars(graph), "notes": (note,)})


def _read_planetoid(raw: Path, name: str, normalize: bool) -> AttributedGraph:
    """Put the training, remaining and test rows of a citation graph in their published order."""
    import scipy.sparse as sp

    prefix = f"ind.{name.lower()}"
    tx, allx, ty, ally, neighbours = (
        _unpickle(raw / f"{prefix}.{part}") for part in ("tx", "allx", "ty", "ally", "graph")
    )
    with readable(raw / f"{prefix}.test.index", "the published files"):
        test = np.loadtxt(raw / f"{prefix}.test.index", dtype=np.int64)
        first, num_nodes = int(test.min()), int(test.max()) + 1
        place = np.sort(test) - first
        # CiteSeer: test numbers with gaps. The nodes in the gaps have no features, edges or label.
        spread = sp.csr_matrix(
            (np.ones(len(test)), (place, np.arange(len(test)))), (num_nodes - first, len(test))
        )
        x = sp.vstack([allx, spread @ tx]).tolil()
        onehot = np.vstack([ally, spread @ ty])
        x[test], onehot[test] = x[np.sort(test)], onehot[np.sort(test)]
        lengths = [len(ends) for ends in neighbours.values()]
        source = np.repeat(np.fromiter(neighbours, np.int64), lengths)
        target = np.fromiter((end for ends in neighbours.values() for end in ends), np.int64)
        trained = len(_unpickle(raw / f"{prefix}.y"))
        # The public split of Yang et al.: 20 nodes a class, the 500 after them, the test nodes.
        splits = {
            "train": torch.arange(trained),
            "val": torch.arange(trained, min(trained + 500, first)),
            "test": torch.from_numpy(np.sort(test)),
        }
    missing = int((onehot.sum(axis=1) == 0).sum())
    notes = [f"nodes without a published label, class 0 as usual: {missing}"] if missing else []
    return make_graph(
        name,
        x.tocsr(),
        source,
        target,
        y=onehot.argmax(axis=1),
        notes=notes,
        splits=splits,
        normalize_features=normalize,
    )


def _read_benchmark(raw: Path, name: str, normalize: bool) -> AttributedGraph:
    """Read the npz of an Amazon or Coauthor graph; word counts become 0/1 as in PyG."""
    path = raw / NAMED_GRAPHS[name].files[0]
    arrays = read_arrays(path)
    with readable(path, f"the published {name}"):
        x, edges = csr_matrix(arrays, "attr_"), csr_matrix(arrays, "adj_").tocoo()
        x.data = (x.data > 0).astype(np.float32)
        y = arrays["labels"]
    return make_graph(name, x, edges.row, edges.col, y=y, normalize_features=normalize)


def _read_musae(raw: Path, name: str, normalize: bool) -> AttributedGraph:
    """Read the npz of the Facebook or LastFM Asia graph: dense features, edge pairs, classes."""
    path = raw / NAMED_GRAPHS[name].files[0]
    arrays = read_arrays(path)
    with readable(path, f"the published {name}"):
        x, (source, target), y = arrays["features"], arrays["edges"].T, arrays["target"]
    return make_graph(name, x, source, target, y=y, normalize_features=normalize)


class _ArraysOnly(pickle.Unpickler):
    """Reads the Planetoid pickles and nothing else: plain containers that cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        import scipy.sparse

        module = module.replace("__builtin__", "builtins")
        module = module.replace("numpy._core", "numpy.core").replace("sparse._csr", "sparse.csr")
        allowed = {
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": np.dtype,
            "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
            "scipy.sparse.csr.csr_matrix": scipy.sparse.csr_matrix,
            "collections.defaultdict": defaultdict,
            "builtins.list": list,
        }
        try:
            return allowed[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}") from None


def _unpickle(file: Path) -> Any:
    with readable(file, "a published array"):
        found = _ArraysOnly(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        if hasattr(found, "check_format"):
            found.check_format(full_check=True)  # an index that points outside would crash later
        return found


def fetch(loader: str, name: str | None, root: Path) -> Path:
    """Download raw files with PyG's downloader, and nothing more than that.

    Args:
        loader: The class of `torch_geometric.datasets` that knows the address.
        name: What the set is called there; None for a class of one set.
        root: Where PyG makes its folders.

    Returns:
        The folder with the raw files.

    Raises:
        InputError: If that fails, for whatever reason.
    """
    import torch_geometric.datasets

    dataset = getattr(torch_geometric.datasets, loader)
    fetcher = dataset.__new__(dataset)  # the constructor would go on to unpickle and process
    fetcher.root, fetcher.name, fetcher.split, fetcher.cleaned = str(root), name, "public", False
    try:
        fetcher._download()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"download of {name or loader} into {root} failed: {reason}") from error
    return Path(fetcher.raw_dir)


def _planetoid(name: str) -> NamedGraph:
    parts = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    files = tuple(f"ind.{name.lower()}.{part}" for part in parts)
    return NamedGraph(folder=name, files=files, read=_read_planetoid, loader=("Planetoid", name))


def _npz(
    name: str,
    file: str,
    read: Callable[[Path, str, bool], AttributedGraph],
    loader: tuple[str, str | None],
) -> NamedGraph:
    return NamedGraph(folder=name, files=(file,), read=read, loader=loader)


NAMED_GRAPHS: dict[str, NamedGraph] = {
    "Cora": _planetoid("Cora"),
    "CiteSeer": _planetoid("CiteSeer"),
    "PubMed": _planetoid("PubMed"),
    "Computers": _npz(
        "Computers", "amazon_electronics_computers.npz", _read_benchmark, ("Amazon", "computers")
    ),
    "Photo": _npz("Photo", "amazon_electronics_photo.npz", _read_benchmark, ("Amazon", "photo")),
    "CS": _npz("CS", "ms_academic_cs.npz", _read_benchmark, ("Coauthor", "cs")),
    "Physics": _npz("Physics", "ms_academic_phy.npz", _read_benchmark, ("Coauthor", "physics")),
    "Facebook": _npz("Facebook", "facebook.npz", _read_musae, ("FacebookPagePage", None)),
    "LastFMAsia": _npz("LastFMAsia", "lastfm_asia.npz", _read_musae, ("LastFMAsia", None)),
}
