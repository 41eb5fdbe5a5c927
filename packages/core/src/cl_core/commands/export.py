"""The verb ``export``: the model of a run as a folder that can be pushed to a model hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cl_core._version import __version__
from cl_core.commands.options import flat_options
from cl_core.commands.outcome import Outcome
from cl_core.commands.own import ExportConfig, Program
from cl_core.errors import InputError
from cl_core.runs import Run, write_atomic
from cl_core.runs.card import CARD, WEIGHTS, card_kind
from cl_core.runs.record import IN_MEMORY
from cl_core.tables.documents import read_json

__all__ = ["export"]

_README, _OPTIONS = "README.md", "training.json"

# Options that name places on this machine, or say how a command was called.
_PRIVATE = re.compile(r"(^|\.)(out|root|run|cache|weights|masks|trainer|seed_from)(\.|$)")

_LIMITS = (
    "Trained and measured on the data named above. Nothing is known of other data: measure it on "
    "yours, with labels that neither training nor choice has seen, before you rely on it. It is "
    "no product, and no medical device."
)


def export(program: Program, config: ExportConfig) -> Outcome:
    """Write weights, how to rebuild the model, its options and a card into ``config.hub``.

    Options that name places on this machine are left out. Nothing is sent anywhere.

    Args:
        program: Whose ``load`` reads the folder.
        config: The run and the folder.

    Returns:
        The figures of the run.

    Raises:
        InputError: If the run has no model of this program, or the folder holds something.
    """
    run, hub = Run.open(config.run), config.hub.expanduser()
    kind = card_kind(run.path)
    if hub.exists() and (not hub.is_dir() or any(hub.iterdir())):
        raise InputError(f"--hub {hub} is not empty: give another folder")
    weights = (run.path / WEIGHTS).read_bytes()
    card = read_json(run.path / CARD)
    if hashlib.sha256(weights).hexdigest() != card.get("weights_sha256"):
        raise InputError(f"{run.path / WEIGHTS} is not the file that {CARD} describes")
    metrics = run.metrics() if (run.path / "metrics.json").is_file() else {}
    options = dict(_public(run.config))
    package = program.name.replace("-", "_")
    files: dict[str, bytes] = {
        WEIGHTS: weights,
        CARD: (run.path / CARD).read_bytes(),
        _OPTIONS: (json.dumps(options, indent=2) + "\n").encode(),
        _README: _readme(program, config, kind, package, metrics, options).encode(),
    }
    hub.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with write_atomic(hub / name) as temporary:
            temporary.write_bytes(content)
    told = {name: value for name, value in metrics.items() if value is not None}
    size = sum(map(len, files.values())) / 1e6
    line = f"{kind}, {size:.1f} MB: {', '.join(files)}"
    return Outcome(out=hub, metrics=told, lines=[line], files=[_README])


def _public(options: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The options that may be told; of the data the last part of its place."""
    for name, value in flat_options(options).items():
        if _PRIVATE.search(name) or value is None:
            continue
        if isinstance(value, str) and not value.startswith(IN_MEMORY) and "/" in value:
            value = value.rstrip("/").rpartition("/")[2]
        yield name, value


def _readme(
    program: Program,
    config: ExportConfig,
    kind: str,
    package: str,
    metrics: Mapping[str, float | None],
    options: Mapping[str, object],
) -> str:
    name = config.name or config.hub.name
    method = options.get("method", options.get("mode", kind))
    front = {
        "license": config.license,
        "library_name": program.name,
        "tags": ["contrastive-learning", package, str(method)],
    }
    figures = [
        f"| {_cell(figure)} | {'undefined' if value is None else f'{value:.4g}'} |"
        for figure, value in metrics.items()
    ]
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        "",
        f"# {_cell(name)}",
        "",
        f"A {kind}, made by {program.name} {__version__} from the data `{options.get('data')}`.",
        "",
        "```python",
        f"import {package}",
        "",
        f'model = {package}.load("{config.hub.name}")',
        "```",
        "",
        f"`load` takes the folder; it needs `pip install {program.name}` and no network.",
        "",
        "## Figures",
        "",
        *(["| figure | value |", "|---|---|", *figures] if figures else ["None were recorded."]),
        "",
        "## Data and training",
        "",
        *(f"- `{_cell(key)}`: {_cell(str(value))}" for key, value in options.items()),
        "",
        "## Limits",
        "",
        _LIMITS,
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text of a user's that is text in Markdown, too."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))
