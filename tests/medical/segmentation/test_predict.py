"""Masks of volumes through the program: geometry, domains, failures."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from volume_files import manifest, volume

from cl_core.errors import InputError
from cl_medical.cli import main


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--domain", "foot"], "the model knows no such domain: "),
        ([], "--domain is needed"),
        (["--domain", "hand", "--data", "nowhere.nii.gz"], "not found"),
        (["--domain", "hand", "--device", "abacus"], "no such device"),
    ],
)
def test_predictions_that_cannot_be_made_are_refused(
    made, arguments, told, capsys, tmp_path, refused
):
    image = made["folder"] / "hand" / "0.nii.gz"
    words = ["predict", "--run", made["run"], "--data", image, "--out", tmp_path / "o", *arguments]
    if told == "no such device":
        assert main(["segment", *map(str, words)]) == 1
        assert told in capsys.readouterr().out
    else:
        assert told in refused(*words)


def test_thin_volumes_single_slices_and_empty_masks_are_segmented_and_scored(made):
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


def test_a_full_disk_ends_a_prediction_in_one_line(made, monkeypatch, tmp_path, refused):
    def full(image, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    image = made["folder"] / "hand" / "0.nii.gz"
    words = ["--run", made["run"], "--data", image, "--domain", "hand", "--out", tmp_path / "o"]
    line = refused("predict", *words)
    assert "cannot write" in line
    assert "No space left on device" in line


GRIDS = ("RAS", "PIR", "RPS", "LPS", "oblique", "frame")


def stored(path, voxels, kind):
    """Write a volume in another order of axes, turned in the world, or as a frame of 4-D."""
    affine = np.diag([3.0, 1.0, 1.25, 1.0])
    affine[:3, 3] = (-7.5, 11.25, 3.0)
    image = nib.Nifti1Image(voxels, affine)
    if kind == "oblique":
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
        image = nib.Nifti1Image(voxels, turn @ affine)
    elif kind == "frame":
        image = nib.Nifti1Image(voxels[..., None], affine)
    else:
        image = image.as_reoriented(
            nib.orientations.ornt_transform(
                nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(kind)
            )
        )
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(image.affine, code=2)
    image.set_qform(image.affine, code=1)
    image.header["descrip"] = b"a scanner"
    nib.save(image, path)


def test_a_mask_lies_in_its_files_geometry_and_does_not_depend_on_the_order_of_axes(made, tmp_path):
    rng = np.random.default_rng(0)
    voxels = rng.normal(100, 30, (5, 21, 18)).astype(np.float32)
    voxels[1:4, 4:11, 3:14] *= 2.5
    (tmp_path / "in").mkdir()
    for kind in GRIDS:
        stored(tmp_path / "in" / f"{kind}.nii.gz", voxels, kind)
    words = ["--run", made["run"], "--data", tmp_path / "in", "--domain", "knee"]
    words += ["--out", tmp_path / "out", "--probabilities"]
    assert main(["segment", "predict", *map(str, words)]) == 0
    found = {}
    for kind in GRIDS:
        source = nib.load(tmp_path / "in" / f"{kind}.nii.gz")
        for place in (f"masks/{kind}", f"probabilities/{kind}_tibia"):
            written = nib.load(tmp_path / "out" / f"{place}.nii.gz")
            assert written.affine.tobytes() == source.affine.tobytes()
            assert written.shape == source.shape
            for name in ("sform_code", "qform_code", "xyzt_units", "pixdim", "descrip", "dim"):
                assert written.header[name].tobytes() == source.header[name].tobytes(), name
            values = np.asanyarray(written.dataobj.get_unscaled())
            values = values[..., 0] if values.ndim == 4 else values
            ras = nib.as_closest_canonical(nib.Nifti1Image(values, written.affine))
            found.setdefault(place.replace(kind, ""), []).append(np.asanyarray(ras.dataobj))
    assert np.ptp(found["probabilities/_tibia"][0]) > 5  # in 255ths: more than a constant
    for values in found.values():
        assert all(np.array_equal(values[0], other) for other in values[1:])


def test_volumes_of_two_axes_and_of_one_slice_are_volumes(made, tmp_path):
    rng = np.random.default_rng(0)
    flat = rng.normal(100, 5, (24, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(flat, np.eye(4)), tmp_path / "flat.nii")
    volume(tmp_path / "one.nii.gz", flat[None])
    words = ["--run", made["run"], "--data", tmp_path, "--domain", "hand", "--out", tmp_path / "o"]
    assert main(["segment", "predict", *map(str, words)]) == 0
    assert nib.load(tmp_path / "o" / "masks" / "flat.nii.gz").shape == (24, 20)
    assert nib.load(tmp_path / "o" / "masks" / "one.nii.gz").shape == (1, 24, 20)


def test_a_manifest_names_its_domains_itself_and_cases_without_a_label_will_do(
    made, tmp_path, refused
):
    image = str(made["folder"] / "hand" / "0.nii.gz")
    cases = [{"id": "new", "image": image}, {"id": "lost", "image": "nowhere.nii.gz"}]
    cases.append({"id": "two", "image": [image, image]})
    data = manifest(tmp_path, hand={**made["hand"], "cases": cases[:2]})
    words = ["predict", "--run", made["run"], "--data", data, "--out", tmp_path / "o"]
    assert main(["segment", *map(str, words)]) == 1  # the lost one is told, the other is made
    assert (tmp_path / "o" / "masks" / "hand" / "new.nii.gz").is_file()
    record = json.loads((tmp_path / "o" / "metrics.json").read_text())["metrics"]
    assert record == {"masks": 1.0, "failed": 1.0}
    assert "names the domains itself" in refused(*words, "--domain", "hand", "--overwrite")


def test_a_case_of_other_images_than_the_domain_was_trained_on_is_not_segmented(
    made, tmp_path, capsys
):
    image = str(made["folder"] / "hand" / "0.nii.gz")
    two = manifest(
        tmp_path, hand={**made["hand"], "cases": [{"id": "two", "image": [image, image]}]}
    )
    words = ["predict", "--run", made["run"], "--data", two, "--out", tmp_path / "o"]
    assert main(["segment", *map(str, words)]) == 1
    assert "a case of 2 image(s), but hand was trained on 1" in capsys.readouterr().out


def test_two_files_that_would_be_one_mask_are_refused(made, tmp_path, refused):
    source = made["folder"] / "hand" / "0.nii.gz"
    shutil.copy(source, tmp_path / "a.nii.gz")
    nib.save(nib.load(source), tmp_path / "a.nii")
    words = ["--run", made["run"], "--data", tmp_path, "--domain", "hand", "--out", tmp_path / "o"]
    assert "would both be masks/a.nii.gz" in refused("predict", *words)


def test_the_python_face_gives_the_mask_that_the_program_writes(made, tmp_path):
    import cl_medical.segmentation as segmentation

    image = made["folder"] / "hand" / "0.nii.gz"
    words = ["--run", made["run"], "--data", image, "--domain", "hand", "--out", tmp_path / "o"]
    assert main(["segment", "predict", *map(str, words)]) == 0
    segmenter = segmentation.Segmenter.load(made["run"])
    assert segmenter.domains == {"knee": ("femur", "tibia"), "hand": ("bone",)}
    mask = segmenter.predict(image, domain="hand")
    written = nib.load(tmp_path / "o" / "masks" / "0.nii.gz")
    assert np.array_equal(np.asanyarray(mask.dataobj), np.asanyarray(written.dataobj))
    assert mask.affine.tobytes() == written.affine.tobytes()
    assert mask.get_data_dtype() == written.get_data_dtype()
    with pytest.raises(InputError, match="no such domain"):
        segmenter.predict(image, domain="foot")


def test_embed_writes_a_vector_a_patch_and_the_silhouette_of_the_domains(made, tmp_path, refused):
    words = ["--run", made["run"], "--split", "test", "--format", "npy", "--out", tmp_path / "e"]
    assert main(["segment", "embed", *map(str, words)]) == 0
    vectors = np.load(tmp_path / "e" / "embeddings.npy")
    names = (tmp_path / "e" / "cases.txt").read_text().split()
    assert vectors.shape == (len(names), 16)
    assert set(names) == {"knee3", "hand3"}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    record = json.loads((tmp_path / "e" / "metrics.json").read_text())["metrics"]
    assert -1 <= record["domain_silhouette"] <= 1
    assert (tmp_path / "e" / "report.html").is_file()
    none = ["--domains", "knee", "--data", made["new"]]
    assert "has no domain 'knee'" in refused("embed", "--run", made["run"], *none)
