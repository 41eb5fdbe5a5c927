"""The commands end to end on small phantoms, and what they say to bad input."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from volume_files import TINY, manifest

from cl_medical.cli import main


def test_train_writes_a_run_with_the_figures_of_its_structures(made):
    record = json.loads((made["run"] / "metrics.json").read_text())["metrics"]
    for name in ("dice", "domain_silhouette", "knee/dice", "knee/tibia/dice", "hand/bone/hd95"):
        assert name in record
    for figure in ("hd95", "assd", "n", "n_failed"):
        assert f"knee/femur/{figure}" in record
    assert record["knee/femur/n"] == 1
    for name in ("cases.csv", "summary.csv", "summary.json", "report.html", "model.json"):
        assert (made["run"] / name).is_file()
    card = json.loads((made["run"] / "model.json").read_text())
    assert [d["name"] for d in card["domains"]] == ["knee", "hand"]


def test_evaluate_matches_domains_by_name_whatever_their_order(made):
    other = manifest(made["folder"], "other.yaml", hand=made["hand"], knee=made["knee"])
    assert main(["segment", "evaluate", "--run", str(made["run"])]) == 0
    out = made["folder"] / "swapped"
    arguments = ["--run", made["run"], "--data", other, "--out", out, "--against"]
    assert main(["segment", "evaluate", *map(str, arguments), str(made["run"] / "evaluate")]) == 0
    first = json.loads((made["run"] / "evaluate" / "metrics.json").read_text())["metrics"]
    second = json.loads((out / "metrics.json").read_text())["metrics"]
    assert {name: second[name] for name in first} == first
    assert second["against/all/p"] == 1.0
    assert (out / "overlays.png").read_bytes().startswith(b"\x89PNG")


def test_extend_leaves_the_masks_of_old_domains_as_they_were(made, refused):
    out = made["folder"] / "extended"
    new = ["--data", made["new"], "--run", made["run"], "--out", out, "--batch_size", 4]
    small = ["--steps", 3, "--epochs", 2, "--trainer.accelerator", "cpu"]
    quiet = ["--trainer.tensorboard", "false", "--trainer.progress", "false"]
    assert main(["segment", "extend", *map(str, [*new, *small, *quiet])]) == 0
    record = json.loads((out / "metrics.json").read_text())["metrics"]
    assert 0 < record["trained_share"] < 0.1
    assert "hip/femur/dice" in record
    for run, name in ((made["run"], "before"), (out, "after")):
        masks = [
            "--data",
            made["data"],
            "--masks",
            "--split",
            "all",
            "--out",
            made["folder"] / name,
        ]
        assert main(["segment", "evaluate", "--run", str(run), *map(str, masks)]) == 0
    for file in sorted((made["folder"] / "before" / "masks").rglob("*.nii.gz")):
        twin = made["folder"] / "after" / file.relative_to(made["folder"] / "before")
        assert np.array_equal(
            np.asanyarray(nib.load(file).dataobj), np.asanyarray(nib.load(twin).dataobj)
        )
    taken = [*new[2:4], "--data", made["data"], "--domains", "hand", "--out", out / "again"]
    assert "has a domain hand already" in refused("extend", *taken)


@pytest.mark.parametrize("mode", ["individual", "transfer"])
def test_networks_of_single_domains_are_one_run(made, mode, refused):
    out = made["folder"] / mode
    arguments = ["--data", made["data"], "--out", out, "--mode", mode, "--steps", 1, "--epochs", 1]
    tiny = [word for word in TINY if word not in ("--steps", "--epochs", "2")]
    assert main(["segment", "train", *map(str, arguments), *tiny]) == 0
    record = json.loads((out / "metrics.json").read_text())["metrics"]
    assert record["domain_silhouette"] is None
    card = json.loads((out / "model.json").read_text())
    assert card["members"] == [["knee"], ["hand"]]
    assert (out / "members" / "hand" / "report.html").is_file()
    line = refused("extend", "--run", out, "--data", made["new"], "--out", out / "more")
    assert "no batch norms of its own" in line


def test_folders_of_known_layouts_are_manifests(made, tmp_path, capsys):
    for case in range(4):
        for kind, name in (("", "imagesTr"), ("_seg", "labelsTr")):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            ending = f"c{case}_0000.nii.gz" if name == "imagesTr" else f"c{case}.nii.gz"
            source = made["folder"] / "hand" / f"{case}{kind}.nii.gz"
            shutil.copy(source, tmp_path / "set" / name / ending)
            bids = tmp_path / "bids" / f"sub-{case}" / "anat"
            bids.mkdir(parents=True, exist_ok=True)
            suffix = "dseg" if kind else "T1w"
            shutil.copy(source, bids / f"sub-{case}_{suffix}.nii.gz")
    (tmp_path / "set" / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T1"}, "labels": {"background": 0, "bone": 7}})
    )
    assert main(["segment", "check", "--data", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "8 cases, nothing wrong" in told
    assert "bids" in told
    assert "structure 7" in told


def test_help_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys\nfrom cl_medical.cli import main\n"
        "try: main(['segment', 'train', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'monai', 'nibabel', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert Path(sys.executable).exists()
