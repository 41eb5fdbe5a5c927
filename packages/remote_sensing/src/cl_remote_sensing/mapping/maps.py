"""Class maps of many scenes in a run directory: names, progress, what is written beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_core.errors import InputError
from cl_core.runs import Run, write_atomic
from cl_remote_sensing.labels.legend import Legend
from cl_remote_sensing.mapping.area import AreaTable, area_table, count_rows
from cl_remote_sensing.mapping.prediction import predictor
from cl_remote_sensing.mapping.quicklook import quicklook
from cl_remote_sensing.mapping.scene_map import MapResult, map_scene
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.saved import SavedModel

__all__ = ["finish_map", "legend_of", "map_names", "map_scenes", "pick_device"]


def map_names(scenes: Sequence[Scene]) -> list[str]:
    """A file name a map: that of its scene, numbered where two are called the same."""
    names: list[str] = []
    for scene in scenes:
        stem = name = Path(scene.path).stem
        number = 2
        while name in names:
            name, number = f"{stem}_{number}", number + 1
        names.append(name)
    return [f"{name}.tif" for name in names]


def pick_device(name: str) -> str:
    """``auto`` is an accelerator if there is one.

    Raises:
        InputError: If the device is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--device {name}: {reason}") from error
    return name


def map_scenes(
    run: Run,
    model: SavedModel,
    scenes: Sequence[Scene],
    *,
    folder: str = "",
    tile: int | None = None,
    device: str = "auto",
    shard: tuple[int, int] = (0, 1),
    **options: Any,
) -> list[MapResult]:
    """Map scenes one after the other into a run directory.

    Args:
        run: Where to; what is interrupted stays in it, to be resumed.
        model: A segmentation.
        scenes: With the model's bands.
        folder: Inside the run directory.
        tile: Edge of a window in pixels; by default the training's.
        device: Where the model runs.
        shard: This process's number and how many share the work.
        options: Others of :func:`cl_remote_sensing.mapping.scene_map.map_scene`.

    Raises:
        InputError: As ``map_scene``.
    """
    from tqdm import tqdm

    assert model.legend is not None
    device = pick_device(device)
    predict = predictor(model.network.to(device))
    results = []
    for scene, name in zip(scenes, map_names(scenes), strict=True):
        out = run.output(str(Path(folder, name)))
        out.parent.mkdir(parents=True, exist_ok=True)  # another process may be ahead of the first
        for other in _beside(out, shard[1]):
            run.output(str(Path(folder, other)))
        with tqdm(desc=name, unit="window", disable=shard[0] > 0 or not sys.stderr.isatty()) as bar:

            def show(done: int, total: int, bar: Any = bar) -> None:
                run.begun()  # what is mapped so far is worth resuming
                bar.total = total
                bar.update(done - bar.n)

            results.append(
                map_scene(
                    predict,
                    scene,
                    model.normalization,
                    out,
                    classes=model.legend.names,
                    colors=model.legend.colors,
                    tile=tile or model.tile,
                    device=device,
                    shard=shard,
                    progress=show,
                    model_hash=model.weights,
                    **options,
                )
            )
    return results


def finish_map(run: Run, model: SavedModel, scene: Scene, result: MapResult) -> AreaTable | None:
    """Write a picture and the areas of a map beside it, if this process was the last to finish it.

    Returns:
        The areas; ``None`` if other processes still work on the map.
    """
    legend = legend_of(model)
    whole = len(result.row_counts) == scene.height
    if not whole and result.vrt is None:
        return None
    path = result.path if whole else result.vrt
    assert path is not None
    counts = result.row_counts if whole else count_rows(path, len(legend))
    table = area_table(counts, scene, legend.names)
    quicklook(
        path,
        run.output(f"{path.stem}.png"),
        scene=scene,
        classes=legend.names,
        colors=legend.colors,
    )
    with write_atomic(run.output(f"{path.stem}_areas.csv")) as beside:
        rows = zip(table.names, table.pixels, table.areas, table.shares(), strict=True)
        lines = [f"class,pixels,{table.unit},share"]
        lines += [f'"{name}",{pixels},{area:.4f},{share:.6f}' for name, pixels, area, share in rows]
        beside.write_text("\n".join(lines) + "\n", "utf-8")
    return table


def _beside(out: Path, world: int) -> list[str]:
    """Names of what may lie beside a map: its parts, its probabilities, what was interrupted."""
    stems = [out.stem] if world == 1 else [f"{out.stem}_{k + 1}of{world}" for k in range(world)]
    names = [f"{stem}{kind}.tif" for stem in stems for kind in ("", "_probability")]
    names += [f"{name}.partial" for name in names]
    return [*names, f"{out.stem}.vrt", f"{out.stem}_probability.vrt"]


def legend_of(model: SavedModel) -> Legend:
    """The classes of a segmentation."""
    assert model.legend is not None
    return model.legend
