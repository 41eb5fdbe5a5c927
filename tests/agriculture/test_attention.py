"""Masks: the equations against reference vectors, mask files, functions, and the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cl_agriculture.attention.excess_green import (
    clean_mask,
    excess_green,
    otsu_threshold,
    separability,
)
from cl_agriculture.attention.maker import MaskMaker, read_rgb
from cl_agriculture.attention.plant_mask import green_mask
from cl_agriculture.attention.store import MaskStore
from cl_agriculture.hyper import MaskHyper
from cl_core.checks import OptionError
from cl_core.errors import InputError
from cl_core.images import list_images

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "claws.npz")
HYPER = MaskHyper()


def plant_picture(height: int = 24, width: int = 30) -> np.ndarray:
    """Grey ground with a green block of a quarter of the rows and half the columns."""
    rgb = np.full((height, width, 3), 120, dtype=np.uint8)
    rgb[height // 4 : height // 2, width // 4 : 3 * width // 4] = (40, 160, 40)
    return rgb


def write(folder: Path, name: str, pixels: np.ndarray) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("name", ["plant", "soil", "leaf"])
def test_excess_green_threshold_and_cleaning_equal_the_reference(name):
    rgb = GOLDEN[f"{name}_rgb"]
    e = excess_green(rgb)
    np.testing.assert_allclose(e, GOLDEN[f"{name}_exg"], rtol=1e-6, atol=1e-12)
    raw = excess_green(rgb, "raw")
    np.testing.assert_allclose(raw, GOLDEN[f"{name}_exg_raw"], rtol=1e-6)
    own = otsu_threshold(e)
    assert own == pytest.approx(float(GOLDEN[f"{name}_otsu"]), abs=1e-9)
    assert otsu_threshold(raw) == pytest.approx(float(GOLDEN[f"{name}_otsu_raw"]), abs=1e-9)
    np.testing.assert_array_equal(e > own, GOLDEN[f"{name}_mask_otsu"])
    assert separability(e, own) == pytest.approx(float(GOLDEN[f"{name}_sep"]), rel=1e-6)
    found = green_mask(rgb, HYPER)
    assert found.threshold == pytest.approx(float(GOLDEN[f"{name}_thr_clamped"]), abs=1e-9)
    np.testing.assert_array_equal(e > found.threshold, GOLDEN[f"{name}_mask"])
    np.testing.assert_array_equal(clean_mask(e > found.threshold), GOLDEN[f"{name}_mask_clean"])
    assert found.fraction == pytest.approx(float(GOLDEN[f"{name}_frac"]), rel=1e-6)
    assert bool(found.reason) == bool(GOLDEN[f"{name}_fallback"])


def test_a_constant_image_falls_back_to_the_whole_image():
    rgb = GOLDEN["flat_rgb"]
    np.testing.assert_allclose(excess_green(rgb), GOLDEN["flat_exg"], atol=1e-12)
    found = green_mask(rgb, HYPER)
    assert found.reason == "constant"
    assert bool(GOLDEN["flat_fallback"])
    assert found.mask.all()


def test_a_frame_full_of_leaf_is_full_and_one_without_plant_empty():
    assert green_mask(GOLDEN["leaf_rgb"], HYPER).reason == "full"
    rgb = plant_picture()
    rgb[:] = 120
    rgb[3, 3] = (40, 160, 40)
    found = green_mask(rgb, MaskHyper(least_fraction=0.01, clean=False))
    assert (found.reason, bool(found.mask.all())) == ("empty", True)
    assert found.fraction == pytest.approx(1 / 720)


def test_light_does_not_change_the_chromatic_mask_but_the_raw_values():
    rgb = plant_picture()
    dark = rgb // 2
    np.testing.assert_allclose(excess_green(rgb), excess_green(dark), atol=1e-12)
    assert excess_green(rgb, "raw").max() == 2 * excess_green(dark, "raw").max()


def test_cleaning_drops_specks_closes_gaps_and_fills_holes_but_not_bays():
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True
    mask[15:18, 15:18] = False  # a hole
    mask[20, 10:30] = False  # a gap of one pixel
    mask[0, 0] = True  # a speck, below ceil(.001 * 1600) = 2 pixels
    mask[25:30, 20] = False  # closed: one pixel wide
    mask[10:14, 24:28] = False  # a bay, open to the border
    cleaned = clean_mask(mask)
    assert cleaned[15:18, 15:18].all()
    assert cleaned[20, 12:28].all()
    assert not cleaned[0, 0]
    assert not cleaned[10, 25]


def test_a_hole_that_touches_the_border_is_background():
    mask = np.ones((20, 20), dtype=bool)
    mask[0:6, 8:12] = False
    assert not clean_mask(mask)[2, 10]


def test_bad_settings_are_refused():
    with pytest.raises(OptionError, match=r"least_threshold must not pass most_threshold"):
        MaskHyper(least_threshold=0.4)
    with pytest.raises(OptionError, match="invert and plant_values exclude each other"):
        MaskHyper(invert=True, plant_values=(1,))
    with pytest.raises(ValueError, match="all values are equal"):
        otsu_threshold(np.ones((3, 3)))


@pytest.fixture
def field(tmp_path) -> Path:
    for number in range(3):
        write(tmp_path / "images", f"a/{number}.png", plant_picture())
    return tmp_path


def made(field: Path, hyper: MaskHyper = HYPER) -> list[np.ndarray]:
    table = list_images(field / "images")
    maker = MaskMaker.of_folder(field / "masks", table, hyper)
    return [maker.make(file).mask for file in table.files]


def wanted() -> np.ndarray:
    mask = np.zeros((24, 30), dtype=bool)
    mask[2:20, 3:9] = True
    return mask


@pytest.mark.parametrize("factor", [1, 2, 0.5])
def test_mask_files_of_an_integer_ratio_are_fitted_by_nearest_pixels(field, factor):
    mask = np.zeros((24, 30), dtype=np.uint8)
    mask[2:20, 4:10] = 7
    stored = mask[::2, ::2] if factor == 0.5 else mask.repeat(factor, 0).repeat(factor, 1)
    for number in range(3):
        write(field / "masks", f"{number}.png", stored)
    for found in made(field):
        np.testing.assert_array_equal(found, mask > 0)


def test_a_mask_of_another_size_names_file_and_sizes(field):
    for number in range(3):
        write(field / "masks", f"{number}.png", np.full((20, 30), 1, dtype=np.uint8))
    with pytest.raises(InputError, match=r"0\.png.* is 30 x 20 pixels.*30 x 24") as told:
        made(field)
    assert "integer" in str(told.value) or "whole multiples" in str(told.value)


def test_suffix_invert_and_values_say_what_is_plant(field):
    values = np.where(wanted(), 3, 5).astype(np.uint8)
    values[0, 0] = 0
    for number in range(3):
        write(field / "masks", f"a/{number}_seg.tif", values)
    found = made(field, MaskHyper(suffix="_seg", plant_values=(3,)))[0]
    np.testing.assert_array_equal(found, wanted())
    for number in range(3):
        write(field / "masks", f"a/{number}_seg.tif", np.where(wanted(), 0, 9).astype(np.uint8))
    found = made(field, MaskHyper(suffix="_seg", invert=True))[0]
    np.testing.assert_array_equal(found, wanted())


def test_missing_masks_stop_or_count_as_whole_images(field):
    write(field / "masks", "1.png", wanted().astype(np.uint8))
    with pytest.raises(InputError, match=r"2 of 3 images have no mask, first a/0\.png"):
        made(field)
    table = list_images(field / "images")
    maker = MaskMaker.of_folder(field / "masks", table, MaskHyper(missing="full"))
    assert [maker.make(file).reason for file in table.files] == ["missing", "", "missing"]


def test_two_masks_of_one_image_are_refused(field):
    write(field / "masks", "1.png", wanted().astype(np.uint8))
    write(field / "masks", "1.bmp", wanted().astype(np.uint8))
    with pytest.raises(InputError, match=r"are both a mask of a/1\.png"):
        made(field)


@pytest.mark.parametrize("turn", [2, 3, 4, 5, 6, 7, 8])
def test_masks_turned_like_their_images_are_turned_upright(tmp_path, turn):
    path = tmp_path / "images" / "x.jpg"
    path.parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(plant_picture(16, 24)).save(path, exif=exif)
    stored = np.zeros((16, 24), dtype=np.uint8)
    stored[2:10, 1:9] = 1
    write(tmp_path / "masks", "x.png", stored)
    marked = Image.fromarray(stored)
    marked.getexif()[0x0112] = turn
    upright = np.array(ImageOps.exif_transpose(marked))
    np.testing.assert_array_equal(made(tmp_path, MaskHyper(turn="image"))[0], upright > 0)


def test_a_mask_that_is_not_turned_like_its_image_is_named(tmp_path):
    path = tmp_path / "images" / "x.jpg"
    path.parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(plant_picture(16, 24)).save(path, exif=exif)
    write(tmp_path / "masks", "x.png", np.ones((16, 24), dtype=np.uint8))
    with pytest.raises(InputError, match=r"x\.png.*turned upright by its EXIF.*--mask\.turn image"):
        made(tmp_path)


def test_any_function_makes_masks(field):
    table = list_images(field / "images")
    maker = MaskMaker(HYPER, function=lambda rgb: rgb[..., 1] > rgb[..., 0])
    found = maker.make(table.files[0])
    assert found.fraction == pytest.approx(6 * 15 / 720, rel=0.1)
    assert maker.rule()["source"] == "function"
    with pytest.raises(ValueError, match=r"must give \(h, w\)"):
        MaskMaker(HYPER, function=lambda rgb: rgb).make(table.files[0])


def test_deep_and_four_colour_files_become_eight_bit_rgb(tmp_path):
    deep = np.full((8, 8), 32768, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_rgb(str(tmp_path / "deep.png"))[0, 0].tolist() == [128, 128, 128]
    Image.fromarray(plant_picture()).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    rgb = read_rgb(str(tmp_path / "cmyk.jpg"))
    assert rgb.dtype == np.uint8
    assert green_mask(rgb, HYPER).reason == ""


def test_the_store_makes_each_mask_once_and_again_when_its_file_changes(field, monkeypatch):
    table, counted = list_images(field / "images"), []
    make = MaskMaker.make

    def counting(self, file):
        counted.append(file)
        return make(self, file)

    monkeypatch.setattr(MaskMaker, "make", counting)
    store = MaskStore.of(field / "store", table, MaskMaker(HYPER))
    first = store.get(table.files[0])
    assert len(counted) == 3
    again = MaskStore.of(field / "store", table, MaskMaker(HYPER))
    assert len(counted) == 3
    assert bool((again.get(table.files[0]) == first).all())
    assert bool((again.get(table.files[0]) == first).all())  # from memory
    assert again.record(table.files[0]) == store.record(table.files[0])
    write(field / "images", "a/0.png", np.rot90(plant_picture()).copy())
    MaskStore.of(field / "store", table, MaskMaker(HYPER))
    assert counted[3:] == [table.files[0]]
    MaskStore.of(field / "store", table, MaskMaker(MaskHyper(variant="raw")))
    assert len(counted) == 7


def test_the_store_keeps_one_bit_a_pixel_and_its_settings(field):
    table = list_images(field / "images")
    store = MaskStore.of(field / "store", table, MaskMaker(HYPER))
    with Image.open(store.folder / store.record(table.files[0]).png) as png:
        assert png.mode == "1"
    index = json.loads((store.folder / "masks.json").read_text())
    assert index["rule"]["variant"] == "chromatic"
    assert len(index["masks"]) == 3


def test_a_damaged_index_is_made_again_and_a_lost_mask_told(field):
    table = list_images(field / "images")
    store = MaskStore.of(field / "store", table, MaskMaker(HYPER))
    (store.folder / "masks.json").write_text("{")
    again = MaskStore.of(field / "store", table, MaskMaker(HYPER))
    (again.folder / again.record(table.files[1]).png).unlink()
    with pytest.raises(InputError, match=r"delete .*masks\.json"):
        again.get(table.files[1])
