"""Robustness of ARIEL and GRACE on Cora, through the command line.

    uv run python benchmarks/graph_robustness.py --root DATA --work runs/accuracy

Uses the runs of graph_accuracy.py (and makes them where they are missing): the recipe's seed, the
whole graph, then its largest component under a published poisoning attack.
"""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from pathlib import Path

from cl_graphs.cli import main as cl_graphs


def command(*words: str) -> list[str]:
    """Run a command and return the lines it prints."""
    with redirect_stdout(io.StringIO()) as text:
        if cl_graphs(list(words)) != 0:
            raise SystemExit(f"cl-graphs {' '.join(words)} failed")
    return text.getvalue().splitlines()


def main() -> None:
    """Run what is asked and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of PyG data sets and poisoned/")
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/graph_robustness.md"))
    options = parser.parse_args()
    runs = {}
    for method in ("ariel", "grace"):
        runs[method] = str(options.work / f"cora-{method}-4")
        if not Path(runs[method], "model.safetensors").exists():
            recipe = ["--recipe", "cora", "--method", method, "--out", runs[method]]
            command("pretrain", "--data", "Cora", "--root", options.root, *recipe)
    both = ["--run", runs["ariel"], "--baseline", runs["grace"], "--overwrite"]
    lines = [
        "# Robustness on Cora",
        "",
        "Accuracy in per cent (mean ± standard deviation over 10 splits) of classifiers that",
        "learnt on embeddings of the clean graph, one training seed (4) of each model; strengths",
        "are shares of the edges, or the largest change of a feature value.",
        "",
        "`python benchmarks/graph_robustness.py`",
    ]
    poisoned = str(Path(options.root) / "poisoned" / "cora_metattack.npz")
    for title, extra in (
        ("The whole graph", []),
        ("Largest component, also as poisoned by Metattack", ["--poisoned", poisoned]),
    ):
        out = ["--out", str(options.work / ("robust-poisoned" if extra else "robust"))]
        printed = command("robustness", *both, *extra, *out)
        lines += ["", f"## {title}", "", "```", *printed[:-1], "```"]
    options.out.write_text("\n".join(lines) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
