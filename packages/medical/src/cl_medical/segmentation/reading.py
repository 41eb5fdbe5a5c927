"""A manifest from wherever a user keeps it: a file, a folder, memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_core.runs.fingerprint import Fingerprint, of_files
from cl_core.tables.documents import read_json, read_yaml
from cl_medical.segmentation.conventions import read_folder
from cl_medical.segmentation.manifest import Manifest, is_volume
from cl_medical.segmentation.parsing import parse_manifest

__all__ = ["MANIFEST", "fingerprint_of", "open_manifest", "read_manifest"]

MANIFEST = "manifest.json"
"""The data of a run with every case in its split, as `evaluate` reads them."""


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest file, or folders that follow a convention.

    Args:
        path: A ``.yaml``, ``.yml`` or ``.json`` file, or a folder with a manifest in it, of a
            Medical Segmentation Decathlon or nnU-Net data set, in the BIDS layout, or of several
            such folders.

    Returns:
        The manifest; what its files hold has not been looked at.

    Raises:
        InputError: If there is nothing of the kind.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"--data {path}: not found; give a manifest or a folder of a data set")
    if path.is_dir():
        for name in ("manifest.yaml", "manifest.yml", "manifest.json"):
            if (path / name).is_file():
                return read_manifest(path / name)
        return read_folder(path)
    if is_volume(path):
        raise InputError(
            f"--data {path} is one volume: give a manifest (.yaml or .json) or a folder of a data "
            "set"
        )
    content = read_json(path) if path.suffix.lower() == ".json" else read_yaml(path)
    return parse_manifest(content, base=path.parent, source=str(path))


def open_manifest(data: Any, domains: str | None) -> Manifest:
    """Read a manifest, or take one in memory, and some of its domains.

    Raises:
        InputError: If there is none, or a domain is not in it.
    """
    manifest = data if isinstance(data, Manifest) else read_manifest(Path(str(data)))
    if domains is None:
        return manifest
    names = [name.strip() for name in domains.split(",") if name.strip()]
    chosen = manifest.only(names)
    kept = [p for p in manifest.problems if p.domain in names or not p.domain]
    return replace(chosen, problems=tuple(kept))


def fingerprint_of(manifest: Manifest) -> Fingerprint:
    """Tells whether a run is resumed on its data."""
    return of_files([file for file in manifest.files() if file.is_file()])
