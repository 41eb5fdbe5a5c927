"""The commands end to end on small phantoms, and what they say to bad input."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from cl_medical.cli import main

TINY = [
    "--network.filters", "[4,8,16]", "--volumes.patch", "[32,32]", "--batch_size", "6",
    "--steps", "2", "--epochs", "2", "--trainer.accelerator", "cpu",
    "--trainer.tensorboard", "false", "--trainer.progress", "false",
]  # fmt: skip


def volume(path, values, axes="RAS", spacing=(3.0, 1.0, 1.0)):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(tuple(axes))):
        affine[int(world), axis] = sign * spacing[axis]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def domain(folder, name, *, axes, raw, classes, bright, cases=4, shape=(5, 34, 30)):
    """A disc a structure, with numbers and grey values of the domain's own."""
    entries = []
    for n in range(cases):
        rng = np.random.default_rng(sum(name.encode()) + n)
        grid = np.mgrid[tuple(slice(0, k) for k in shape)]
        label = np.zeros(shape, np.uint8)
        image = rng.normal(bright, 0.05 * bright, shape).astype(np.float32)
        for k, number in enumerate(raw):
            row, col = 10 + 12 * k, 14 + rng.integers(-2, 3)
            inside = (grid[1] - row) ** 2 + (grid[2] - col) ** 2 < 16
            label[inside] = number
            image[inside] *= 1.5 + k
        volume(folder / name / f"{n}.nii.gz", image, axes)
        volume(folder / name / f"{n}_seg.nii.gz", label, axes)
        entries.append(
            {
                "id": f"{name}{n}",
                "image": f"{name}/{n}.nii.gz",
                "label": f"{name}/{n}_seg.nii.gz",
                "split": ["train", "train", "val", "test"][min(n, 3)],
            }
        )
    labels = {0: "background"} | dict(zip(raw, classes, strict=True))
    return {"labels": labels, "slice_axis": "R" if axes[0] in "RL" else "S", "cases": entries}


def manifest(folder, name="data.yaml", **domains):
    path = folder / name
    path.write_text(yaml.safe_dump({"domains": domains}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two domains, a third for later, and a run trained on the two."""
    folder = tmp_path_factory.mktemp("data")
    knee = domain(folder, "knee", axes="RAS", raw=(1, 2), classes=("femur", "tibia"), bright=100)
    hand = domain(folder, "hand", axes="LPS", raw=(7,), classes=("bone",), bright=4000)
    hip = domain(folder, "hip", axes="RPS", raw=(3,), classes=("femur",), bright=9)
    data = manifest(folder, knee=knee, hand=hand)
    new = manifest(folder, "new.yaml", hip=hip)
    run = folder / "run"
    code = main(["segment", "train", "--data", str(data), "--out", str(run), *TINY])
    assert code == 0
    return {"folder": folder, "data": data, "new": new, "run": run, "knee": knee, "hand": hand}


def refused(capsys, *arguments, code=2):
    assert main(["segment", *map(str, arguments)]) == code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Traceback" not in line
    return line


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


def test_evaluate_matches_domains_by_name_whatever_their_order(made, capsys):
    other = manifest(made["folder"], "other.yaml", hand=made["hand"], knee=made["knee"])
    assert main(["segment", "evaluate", "--run", str(made["run"])]) == 0
    out = made["folder"] / "swapped"
    arguments = ["--run", made["run"], "--data", other, "--out", out, "--against"]
    assert main(["segment", "evaluate", *map(str, arguments), str(made["run"] / "evaluate")]) == 0
    first = json.loads((made["run"] / "evaluate" / "metrics.json").read_text())["metrics"]
    second = json.loads((out / "metrics.json").read_text())["metrics"]
    assert {name: second[name] for name in first} == first
    assert second["against/all/p"] == 1.0


def test_predict_writes_raw_ids_on_the_grid_of_the_file_and_goes_on_after_a_failure(made, capsys):
    folder = made["folder"] / "new volumes"
    folder.mkdir()
    for n in (0, 3):
        shutil.copy(made["folder"] / "hand" / f"{n}.nii.gz", folder / f"{n}.nii.gz")
    (folder / "1.nii.gz").write_bytes((folder / "0.nii.gz").read_bytes()[:-300])
    out = made["folder"] / "masks"
    arguments = ["--run", made["run"], "--data", folder, "--domain", "hand", "--out", out]
    assert main(["segment", "predict", *map(str, arguments), "--probabilities"]) == 1
    told = capsys.readouterr().out
    assert "not segmented: 1: " in told
    assert "truncated" in told
    assert "2 of 3 volumes segmented" in told
    source, mask = nib.load(folder / "0.nii.gz"), nib.load(out / "masks" / "0.nii.gz")
    assert mask.affine.tobytes() == source.affine.tobytes()
    assert mask.shape == source.shape
    assert set(np.unique(np.asanyarray(mask.dataobj))) <= {0, 7}
    p = nib.load(out / "probabilities" / "0_bone.nii.gz").get_fdata()
    assert 0 <= p.min() < p.max() <= 1
    np.testing.assert_array_equal(p > 0.51, (np.asanyarray(mask.dataobj) == 7) & (p > 0.51))


def test_the_domain_of_a_volume_is_found_or_refused_below_a_margin(made, capsys):
    image = made["folder"] / "knee" / "3.nii.gz"
    arguments = ["predict", "--run", made["run"], "--data", image, "--domain", "auto"]
    out = made["folder"] / "auto"
    assert main(["segment", *map(str, arguments), "--margin", "0", "--out", str(out)]) == 0
    assert "domain " in capsys.readouterr().out
    wide = [*arguments, "--margin", "3", "--out", made["folder"] / "auto2"]
    assert main(["segment", *map(str, wide)]) == 1
    assert "no domain is ahead by 3.0" in capsys.readouterr().out


def test_extend_leaves_the_masks_of_old_domains_as_they_were(made, capsys):
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
    assert "has a domain hand already" in refused(capsys, "extend", *taken)


@pytest.mark.parametrize("mode", ["individual", "transfer"])
def test_networks_of_single_domains_are_one_run(made, mode, capsys):
    out = made["folder"] / mode
    arguments = ["--data", made["data"], "--out", out, "--mode", mode, "--steps", 1, "--epochs", 1]
    tiny = [word for word in TINY if word not in ("--steps", "--epochs", "2")]
    assert main(["segment", "train", *map(str, arguments), *tiny]) == 0
    record = json.loads((out / "metrics.json").read_text())["metrics"]
    assert record["domain_silhouette"] is None
    card = json.loads((out / "model.json").read_text())
    assert card["members"] == [["knee"], ["hand"]]
    assert (out / "members" / "hand" / "report.html").is_file()
    line = refused(capsys, "extend", "--run", out, "--data", made["new"], "--out", out / "more")
    assert "no batch norms of its own" in line


def spoiled(folder, knee, change):
    record = json.loads(json.dumps(knee))
    record["labels"] = {int(k): v for k, v in record["labels"].items()}
    change(folder, record)
    return manifest(folder, "spoiled.yaml", knee=record)


def replace_label(values):
    def change(folder, record):
        volume(folder / "spoiled_seg.nii.gz", values)
        record["cases"][0]["label"] = "spoiled_seg.nii.gz"

    return change


def replace_image(values):
    def change(folder, record):
        volume(folder / "spoiled.nii.gz", values)
        record["cases"][0]["image"] = "spoiled.nii.gz"

    return change


def truncate(folder, record):
    whole = (folder / record["cases"][0]["image"]).read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[:-500])
    record["cases"][0]["image"] = "cut.nii.gz"


SHAPE = (5, 34, 30)
NAN = np.full(SHAPE, np.nan, np.float32)
BAD = {
    "a file is missing": (
        lambda f, r: r["cases"][0].update(image="no.nii.gz"),
        "no.nii.gz: the file does not exist",
    ),
    "truncated": (truncate, "cut.nii.gz: the file is truncated"),
    "four axes": (replace_image(np.zeros((*SHAPE, 3), np.float32)), "name a frame by volume_index"),
    "another grid": (
        replace_label(np.ones((4, 34, 30), np.uint8)),
        "image and label must share a grid",
    ),
    "ids outside the map": (
        replace_label(np.full(SHAPE, 9, np.uint8)),
        "label ids 9 are not in the label map of knee",
    ),
    "ids that are no numbers": (
        replace_label(np.full(SHAPE, 0.25, np.float32)),
        "not whole numbers",
    ),
    "NaN": (replace_image(NAN), "voxels are NaN or infinite"),
    "nothing to train on": (
        lambda f, r: [case.update(split="test") for case in r["cases"]],
        "no labelled case of train",
    ),
    "twice": (
        lambda f, r: r["cases"].append(r["cases"][0] | {"split": "test"}),
        "listed in train and test",
    ),
    "a class too many": (lambda f, r: r.update(label_map={0: 0, 1: 5}), "1 leads to class 5"),
    "a slip": (lambda f, r: r.update(slice_axes="R"), "did you mean slice_axis?"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_end_in_one_line_and_exit_code_2(made, name, capsys):
    change, told = BAD[name]
    data = spoiled(made["folder"], made["knee"], change)
    out = made["folder"] / "bad"
    line = refused(capsys, "train", "--data", data, "--out", out, *TINY)
    assert told in line
    assert "knee" in line
    assert not out.exists() or not any(out.iterdir())


def test_all_problems_are_told_at_once_and_check_shows_them_as_a_table(made, capsys):
    def change(folder, record):
        truncate(folder, record)
        record["cases"][1]["label"] = "missing.nii.gz"
        record["slice_axis"] = "X"

    data = spoiled(made["folder"], made["knee"], change)
    line = refused(capsys, "train", "--data", data, "--out", made["folder"] / "bad", *TINY)
    assert "has 3 problems" in line
    assert main(["segment", "check", "--data", str(data)]) == 2
    told = capsys.readouterr().out
    assert told.count("error: ") == 3
    assert main(["segment", "check", "--data", str(made["data"])]) == 0
    told = capsys.readouterr().out
    assert "8 cases, nothing wrong" in told
    assert "LPS" in told


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--domain", "foot"], "the model knows no such domain: "),
        ([], "--domain is needed"),
        (["--domain", "hand", "--data", "nowhere.nii.gz"], "not found"),
        (["--domain", "hand", "--device", "abacus"], "no such device"),
    ],
)
def test_predictions_that_cannot_be_made_are_refused(made, arguments, told, capsys, tmp_path):
    image = made["folder"] / "hand" / "0.nii.gz"
    words = ["predict", "--run", made["run"], "--data", image, "--out", tmp_path / "o", *arguments]
    if told == "no such device":
        assert main(["segment", *map(str, words)]) == 1
        assert told in capsys.readouterr().out
    else:
        assert told in refused(capsys, *words)


def test_thin_volumes_single_slices_and_empty_masks_are_segmented_and_scored(made, capsys):
    folder = made["folder"]
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (1, 9, 11)).astype(np.float32)
    volume(folder / "thin" / "0.nii.gz", image)
    volume(folder / "thin" / "0_seg.nii.gz", np.zeros((1, 9, 11), np.uint8))
    case = {"id": "t", "image": "thin/0.nii.gz", "label": "thin/0_seg.nii.gz", "split": "test"}
    data = manifest(folder, "thin.yaml", knee={**made["knee"], "cases": [case]})
    out = folder / "thin scores"
    words = ["--run", made["run"], "--data", data, "--out", out]
    assert main(["segment", "evaluate", *map(str, words)]) == 0
    figures = json.loads((out / "metrics.json").read_text())["metrics"]
    assert figures["knee/femur/n"] == 1
    assert figures["knee/femur/n_failed"] in (0, 1)


def test_a_full_disk_ends_a_prediction_in_one_line(made, capsys, monkeypatch, tmp_path):
    def full(image, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    image = made["folder"] / "hand" / "0.nii.gz"
    words = ["--run", made["run"], "--data", image, "--domain", "hand", "--out", tmp_path / "o"]
    line = refused(capsys, "predict", *words)
    assert "cannot write" in line
    assert "No space left on device" in line


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
