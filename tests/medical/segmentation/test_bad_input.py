"""What is wrong with a user's volumes is told in one line, before anything is trained."""

import json

import numpy as np
import pytest
from volume_files import TINY, manifest, volume

from cl_medical.cli import main


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
    "the same shape elsewhere": (
        lambda f, r: (
            volume(f / "moved_seg.nii.gz", np.ones(SHAPE, np.uint8), spacing=(3.0, 1.0, 1.01)),
            r["cases"][0].update(label="moved_seg.nii.gz"),
        ),
        "its affine puts corners 0.29 mm away of the image",
    ),
    "no gzip at all": (
        lambda f, r: (
            (f / "text.nii.gz").write_text("not an image"),
            r["cases"][0].update(image="text.nii.gz"),
        ),
        "text.nii.gz: cannot be read",
    ),
    "infinity": (
        replace_image(np.full(SHAPE, np.inf, np.float32)),
        "voxels are NaN or infinite",
    ),
    "an image twice": (
        lambda f, r: r["cases"][1].update(image=r["cases"][0]["image"]),
        "its image is that of knee0 too",
    ),
    "a patient on both sides": (
        lambda f, r: [r["cases"][n].update(patient="p") for n in (1, 3)],
        "patient p is in train and test",
    ),
    "no label to train on": (
        lambda f, r: r["cases"][0].pop("label"),
        "a case of train needs a label",
    ),
    "a channel too few": (
        lambda f, r: r["cases"][0].update(image=[r["cases"][0]["image"]] * 2),
        "has 1 images, but knee0 has 2",
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
def test_bad_data_end_in_one_line_and_exit_code_2(made, name, refused):
    change, told = BAD[name]
    data = spoiled(made["folder"], made["knee"], change)
    out = made["folder"] / "bad"
    line = refused("train", "--data", data, "--out", out, *TINY)
    assert told in line
    assert "knee" in line
    assert {file.name for file in out.glob("*")} <= {".lock"}


def test_all_problems_are_told_at_once_and_check_shows_them_as_a_table(made, capsys, refused):
    def change(folder, record):
        truncate(folder, record)
        record["cases"][1]["label"] = "missing.nii.gz"
        record["slice_axis"] = "X"

    data = spoiled(made["folder"], made["knee"], change)
    line = refused("train", "--data", data, "--out", made["folder"] / "bad", *TINY)
    assert "has 3 problems" in line
    assert main(["segment", "check", "--data", str(data)]) == 2
    told = capsys.readouterr().out
    assert told.count("error: ") == 3
    assert main(["segment", "check", "--data", str(made["data"])]) == 0
    told = capsys.readouterr().out
    assert "8 cases, nothing wrong" in told
    assert "LPS" in told


def test_what_is_odd_but_usable_is_a_note(made, tmp_path, capsys):
    empty = volume(tmp_path / "empty_seg.nii.gz", np.zeros(SHAPE, np.uint8))
    floats = volume(tmp_path / "float_seg.nii.gz", np.ones(SHAPE, np.float32))
    knee, hand = (json.loads(json.dumps(made[name])) for name in ("knee", "hand"))
    for record in (knee, hand):
        record["labels"] = {int(raw): name for raw, name in record["labels"].items()}
        for case in record["cases"]:
            case["id"] = case["id"][-1]  # the same ids in both domains
            case |= {k: str(made["folder"] / case[k]) for k in ("image", "label")}
    knee["cases"][0]["label"] = str(empty)
    knee["cases"][1]["label"] = str(floats)
    data = manifest(tmp_path, knee=knee, hand=hand)
    assert main(["segment", "check", "--data", str(data)]) == 0
    told = capsys.readouterr().out
    assert "note: knee/0: the label holds no structure" in told
    assert told.count("note: ") == 1
    out = tmp_path / "run"
    assert main(["segment", "train", "--data", str(data), "--out", str(out), *TINY]) == 0
    assert "4 steps are too few for the running statistics" in capsys.readouterr().out


def test_domains_of_one_and_of_two_images_train_together_only_when_told_to(made, tmp_path, refused):
    knee, hand = (json.loads(json.dumps(made[name])) for name in ("knee", "hand"))
    for record in (knee, hand):
        record["labels"] = {int(raw): name for raw, name in record["labels"].items()}
        for case in record["cases"]:
            case |= {k: str(made["folder"] / case[k]) for k in ("image", "label")}
    for case in hand["cases"]:
        case["image"] = [case["image"]] * 2
    data = manifest(tmp_path, knee=knee, hand=hand)
    words = ["train", "--data", data, "--out", tmp_path / "run", *TINY]
    assert "domains differ in the images of a case (knee 1, hand 2)" in refused(*words)
    assert main(["segment", *map(str, words), "--volumes.channels", "2"]) == 0
    assert main(["segment", "evaluate", "--run", str(tmp_path / "run")]) == 0
    image = knee["cases"][3]["image"]
    plain = ["--run", tmp_path / "run", "--data", image, "--out", tmp_path / "masks"]
    assert main(["segment", "predict", *map(str, plain), "--domain", "knee"]) == 0
    auto = ["--domain", "auto", "--overwrite"]
    assert main(["segment", "predict", *map(str, plain), *auto]) == 0  # only knee has one image


def test_classes_of_other_names_are_refused(made, tmp_path, refused):
    record = {**made["hand"], "labels": {0: "background", 7: "finger"}}
    data = manifest(made["folder"], "renamed.yaml", hand=record)
    line = refused("evaluate", "--run", made["run"], "--data", data, "--out", tmp_path / "o")
    assert "the classes of hand are background, finger" in line


def test_evaluate_names_a_case_that_cannot_be_read_and_scores_the_others(made, tmp_path, capsys):
    cases = json.loads(json.dumps(made["hand"]["cases"]))
    (made["folder"] / "half.nii.gz").write_bytes(
        (made["folder"] / cases[2]["image"]).read_bytes()[:-200]
    )
    cases[2] |= {"image": "half.nii.gz", "split": "test"}
    data = manifest(made["folder"], "half.yaml", hand={**made["hand"], "cases": cases})
    words = ["--run", made["run"], "--data", data, "--out", tmp_path / "o"]
    assert main(["segment", "evaluate", *map(str, words)]) == 1
    told = capsys.readouterr().out
    assert "not scored: hand/hand2: " in told
    assert "truncated" in told
    record = json.loads((tmp_path / "o" / "metrics.json").read_text())["metrics"]
    assert (record["hand/bone/n"], record["failed"]) == (1, 1)
