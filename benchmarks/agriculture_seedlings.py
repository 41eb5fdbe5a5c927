"""CLAWS, its ablations and what they are good for on real seedlings, by the commands' functions.

    python benchmarks/agriculture_seedlings.py run --data SEEDLINGS/labels.csv --seeds 0 1 2
    python benchmarks/agriculture_seedlings.py page

``run`` trains each arm at the recipe ``seedlings`` (64 pixels, a residual network of 0.31 million
parameters, 30 epochs) and groups it by ``seedlings-groups`` (12 full components on 16 principal
components of the representation, fitted to the training images, measured on the test images).

--labels missing-30, wrong-10   trains with that share of the weak labels removed or exchanged. The
                                groups are compared with the true labels all the same, and the doubt
                                about the given label of a training image with whether it is wrong.
--labels late-10                exchanges them after the training, which saw the right ones.
--held Maize                    trains and fits without a species, and asks how well the
                                log-likelihood tells its test images from the others.
--labels inner                  leaves the test images out and measures on a fifth of the training
                                images: what a recipe may be chosen by.
--bic                           lets BIC choose the number of groups as well.

Every finished training leaves its figures in ``--work``, so that a stopped benchmark goes on, and
``page`` writes all that are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_agriculture import ClusterConfig, MaskConfig, PretrainConfig, cluster, mask, pretrain
from cl_agriculture.groups import label_figures
from cl_agriculture.options import MODES
from cl_core.config import TrainerConfig

RESULTS = Path(__file__).parent / "results" / "agriculture_seedlings.md"
FIGURES = ("nmi", "ari", "ami", "purity", "silhouette", "knn_accuracy")
Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def manifest_of(options: Any, seed: int) -> tuple[Path, list[Row]]:
    """Write the manifest to train on, beside the true labels, and give its rows."""
    rows = rows_of(options.data)
    classes = sorted({row["label"] for row in rows})
    for row in rows:
        row["true"] = row["label"]
    what, _, share = options.labels.partition("-")
    rng = np.random.default_rng(seed)
    train = [row for row in rows if row["split"] == "train"]
    if what == "inner":
        rows = train
        for place in rng.permutation(len(train))[: len(train) // 5]:
            train[place]["split"] = "test"
    if what in ("missing", "wrong", "late"):
        for place in rng.permutation(len(train))[: round(float(share) / 100 * len(train))]:
            own = classes.index(train[place]["label"])
            other = classes[(own + int(rng.integers(1, len(classes)))) % len(classes)]
            train[place]["label"] = "" if what == "missing" else other
    if options.held:
        rows = [row for row in rows if row["label"] != options.held or row["split"] == "test"]
    path: Path = options.work / f"{name_of(options, seed)}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ("image", "label", "split", "true"))
        table.writeheader()
        table.writerows(rows)
    return path, rows


def name_of(options: Any, seed: int) -> str:
    parts = [options.arm, options.recipe, options.labels, options.held, str(seed)]
    return "_".join(parts)


def measure(options: Any, seed: int) -> None:
    """Train and group once, unless it has been done."""
    done: Path = options.work / f"{name_of(options, seed)}.json"
    if done.is_file():
        figures: dict[str, float] = json.loads(done.read_text())["figures"]
    else:
        figures = trained_figures(options, seed)
    if options.bic and "bic_clusters" not in figures:
        out = options.work / name_of(options, seed)
        chosen = ClusterConfig(
            run=out, out=out / "bic", mixture={"starts": 3}, seed=seed, overwrite=True
        )
        own = cluster(chosen).metrics
        figures |= {f"bic_{name}": float(own[name]) for name in ("clusters", "nmi", "purity")}
    done.write_text(json.dumps({"setting": setting_of(options, seed), "figures": figures}))


def trained_figures(options: Any, seed: int) -> dict[str, float]:
    """Train an arm, group it, and give its figures."""
    start = time.process_time()
    out = options.work / name_of(options, seed)
    data, rows = manifest_of(options, seed)
    common: dict[str, Any] = {"seed": seed, "overwrite": True}
    if options.labels.startswith("late"):
        whole = options.work / name_of(
            argparse.Namespace(**{**vars(options), "labels": "all"}), seed
        )
        late = ClusterConfig(
            recipe="seedlings-groups",
            run=whole,
            data=str(data),
            root=options.data.parent,
            masks=str(shared_masks(options)) if MODES[options.arm][1] else None,
            out=out,
            **common,
        )
        cluster(late)
        return against_truth(out / "assignments.csv", rows, options)
    trial = {} if options.epochs is None else {"epochs": options.epochs}
    trained = pretrain(
        PretrainConfig(
            recipe=options.recipe,
            mode=options.arm,
            data=str(data),
            root=options.data.parent,
            masks=str(shared_masks(options)) if MODES[options.arm][1] else None,
            out=out,
            cache=options.work / "cache",
            trainer=TrainerConfig(accelerator="cpu", devices=1, tensorboard=False, progress=False),
            **common,
            **trial,
        )
    )
    groups: dict[str, Any] = {"recipe": "seedlings-groups", "run": out, **common}
    if options.held:
        groups["clusters"] = len({row["true"] for row in rows}) - 1
    found = cluster(ClusterConfig(**groups)).metrics
    figures = {name: float(found[name]) for name in FIGURES if name in found}
    figures["knn_accuracy"] = float(trained.metrics["knn_accuracy"])
    figures |= against_truth(out / "cluster" / "assignments.csv", rows, options)
    return figures | {"cpu_s": time.process_time() - start}


def against_truth(path: Path, rows: Sequence[Row], options: Any) -> dict[str, float]:
    """Groups, doubt and oddity of ``assignments.csv`` beside the true labels."""
    from sklearn.metrics import roc_auc_score

    assigned = rows_of(path)
    truth = {row["image"]: row["true"] for row in rows}
    true = [truth[row["file"]] for row in assigned]
    figures: dict[str, float] = {}
    test = [k for k, row in enumerate(assigned) if row["split"] == "test"]
    if options.labels.startswith(("missing", "wrong", "late")):
        number = {name: k for k, name in enumerate(sorted(set(true)))}
        labels = np.array([number[true[k]] for k in test])
        found = label_figures(labels, np.array([int(assigned[k]["cluster"]) for k in test]))
        figures |= {name: found[name] for name in FIGURES if name in found}
    if options.labels.startswith(("wrong", "late")):
        train = [k for k, row in enumerate(assigned) if row["split"] == "train"]
        wrong = np.array([assigned[k]["label"] != true[k] for k in train])
        doubt = np.array([float(assigned[k]["doubt"]) for k in train])
        figures["doubt_auroc"] = float(roc_auc_score(wrong, doubt))
        first = np.argsort(-doubt, kind="stable")[: int(wrong.sum())]
        figures["doubt_precision"] = float(wrong[first].mean())
    if options.held:
        odd = [true[k] == options.held for k in test]
        ll = [float(assigned[k]["ll"]) for k in test]
        figures["odd_auroc"] = float(roc_auc_score(odd, -np.array(ll)))
    return figures


def shared_masks(options: Any) -> Path:
    """Make the masks once for all trainings."""
    out: Path = options.work / "masks"
    if not (out / "metrics.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        mask(MaskConfig(data=str(options.data), out=out, cache=options.work / "cache"))
    return out


def setting_of(options: Any, seed: int) -> dict[str, Any]:
    names = ("arm", "recipe", "labels", "held")
    return {name: getattr(options, name) for name in names} | {"seed": seed}


# the page


def cell(values: Sequence[float]) -> str:
    """Mean and, of several seeds, the standard deviation."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def table(
    lines: list[str],
    head: str,
    groups: Mapping[str, list[dict[str, Any]]],
    figures: Iterable[str],
) -> None:
    """A row a group of trainings: seeds, then mean and standard deviation of each figure."""
    figures = list(figures)
    lines += ["", f"| {head} | seed numbers | " + " | ".join(figures) + " |"]
    lines.append("|---" * (len(figures) + 2) + "|")
    for name, own in groups.items():
        seeds = ", ".join(str(one["setting"]["seed"]) for one in own)
        cells = [cell([one["figures"][f] for one in own if f in one["figures"]]) for f in figures]
        lines.append(f"| {name} | {seeds} | {' | '.join(cells)} |")


def page(options: Any) -> None:
    """Write what has been measured so far."""
    found = [json.loads(path.read_text()) for path in sorted(options.work.glob("*_*.json"))]
    by: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(found, key=lambda one: one["setting"]["seed"]):
        s = one["setting"]
        name = MODES[s["arm"]][2]
        if s["held"]:
            by["held"][s["held"].replace("_", " ")].append(one)
        elif s["labels"] == "inner":
            by["inner"][f"{name}, {s['recipe']}"].append(one)
        elif s["labels"] != "all":
            what, _, share = s["labels"].partition("-")
            told = {"late": "wrong, exchanged after the training"}.get(what, what)
            by["labels"][f"{name}, {share} % {told}"].append(one)
        elif s["recipe"] != "seedlings":
            by["stronger"][f"{name}, {s['recipe']}"].append(one)
        else:
            by["arms"][name].append(one)
    lines = [
        "# CLAWS on seedlings",
        "",
        "1,397 training and 598 test images of 12 species. Recipe `seedlings` (64 pixels, a "
        "residual network of 0.31 million parameters, 30 epochs), then 12 full components on 16 "
        "principal components, fitted to the training images; figures of the test images, mean "
        "± standard deviation over the seeds.",
        f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, one thread of two shared "
        "cores; `python benchmarks/agriculture_seedlings.py`",
    ]
    if by["arms"]:
        lines += ["", "## Arms"]
        table(lines, "method", by["arms"], FIGURES)
        lines += ["", "Each seed: " + "; ".join(each_seed(by["arms"])) + "."]
        chosen = {
            name: own
            for name, runs in by["arms"].items()
            if (own := [one for one in runs if "bic_clusters" in one["figures"]])
        }
        if chosen:
            lines += ["", "## The number of groups chosen by BIC (2 to 17, four covariances)"]
            table(lines, "method", chosen, ("bic_clusters", "bic_nmi", "bic_purity"))
    if by["labels"]:
        lines += ["", "## Weak labels missing or wrong", ""]
        lines.append(
            "Compared with the true labels. `doubt_auroc`: how well the doubt tells the exchanged "
            "labels of the training images from the others; `doubt_precision`: share of exchanged "
            "labels among as many of the most doubtful as were exchanged. kNN: neighbours vote "
            "with the labels as given."
        )
        table(lines, "labels", by["labels"], (*FIGURES, "doubt_auroc", "doubt_precision"))
    if by["held"]:
        lines += ["", "## A species held out", ""]
        lines.append(
            "Trained and fitted to the other eleven; `odd_auroc`: how well the log-likelihood "
            "tells its test images from the others'."
        )
        table(lines, "species", by["held"], ("odd_auroc", "nmi"))
        values = [one["figures"]["odd_auroc"] for own in by["held"].values() for one in own]
        lines += ["", f"Mean {statistics.fmean(values):.3f} over {len(values)} trainings."]
    if by["inner"] or by["stronger"]:
        lines += ["", "## A stronger recipe", ""]
        lines.append("Chosen by a fifth of the training images, without the test images:")
        table(lines, "recipe", by["inner"], (*FIGURES, "cpu_s"))
        if by["stronger"]:
            lines += ["", "On the test images:"]
            table(lines, "recipe", by["stronger"], (*FIGURES, "cpu_s"))
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(dict(Counter(one["setting"]["labels"] for one in found)))


def each_seed(arms: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    return [
        f"{name} NMI " + ", ".join(f"{one['figures']['nmi']:.3f}" for one in own)
        for name, own in arms.items()
    ]


def main() -> None:
    """Train what is asked, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--data", type=Path, help="manifest with image, label, split")
    parser.add_argument("--arms", nargs="+", default=["claws", "supervised", "mask_only", "simclr"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labels", nargs="+", default=["all"])
    parser.add_argument("--held", nargs="+", default=[""])
    parser.add_argument("--recipe", default="seedlings")
    parser.add_argument("--epochs", type=int, help="other than the recipe's, for a trial")
    parser.add_argument("--bic", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/agriculture_seedlings"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "page":
        page(options)
        return
    if options.data is None:
        parser.error("run needs --data")
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for arm in options.arms:
            for labels in options.labels:
                for held in options.held:
                    one = {"arm": arm, "labels": labels, "held": held}
                    measure(argparse.Namespace(**{**vars(options), **one}), seed)


if __name__ == "__main__":
    main()
