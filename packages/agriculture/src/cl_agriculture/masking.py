"""Whose masks a command uses: those of an option, of an earlier run, or of a model's rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cl_agriculture.attention.maker import MaskMaker
from cl_agriculture.attention.store import MaskStore
from cl_agriculture.data import Plants
from cl_agriculture.hyper import MaskHyper
from cl_core.errors import InputError
from cl_core.images import ImageTable
from cl_core.runs import Run
from cl_core.runs.record import IN_MEMORY

__all__ = ["FEW_MASKS", "STORE", "MaskSummary", "maker_of", "mask_summary", "remembered_maker"]

STORE = "masks"
"""Folder of masks in a run directory."""

COLUMN = "mask"
"""Of a manifest, where it names mask files."""

EXCESS_GREEN = "excess_green"
"""Asks for masks by colour although a manifest names files."""

FEW_MASKS = 0.2
"""Share of fallbacks above which the user is warned."""


class MaskSummary(NamedTuple):
    """The masks of some images in figures and in words."""

    metrics: dict[str, float]
    lines: list[str]


def maker_of(masks: Any, hyper: MaskHyper, table: ImageTable) -> tuple[MaskMaker, Path | None]:
    """Make the rule that an option asks for.

    Args:
        masks: ``None`` for the files in the manifest's column ``mask`` if it has one, else for
            excess green; the name of another column; ``excess_green``; a function; or a path: a
            folder of mask files, or a run of `mask`, whose settings and masks are then used.
        hyper: Settings, but for a run of `mask`.
        table: The images.

    Returns:
        The rule, and the folder of the masks that an earlier run left, if there is one.

    Raises:
        InputError: If there is nothing of the kind at the path, or images lack masks.
    """
    named = {name.lower(): name for name in table.columns}
    if masks is None and any(table.columns.get(named.get(COLUMN, ""), ())):
        masks = named[COLUMN]
    if masks is None or masks == EXCESS_GREEN:
        return MaskMaker(hyper), None
    if callable(masks):
        return MaskMaker(hyper, function=masks), None
    place = Path(masks)
    if str(masks).lower() in named and not place.is_dir():
        return MaskMaker.of_column(named[str(masks).lower()], table, hyper), None
    if not (place / "config.yaml").is_file():
        return MaskMaker.of_folder(place, table, hyper), None
    options = Run.open(place).config
    if not isinstance(options.get("mask"), Mapping) or "sheet" not in options:
        raise InputError(
            f"--masks {place}: is no run of cl-agriculture mask; give one, or a folder"
        )
    try:
        earlier = MaskHyper(**options["mask"])
    except ValueError as error:
        raise InputError(f"{place / 'config.yaml'} is damaged: {error}") from error
    own = options.get("masks")
    if isinstance(own, str) and own.startswith(IN_MEMORY):
        raise InputError(
            f"--masks {place}: its masks were made by a function in memory: hand over the function"
        )
    if own is None and any((place / STORE).glob(f"{EXCESS_GREEN}-*")):
        own = EXCESS_GREEN  # whatever this manifest's columns
    return maker_of(own, earlier, table)[0], place / STORE


def remembered_maker(
    rule: Mapping[str, Any], masks: Any, table: ImageTable
) -> tuple[MaskMaker, Path | None]:
    """Make masks by the rule a model was trained with.

    Args:
        rule: Of the model's card.
        masks: Where other images' masks come from; must make masks by the same rule.
        table: The images.

    Raises:
        InputError: If the rule needs files or a function that are not given, or what is given
            makes masks by another rule.
    """
    source = rule["source"]
    limits = {key: rule[key] for key in ("least_fraction", "most_fraction")}
    if masks is None and source == "excess_green":
        masks = EXCESS_GREEN
    filed = any(any(cells) for name, cells in table.columns.items() if name.lower() == COLUMN)
    if masks is None and not (source == "files" and filed):
        given = "the folder of these images' mask files" if source == "files" else "the function"
        raise InputError(
            f"the model was trained with masks ({source}), and images without masks are another "
            f"kind of input to it: give {given} as --masks"
        )
    hyper = MaskHyper(**limits)
    if source == "excess_green":
        hyper = MaskHyper(
            **limits,
            variant=rule["variant"],
            least_threshold=rule["least_threshold"],
            most_threshold=rule["most_threshold"],
            min_component=rule["min_component"],
            clean=rule["clean"],
        )
    maker, root = maker_of(masks, hyper, table)
    if maker.rule() != dict(rule):
        own = maker.rule()
        names = [k for k in {**rule, **own} if rule.get(k) != own.get(k)]
        first = names[0]
        raise InputError(
            f"--masks: these masks are made by another rule than the model's ({first} is "
            f"{own.get(first, 'absent')}, the model's {rule.get(first, 'absent')}): leave --masks "
            "out to make them by the model's rule, or train a model on such masks"
        )
    return maker, root


def mask_summary(plants: Plants) -> MaskSummary:
    """Count masks and fallbacks.

    Returns:
        ``mask_fraction`` (median over the images whose mask is used), ``mask_fallback`` and
        ``mask_fallback/REASON`` (shares), and lines with a warning if many fell back.
    """
    import numpy as np

    store = plants.store
    assert isinstance(store, MaskStore)
    records = [store.record(file) for file in plants.table.files]
    used = [record.fraction for record in records if not record.reason]
    reasons = [record.reason for record in records if record.reason]
    n = len(records)
    metrics = {"masks": float(n), "mask_fallback": len(reasons) / n}
    metrics |= {f"mask_fallback/{r}": reasons.count(r) / n for r in sorted(set(reasons))}
    if used:
        metrics["mask_fraction"] = float(np.median(used))
    told = ", ".join(f"{reasons.count(r):,} {r}" for r in sorted(set(reasons)))
    low, high = (min(used), max(used)) if used else (0.0, 0.0)
    lines = [
        f"masks: {len(used):,} of {n:,} used, plants cover {metrics.get('mask_fraction', 0):.1%} "
        f"in the median ({low:.1%} to {high:.1%})"
    ]
    if reasons:
        lines.append(f"whole image instead of its mask: {len(reasons):,} ({told})")
    if len(reasons) > FEW_MASKS * n:
        lines.append(
            f"warning: {len(reasons) / n:.0%} of the masks cannot be used. Yellow, red or dead "
            "plants and bluish leaves escape excess green: look at the sheet, try --mask.variant "
            "raw, or bring mask files (--masks)"
        )
    return MaskSummary(metrics, lines)
