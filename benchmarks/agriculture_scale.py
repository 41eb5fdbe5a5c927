"""What 250,000 images cost: groups chosen by BIC, and the explorer's page in a browser.

    python benchmarks/agriculture_scale.py groups
    python benchmarks/agriculture_scale.py page --data SEEDLINGS_FOLDER

``groups`` runs `cl-agriculture cluster` on 250,000 x 128 drawn vectors (12 groups in 16 dimensions,
turned into 128, with noise), PCA, a mixture and BIC over 10 counts, and then `explore`, and tells
peak memory and CPU time. ``page`` opens a page of as many points, 20,000 of them with thumbnails,
in a headless Chromium, and tells the longest time that it did not answer: while it opens, while it
is dragged about, while it zooms, and while a word is searched. Each rewrites its part of
``benchmarks/results/agriculture_scale.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "agriculture_scale.md"
COUNTS = list(range(4, 14))


def draw(n: int, path: Path) -> None:
    """Write vectors of 12 groups."""
    rng = np.random.default_rng(0)
    centres, turn = rng.normal(0, 3, (12, 16)), rng.normal(size=(16, 128)) / 4
    spread = rng.uniform(0.5, 1.5, (12, 16))
    group = rng.integers(0, 12, n)
    x = np.empty((n, 128), dtype=np.float32)
    for start in range(0, n, 10_000):
        own = group[start : start + 10_000]
        low = centres[own] + spread[own] * rng.normal(size=(len(own), 16))
        x[start : start + 10_000] = low @ turn + 0.05 * rng.normal(size=(len(own), 128))
    np.save(path, x)


def run(words: list[str]) -> tuple[float, float]:
    """Run the program; give its CPU seconds and the peak memory in GB of all so far."""
    program = [sys.executable, "-m", "cl_agriculture.cli", *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, after.ru_maxrss / 2**20


def groups(options: Any, folder: Path) -> list[str]:
    draw(options.n, folder / "x.npy")
    words = ["cluster", "--vectors", str(folder / "x.npy"), "--out", str(folder / "groups")]
    words += ["--mixture.dimensions", "16", "--mixture.covariance", "full"]
    words += ["--mixture.counts", str(COUNTS), "--mixture.starts", str(options.starts)]
    cpu, memory = run(words)
    found = json.loads((folder / "groups" / "metrics.json").read_text())["metrics"]
    explored, peak = run(["explore", "--run", str(folder / "groups")])
    size = (folder / "groups" / "explore" / "explorer.html").stat().st_size / 1e6
    return [
        f"`cluster`: {options.n:,} x 128 vectors, 16 components, BIC over {len(COUNTS)} counts "
        f"({COUNTS[0]} to {COUNTS[-1]}, full covariances, {options.starts} starts): "
        f"{cpu:.0f} CPU s, peak memory {memory:.2f} GB (goal: 4 GB), {found['clusters']:.0f} "
        "groups chosen of the 12 drawn.",
        f"`explore` of it, without pictures: {explored:.0f} CPU s, peak memory of both "
        f"{peak:.2f} GB, page {size:.0f} MB.",
    ]


# Before the page's own script: every task of more than 50 ms.
WATCH = (
    "window.late = []; new PerformanceObserver(list => { for (const task of list.getEntries())"
    " window.late.push(task.duration); }).observe({type: 'longtask', buffered: true});"
)
PAUSE = "new Promise(done => setTimeout(() => requestAnimationFrame(done), 300))"


def page(options: Any, folder: Path) -> list[str]:
    from cl_core.report.explorer import explorer_page

    sys.path.insert(0, str(ROOT / "tests" / "core"))
    import test_explorer as driver

    rng = np.random.default_rng(0)
    group = rng.integers(0, 12, options.n)
    points = rng.normal(size=(options.n, 2)) + 4 * rng.normal(size=(12, 2))[group]
    files = [str(path) for path in sorted(options.data.rglob("*.jpg"))]
    pictures: list[str | None] = [None] * options.n
    for k, row in enumerate(rng.choice(options.n, options.pictures, replace=False).tolist()):
        pictures[row] = files[k % len(files)]
    start = time.process_time()
    path = explorer_page(
        folder / "explorer.html",
        {"components 1, 2": points},
        pictures if options.pictures else None,
        clusters=group,
        ids=[f"field {g}/{k:06d}.jpg" for k, g in enumerate(group.tolist())],
        columns={"ll": rng.normal(-20, 4, options.n), "flagged": rng.random(options.n) < 0.01},
    )
    written, size = time.process_time() - start, path.stat().st_size / 1e6
    late: dict[str, str] = {}
    with driver.browser(folder / "profile") as tab:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

        tab.call("Performance.enable", timeDomain="threadTicks")
        spent = 0.0

        def told(what: str) -> None:
            nonlocal spent
            tab.js(PAUSE)
            longest = max([*tab.js("window.late.splice(0)"), 0.0]) / 1000
            metrics = {m["name"]: m["value"] for m in tab.call("Performance.getMetrics")["metrics"]}
            late[what] = f"{longest:.2f} s ({metrics['TaskDuration'] - spent:.2f} CPU s in all)"
            spent = metrics["TaskDuration"]

        start = time.monotonic()
        tab.open(path)
        opened = time.monotonic() - start
        told("open")
        tab.mouse("mouseMoved", 500, 400)
        tab.mouse("mousePressed", 500, 400, button="left", clickCount=1)
        for k in range(1, 41):
            tab.mouse("mouseMoved", 500 + 6 * k, 400 + 3 * k, button="left")
        tab.mouse("mouseReleased", 740, 520, button="left", clickCount=1)
        told("pan")
        for _ in range(10):
            tab.call(
                "Input.dispatchMouseEvent", type="mouseWheel", x=600, y=400, deltaX=0, deltaY=-90
            )
        told("zoom")
        for k in range(20):
            tab.mouse("mouseMoved", 400 + 5 * k, 300 + 5 * k)
        told("point")
        if options.pictures:
            tab.js("document.querySelector('.explorer .tools .pictures').click()")
            told("pictures")
        tab.js("document.querySelector('.explorer input').focus()")
        for letter in "field 7":
            tab.key(letter, letter)
        told("search")
    told_all = ", ".join(f"{what} {seconds}" for what, seconds in late.items())
    return [
        f"Page of {options.n:,} points, {options.pictures:,} of them with a thumbnail: "
        f"{size:.0f} MB, written in {written:.0f} CPU s, open after {opened:.1f} s. Longest task "
        f"of the page (goal: 2 s): {told_all}.",
    ]


def main() -> None:
    """Measure a part and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("groups", "page"))
    parser.add_argument("--n", type=int, default=250_000)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--data", type=Path, help="folder of images for thumbnails")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "page" and options.data is None:
        parser.error("page needs --data")
    parts = sections(options.out)
    with tempfile.TemporaryDirectory() as folder:
        measured = {"groups": groups, "page": page}[options.what](options, Path(folder))
    parts[options.what] = "\n\n".join(measured)
    lines = [
        "# 250,000 images",
        "",
        f"{platform.machine()}, one thread of two shared cores, no graphics processor; "
        "`python benchmarks/agriculture_scale.py`",
    ]
    for name in sorted(parts):
        lines += ["", f"## {name.capitalize()}", "", parts[name]]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def sections(path: Path) -> dict[str, str]:
    """What the other part has left in the page."""
    if not path.is_file():
        return {}
    found = path.read_text("utf-8").split("\n## ")[1:]
    return {part.split("\n")[0].lower(): part.partition("\n")[2].strip() for part in found}


if __name__ == "__main__":
    main()
