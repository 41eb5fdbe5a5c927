from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import DecodeCache, UnreadableImageError, list_images, read_image, read_images

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def saved(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def test_rgb_comes_as_stored_channels_first(tmp_path):
    x = read_image(saved(tmp_path / "a.png", RGB))
    assert x.dtype == torch.uint8
    assert np.array_equal(x.permute(1, 2, 0).numpy(), RGB)


def test_grey_is_repeated_kept_or_given_full_opacity(tmp_path):
    path = saved(tmp_path / "a.png", GREY)
    assert np.array_equal(read_image(path, channels=1).numpy(), GREY[None])
    assert np.array_equal(read_image(path, channels=3).numpy(), np.stack([GREY] * 3))
    assert np.array_equal(read_image(path, channels="keep").numpy(), GREY[None])
    assert (read_image(path, channels=4)[3] == 255).all()


def test_rgb_becomes_grey_by_the_stated_weights(tmp_path):
    x = read_image(saved(tmp_path / "a.png", RGB), channels=1)
    assert np.abs(x[0].numpy() - RGB @ [0.299, 0.587, 0.114]).max() <= 0.51


def test_transparent_images_lie_on_black(tmp_path):
    pixels = np.dstack([RGB, np.full((5, 7), 255, np.uint8)])
    pixels[0, 0] = (200, 100, 50, 0)
    pixels[0, 1] = (200, 100, 50, 128)
    path = saved(tmp_path / "a.png", pixels)
    x = read_image(path)
    assert x[:, 0, 0].tolist() == [0, 0, 0]  # the hidden colour never shows
    assert x[:, 0, 1].tolist() == [100, 50, 25]
    assert np.array_equal(x[:, 1:].permute(1, 2, 0).numpy(), RGB[1:])
    assert np.array_equal(read_image(path, channels=4).permute(1, 2, 0).numpy(), pixels)
    assert read_image(path, channels="keep").shape == (4, 5, 7)
    assert read_image(path, channels=1)[0, 0, 0] == 0


def test_sixteen_bits_are_scaled_to_the_unit_range(tmp_path):
    deep = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    deep[0, :2] = 0, 65535
    for name in ("a.png", "a.tif"):
        x = read_image(saved(tmp_path / name, deep), channels="keep")
        assert x.dtype == torch.float32
        assert np.abs(x[0].numpy() - deep / 65535).max() < 1e-6
    assert read_image(tmp_path / "a.png", channels=3).shape == (3, 5, 7)
    assert (read_image(tmp_path / "a.png", channels=4)[3] == 1).all()


def test_float_tiffs_keep_their_unit(tmp_path):
    values = RNG.normal(300, 50, (5, 7)).astype(np.float32)
    x = read_image(saved(tmp_path / "a.tif", values), channels=1, value_range="keep")
    assert np.array_equal(x[0].numpy(), values)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LA", "PA"])
def test_other_modes_become_rgb_of_the_same_picture(tmp_path, mode):
    flat = np.zeros((16, 16, 3), np.uint8)
    flat[:, 8:] = 255
    name = "a.tif" if mode in ("CMYK", "PA") else "a.png"
    if mode == "PA":
        image = Image.fromarray(flat).convert("P").convert("PA")
        x = read_image(saved(tmp_path / "a.png", image.convert("LA")))
    else:
        x = read_image(saved(tmp_path / name, flat, mode))
    assert x.shape == (3, 16, 16)
    assert x.dtype == torch.uint8
    assert np.array_equal(x.permute(1, 2, 0).numpy(), flat)


def test_a_palette_with_a_transparent_colour_lies_on_black(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png")[:, 0].T.tolist() == [[0, 0, 0], [0, 255, 0]]
    assert read_image(tmp_path / "a.png", channels="keep").shape[0] == 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # a mark in one corner tells all eight apart
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", np.ascontiguousarray(turned), exif=exif, quality=95)
    x = read_image(path).permute(1, 2, 0).numpy().astype(int)
    assert x.shape == upright.shape
    assert np.abs(x - upright).max() < 16


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_empty_and_truncated_files_are_named(tmp_path, cut):
    path = saved(tmp_path / "bad one.jpg", RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        UnreadableImageError, match=r"bad one\.jpg: cannot be read as an image"
    ) as e:
        read_image(path)
    assert "\n" not in str(e.value)
    assert ("the file is empty" in str(e.value)) == (cut == 0)


def test_corrupt_png_text_and_missing_files_are_named(tmp_path):
    path = saved(tmp_path / "a.png", RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    (tmp_path / "b.jpg").write_text("a page of HTML")
    for name, reason in (
        ("a.png", "."),
        ("b.jpg", "of no format known"),
        ("c.jpg", "no such file"),
    ):
        with pytest.raises(UnreadableImageError, match=f"{name}.*{reason}") as caught:
            read_image(tmp_path / name)
        assert isinstance(caught.value, InputError)


def test_the_error_keeps_what_it_knows_when_copied(tmp_path):
    with pytest.raises(UnreadableImageError) as caught:
        read_image(tmp_path / "a.png")
    error = deepcopy(caught.value)
    assert (error.path, error.reason) == (str(tmp_path / "a.png"), "no such file")
    assert str(error) == str(caught.value)


def test_a_photograph_can_be_decoded_smaller_but_only_when_asked(tmp_path):
    smooth = np.zeros((400, 600, 3), np.uint8)
    smooth[:, 300:] = 200
    path = saved(tmp_path / "a.jpg", smooth, quality=95)
    assert read_image(path).shape == (3, 400, 600)
    small = read_image(path, jpeg_min_side=150)
    assert small.shape == (3, 200, 300)  # a quarter would have fallen below 150
    assert abs(int(small[0, 100, 250]) - 200) <= 2


def test_many_files_are_read_in_order_and_errors_stand_in_their_place(tmp_path):
    files = [str(saved(tmp_path / f"{k}.png", np.full((2, 2), k, np.uint8))) for k in range(150)]
    (tmp_path / "7.png").write_bytes(b"")
    images = list(read_images(files, channels=1, threads=2))
    assert isinstance(images[7], UnreadableImageError)
    assert [int(x[0, 0, 0]) for k, x in enumerate(images) if k != 7] == [
        k for k in range(150) if k != 7
    ]


def test_the_channels_are_checked(tmp_path):
    # a TypeError where the suite checks annotations at run time
    with pytest.raises((ValueError, TypeError), match="channels"):
        read_image(saved(tmp_path / "a.png", RGB), channels=2)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for k in range(5):
        saved(root / f"{k}.png", RNG.integers(0, 256, (4 + k, 9, 3), dtype=np.uint8))
    saved(root / "deep.png", RNG.integers(0, 65536, (5, 7), dtype=np.uint16))
    (root / "empty.png").write_bytes(b"")
    return root


def test_the_cache_gives_what_decoding_gives(folder, tmp_path):
    table = list_images(folder)
    cache = DecodeCache.of(tmp_path / "c.cache", table)
    assert len(cache) == 6
    for file in table.files[:-1]:
        x = cache.get(file)
        assert x is not None
        assert x.dtype == read_image(file).dtype
        assert torch.equal(x, read_image(file))
    assert cache.get(folder / "empty.png") is None
    assert cache.get(folder / "unknown.png") is None


def test_a_cached_image_is_a_copy(folder, tmp_path):
    cache = DecodeCache.of(tmp_path / "c.cache", list_images(folder))
    cache.get(folder / "0.png").zero_()
    assert torch.equal(cache.get(folder / "0.png"), read_image(folder / "0.png"))


def test_the_cache_is_kept_while_it_fits_and_made_anew_when_a_file_changes(folder, tmp_path):
    path, table = tmp_path / "c.cache", list_images(folder)
    DecodeCache.of(path, table)
    first = path.stat().st_mtime_ns
    DecodeCache.of(path, table.select([0, 2]))  # a part of it fits
    assert path.stat().st_mtime_ns == first
    saved(folder / "1.png", np.full((4, 4, 3), 9, np.uint8))
    cache = DecodeCache.of(path, table)
    assert path.stat().st_mtime_ns != first
    assert (cache.get(folder / "1.png") == 9).all()
    assert DecodeCache.of(path, table, channels=1).get(folder / "1.png").shape == (1, 4, 4)


def test_the_cache_travels_to_workers_without_its_pixels(folder, tmp_path):
    cache = DecodeCache.of(tmp_path / "c.cache", list_images(folder))
    cache.get(folder / "0.png")
    copy = deepcopy(cache)
    assert torch.equal(copy.get(folder / "2.png"), read_image(folder / "2.png"))


def test_too_large_a_cache_is_refused_and_leaves_nothing(folder, tmp_path):
    with pytest.raises(InputError, match="the decode cache passes"):
        DecodeCache.of(tmp_path / "c.cache", list_images(folder), max_bytes=200)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_another_file_in_the_caches_place_is_not_overwritten(folder, tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work" * 10)
    with pytest.raises(InputError, match="is not a decode cache"):
        DecodeCache.of(path, list_images(folder))
    assert path.read_text().startswith("years of work")
