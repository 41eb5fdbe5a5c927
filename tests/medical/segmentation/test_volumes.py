"""NIfTI files, grids and samples: what is turned, resampled and cut comes back; no MONAI here."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cl_core.errors import InputError
from cl_medical.segmentation.augment import Augmentation, cut, sample_affine
from cl_medical.segmentation.cache import Prepared, VolumeCache, case_key
from cl_medical.segmentation.data import PatchSet, Source, collate
from cl_medical.segmentation.manifest import Case, Domain
from cl_medical.segmentation.nifti import open_volume, same_grid, write_like
from cl_medical.segmentation.preparation import prepare_case
from cl_medical.segmentation.sampling import rows_of_cases, sampling_order
from cl_medical.segmentation.volumes import (
    Intensity,
    Recipe,
    geometry_of,
    map_labels,
    prepare_label,
)

GRIDS = ["RAS", "PIR", "RPS", "LPS", "oblique", "frame"]
RECIPE = Recipe(slice_axis="R", spacing=(None, None, None), in_plane=True)


def affine_of(axes, spacing=(2.0, 1.25, 3.0)):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(tuple(axes))):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:3, 3] = (-11.5, 7.25, 3.0)
    return affine


def write(path, kind="RAS", values=None):
    rng = np.random.default_rng(0)
    shape = (5, 7, 6)
    values = rng.normal(size=shape).astype(np.float32) if values is None else values
    affine = affine_of("RAS" if kind in ("oblique", "frame") else kind)
    if kind == "oblique":
        angle = 0.2
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ affine
    if kind == "frame":
        values = values[..., None]
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    image.header["descrip"] = b"a scanner"
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("axis", ["R", "A", "S"])
def test_turning_a_volume_is_a_view_and_can_be_undone(tmp_path, kind, axis):
    file = open_volume(write(tmp_path / "x.nii.gz", kind))
    geometry = geometry_of(file, Recipe(slice_axis=axis, spacing=(None,) * 3, in_plane=True))
    voxels = file.read()
    turned = geometry.turned(voxels)
    assert np.shares_memory(turned, voxels)
    assert turned.shape == geometry.shape
    np.testing.assert_array_equal(geometry.turned_back(turned), voxels)
    codes = nib.orientations.aff2axcodes(
        file.affine @ nib.orientations.inv_ornt_aff(geometry.turn, voxels.shape)
    )
    assert codes == (axis, *(a for a in "RAS" if a != axis))


@pytest.mark.parametrize("kind", GRIDS)
def test_a_mask_keeps_the_header_of_its_image_bit_for_bit(tmp_path, kind):
    source = open_volume(write(tmp_path / "x.nii.gz", kind))
    mask = np.zeros(source.shape, np.uint8)
    mask[1:3, 2, 3] = 7
    write_like(tmp_path / "mask.nii.gz", mask, source)
    written, original = nib.load(tmp_path / "mask.nii.gz"), nib.load(source.path)
    assert written.shape == original.shape
    assert written.affine.tobytes() == original.affine.tobytes()
    changed = {"datatype", "bitpix", "scl_slope", "scl_inter", "cal_min", "cal_max", "vox_offset"}
    for name in list(original.header):
        if name not in changed:
            assert written.header[name].tobytes() == original.header[name].tobytes(), name
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(written.dataobj).reshape(mask.shape), mask)


@pytest.mark.parametrize("kind", GRIDS)
def test_a_perfect_mask_loses_nothing_where_no_resampling_is_asked(tmp_path, kind):
    file = open_volume(write(tmp_path / "x.nii.gz", kind))
    classes = np.random.default_rng(1).integers(0, 3, file.shape).astype(np.uint8)
    geometry = geometry_of(file, RECIPE)
    assert not geometry.resampled
    back = geometry.turned_back(prepare_label(classes, geometry))
    np.testing.assert_array_equal(back, classes)


def test_slices_keep_their_number_where_only_planes_are_resampled(tmp_path):
    file = open_volume(write(tmp_path / "x.nii.gz"))
    recipe = Recipe(slice_axis="S", spacing=(1.0, 1.0, 1.0), in_plane=True)
    assert geometry_of(file, recipe).grid == (6, 10, 9)
    deep = Recipe(slice_axis="S", spacing=(1.0, 1.0, 1.0), in_plane=False)
    assert geometry_of(file, deep).grid == (18, 10, 9)


def test_intensities_are_clipped_standardised_and_given_back():
    voxels = np.random.default_rng(0).normal(50, 10, (8, 9, 7)).astype(np.float32)
    intensity = Intensity.of(voxels, RECIPE)
    scaled = intensity.apply(voxels)
    assert abs(float(scaled.mean())) < 1e-4
    assert abs(float(scaled.std()) - 1) < 1e-4
    inside = (voxels > intensity.low) & (voxels < intensity.high)
    np.testing.assert_allclose(intensity.undo(scaled)[inside], voxels[inside], rtol=1e-5)
    flat = Intensity.of(np.full((3, 3, 3), 4.0, np.float32), RECIPE)
    assert not flat.apply(np.full((3, 3, 3), 4.0, np.float32)).any()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "truncated"),
        (lambda p: p.write_bytes(b"no gzip"), "cannot be read"),
        (lambda p: write(p, values=np.zeros((3, 4, 5, 2), np.float32)), "volume_index"),
        (lambda p: write(p, values=np.full((3, 4, 5), np.nan, np.float32)), "60 voxels are NaN"),
    ],
)
def test_files_that_are_no_volumes_are_refused_by_name(tmp_path, spoil, told):
    path = write(tmp_path / "x.nii.gz")
    spoil(path)
    with pytest.raises(InputError, match=told) as caught:
        open_volume(path).read()
    assert str(path) in str(caught.value)


def test_other_grids_and_labels_are_refused(tmp_path):
    first = open_volume(write(tmp_path / "a.nii.gz"))
    second = open_volume(write(tmp_path / "b.nii.gz", "LPS"))
    assert "corners" in same_grid(first, second)
    third = open_volume(write(tmp_path / "c.nii.gz", values=np.zeros((2, 2, 2), np.float32)))
    assert "shape (2, 2, 2), expected (5, 7, 6)" in same_grid(first, third)
    halves = write(tmp_path / "d.nii.gz", values=np.full((2, 2, 2), 0.5, np.float32))
    with pytest.raises(InputError, match=r"not whole numbers, such as 0\.5"):
        open_volume(halves).read_label()
    domain = Domain(name="d", classes=("bg", "x"), label_map={0: 0, 4: 1}, cases=())
    assert map_labels(np.array([0, 4]), domain).tolist() == [0, 1]
    with pytest.raises(InputError, match="ids 3 are not in the label map of d"):
        map_labels(np.array([0, 3]), domain)


def made(domain, shape=(4, 20, 18), seed=0):
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[1, 4:8, 5:9] = 1
    label[2, 10, 10] = 2
    prepared = Prepared(
        image=rng.normal(size=(1, *shape)).astype(np.float32),
        label=label,
        shape=shape,
        spacing=(1.0, 1.0, 1.0),
        axcodes="RAS",
        range=(0.0, 1.0),
        voxels=(0, 1, 1),
        least=(-4.0,),
    )
    return Source.of(domain, f"case{seed}", prepared, 3)


@pytest.mark.parametrize("patch", [(8, 8), (2, 8, 8), (6, 32, 32)])
def test_forced_patches_show_a_structure_small_ones_as_often(patch):
    source = made(0)
    samples = PatchSet([source], patch, None, rows=[2], forced=0.5)
    torch.manual_seed(0)
    seen = [samples[0].label for _ in range(40)]
    assert all((one > 0).any() for one in seen)
    assert sum(bool((one == 2).any()) for one in seen) >= 12
    assert all(tuple(samples[1].image.shape[1:]) == patch for _ in range(3))


def test_outside_the_volume_lies_its_least_value_and_background():
    image = torch.zeros(1, 4, 4)
    label = torch.ones(4, 4, dtype=torch.uint8)
    patch, marks = cut(image, label, (1.5, 1.5), (8, 8), torch.tensor([-4.0]))
    assert patch[0, 0, 0] == -4.0
    assert marks.sum() == 16
    still, same = sample_affine(
        image, label, (1.5, 1.5), (8, 8), torch.tensor([-4.0]), angle=0.0, zoom=1.0
    )
    torch.testing.assert_close(still, patch)
    assert torch.equal(same, marks)


def test_augmentation_turns_image_and_label_together_and_differs_from_draw_to_draw():
    grid = torch.arange(40.0)
    image = ((grid[:, None] - 20) ** 2 + (grid[None] - 14) ** 2 < 36).float()[None]
    label = image[0].to(torch.uint8)
    plain = Augmentation(geometry=1.0, noise=0.0, gamma=(1, 1), gain=(1, 1), offset=0.0)
    torch.manual_seed(0)
    draws = [plain.patch(image, label, (20, 14), (24, 24), torch.zeros(1)) for _ in range(4)]
    for patch, marks in draws:
        overlap = (
            2 * ((patch[0] > 0.5) & (marks > 0)).sum() / ((patch[0] > 0.5).sum() + marks.sum())
        )
        assert overlap > 0.97
    assert len({float(patch.sum()) for patch, _ in draws}) == 4


def test_batches_hold_every_domain_alike_and_ranks_share_them_out():
    sources = [made(0, seed=1), made(0, seed=2), made(0, seed=3), made(1, seed=4)]
    rows = rows_of_cases(sources, (8, 8), "balanced")
    order = sampling_order(sources, (8, 8), "balanced", steps=5)
    samples = PatchSet(sources, (8, 8), None, rows=rows)
    assert order.rows == len(samples)
    batches = order.batches(4, seed=0, epoch=0, rank=0, world=1)
    assert len(batches) == 5
    for batch in batches:
        drawn = collate([samples[int(row)] for row in batch])
        assert drawn.domain.tolist() == [0, 0, 1, 1]
    again = order.batches(4, seed=0, epoch=0, rank=0, world=1)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    halves = [order.batches(2, seed=0, epoch=0, rank=r, world=2) for r in (0, 1)]
    for whole, first, second in zip(batches, *halves, strict=True):
        assert sorted(whole) == sorted([*first, *second])


def test_a_case_is_decoded_once_and_again_only_when_its_file_changes(tmp_path):
    image = write(tmp_path / "x.nii.gz")
    label = write(tmp_path / "y.nii.gz", values=np.ones((5, 7, 6), np.uint8))
    case = Case(name="c", images=(image,), label=label, split="train")
    domain = Domain(name="d", classes=("bg", "x"), label_map={0: 0, 1: 1}, cases=(case,))
    calls = []

    def make():
        calls.append(1)
        return prepare_case(case, domain, RECIPE)

    key = case_key(case, domain, RECIPE)
    first = VolumeCache(tmp_path / "cache").get(key, make)
    second = VolumeCache(tmp_path / "cache").get(key, make)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.image, second.image)
    assert second.voxels == (0, 210)
    write(image, values=np.ones((5, 7, 6), np.float32))
    assert case_key(case, domain, RECIPE) != key


def test_a_cached_case_never_disappears_while_another_run_writes_it_again(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    case = made(0).prepared
    VolumeCache(folder).get("key", lambda: case)
    looked = []
    move = Path.replace

    def moving(self, target):
        def missing():
            raise AssertionError("the case is not there")

        if (folder / "key.json").is_file() and "key" in Path(target).name:
            looked.append(VolumeCache(folder).get("key", missing))
        return move(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", moving)

        def late():  # the other run began before the first had written
            VolumeCache(folder).get("key", lambda: case)
            return case

        for file in folder.glob("key*"):
            file.unlink()
        VolumeCache(folder).get("key", late)
    assert len(looked) >= 3
    np.testing.assert_array_equal(looked[-1].image, case.image)
