"""Class maps of many scenes in a run directory: names, progress, what is written beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cl_core.commands.terminal import in_notebook, is_quiet
from cl_core.errors import InputError
from cl_core.runs import Run, write_atomic
from cl_remote_sensing.labels.legend import Legend
from cl_remote_sensing.mapping.area import AreaTable, area_table, count_rows
from cl_remote_sensing.mapping.job import MapJob
from cl_remote_sensing.mapping.polygons import write_polygons
from cl_remote_sensing.mapping.prediction import predictor
from cl_remote_sensing.mapping.quicklook import quicklook
from cl_remote_sensing.mapping.scene_map import MapResult, map_scene
from cl_remote_sensing.mapping.values import Codes, MapValues
from cl_remote_sensing.rasters.raster import Scene
from cl_remote_sensing.saved import SavedModel
from cl_remote_sensing.suited import scaling_of

__all__ = ["finish_map", "job_of", "legend_of", "map_names", "map_scenes", "pick_device"]


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
    job: MapJob,
    *,
    folder: str = "",
    shard: tuple[int, int] = (0, 1),
) -> list[MapResult]:
    """Map scenes one after the other into a run directory.

    Args:
        run: Where to; what is interrupted stays in it, to be resumed.
        model: A segmentation.
        scenes: As :func:`cl_remote_sensing.suited.suit` gives them.
        job: How to map; see :func:`job_of`.
        folder: Inside the run directory.
        shard: This process's number and how many share the work.

    Raises:
        InputError: As ``map_scene``.
    """
    from tqdm import tqdm

    results = []
    for scene, name in zip(scenes, map_names(scenes), strict=True):
        out = run.output(str(Path(folder, name)))
        out.parent.mkdir(parents=True, exist_ok=True)  # another process may be ahead of the first
        for other in _beside(out, shard[1]):
            run.output(str(Path(folder, other)))
        watched = sys.stderr.isatty() or in_notebook()
        hidden = shard[0] > 0 or is_quiet() or not watched
        with tqdm(desc=name, unit="window", disable=hidden) as bar:

            def show(done: int, total: int, bar: Any = bar) -> None:
                run.begun()  # what is mapped so far is worth resuming
                bar.total = total
                bar.update(done - bar.n)

            own = replace(job, normalization=scaling_of(scene, model))
            results.append(map_scene(own, scene, out, shard=shard, progress=show))
    return results


def job_of(
    model: SavedModel, *, codes: Codes = "legend", tile: int | None = None, **options: Any
) -> MapJob:
    """How a model maps.

    Args:
        model: A segmentation; goes to the device.
        codes: Values of the pixels.
        tile: Edge of a window in pixels; by default the training's.
        options: Others of :class:`~cl_remote_sensing.mapping.job.MapJob`; ``device`` may be
            ``auto``.

    Raises:
        InputError: If the device is not there.
    """
    device = pick_device(options.pop("device", "auto"))
    return MapJob(
        predict=predictor(model.network.to(device)),
        normalization=model.normalization,
        values=MapValues.of_legend(legend_of(model), codes),
        tile=tile or model.tile,
        device=device,
        model=model.weights,
        **options,
    )


def finish_map(
    run: Run, job: MapJob, scene: Scene, result: MapResult, *, polygons: bool = False
) -> AreaTable | None:
    """Write a picture and the areas of a map beside it, if this process was the last to finish it.

    Args:
        run: Where the map lies.
        job: How it was made.
        scene: The image.
        result: The map.
        polygons: Write it as polygons too.

    Returns:
        The areas; ``None`` if other processes still work on the map.
    """
    whole = len(result.row_counts) == scene.height
    if not whole and result.vrt is None:
        return None
    path = result.path if whole else result.vrt
    assert path is not None
    counts = result.row_counts if whole else count_rows(path, job.values)
    table = area_table(counts, scene, job.values.names)
    quicklook(path, run.output(f"{path.stem}.png"), scene=scene, values=job.values)
    with write_atomic(run.output(f"{path.stem}_areas.csv")) as beside:
        rows = zip(table.names, table.pixels, table.areas, table.shares(), strict=True)
        lines = [f"class,pixels,{table.unit},share"]
        lines += [
            f'"{name.replace(chr(34), chr(34) * 2)}",{pixels},{area:.4f},{share:.6f}'
            for name, pixels, area, share in rows
        ]
        beside.write_text("\n".join(lines) + "\n", "utf-8")
    if polygons:
        write_polygons(path, run.output(f"{path.stem}.gpkg"), job.values)
    return table


def _beside(out: Path, world: int) -> list[str]:
    """Names of what may lie beside a map: its parts, its probabilities, what was interrupted."""
    stems = [out.stem] if world == 1 else [f"{out.stem}_{k + 1}of{world}" for k in range(world)]
    names = [f"{stem}{kind}.tif" for stem in stems for kind in ("", "_probability")]
    names += [f"{name}.partial" for name in names]
    names += [f"{stem}.tif.aux.xml" for stem in stems]
    return [*names, f"{out.stem}.vrt", f"{out.stem}_probability.vrt"]


def legend_of(model: SavedModel) -> Legend:
    """The classes of a segmentation."""
    assert model.legend is not None
    return model.legend
