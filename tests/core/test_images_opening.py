"""No image file runs anything, exhausts the memory or slips through unnamed."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from cl_core.errors import InputError
from cl_core.images import (
    MAX_PIXELS,
    DecodeCache,
    ImageDataset,
    UnreadableImageError,
    list_images,
    open_image,
    read_image,
)
from cl_core.images.opening import EXTENSIONS, FORMATS
from cl_core.report.explorer.thumbnails import thumbnails

SOURCES = Path(__file__).parents[2] / "packages"

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
0 0 1 setrgbcolor 0 0 32 32 rectfill showpage
%%EOF
"""
WMF = b"\xd7\xcd\xc6\x9a\x00\x00\x00\x00\x00\x00\x20\x00\x20\x00\xa0\x05" + bytes(40)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'


def png(path: Path, width: int, height: int) -> Path:
    """One-bit grey zeros, which pack to almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compress(bytes((1 + -(-width // 8)) * height), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def ghostscript(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `gs` on the path that leaves a trace."""
    trace, program = folder / "ran", folder / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {trace}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return trace


@pytest.mark.parametrize(("name", "content"), [("eps", EPS), ("wmf", WMF), ("svg", SVG)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".eps"])
def test_vector_and_script_files_are_never_opened(tmp_path, monkeypatch, name, content, suffix):
    trace = ghostscript(tmp_path, monkeypatch)
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        UnreadableImageError, match=r"photo\.\w+: cannot .*vector or script file, which is never"
    ):
        read_image(path)
    assert thumbnails([path], 8) == [""]
    assert not trace.exists()


def test_no_other_room_opens_images():
    opens = re.compile(r"Image\.open\(|\bimread\(|import imageio|from imageio")
    found = [
        path.name for path in SOURCES.glob("*/src/**/*.py") if opens.search(path.read_text("utf-8"))
    ]
    assert found == ["opening.py"]


def test_only_raster_formats_are_on_the_list():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    assert not {"EPS", "WMF", "PDF", "PSD", "FPX", "MIC", "HDF5", "BUFR", "GRIB"} & set(FORMATS)


def test_an_image_beyond_the_limit_is_refused_in_one_line_and_allowed_by_an_option(tmp_path):
    path = png(tmp_path / "bomb.png", 13_300, 13_300)
    assert path.stat().st_size < 25_000
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path}: cannot be read as an image (it holds 176890000 pixels, more than "
        "max_pixels=100000000); if it is an honest image make it smaller or, where that is an "
        "option, say max_pixels=176890000, else on_error=skip"
    )
    assert MAX_PIXELS == 100_000_000
    small = png(tmp_path / "small.png", 30, 20)
    with pytest.raises(UnreadableImageError, match="600 pixels, more than max_pixels=599"):
        read_image(small, max_pixels=599)
    assert read_image(small, max_pixels=600).shape == (3, 20, 30)


def test_beyond_pillows_own_limit_the_option_still_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = png(tmp_path / "a.png", 30, 20)
    with pytest.raises(UnreadableImageError, match="600 pixels, more than max_pixels=150"):
        read_image(path, max_pixels=150)  # refused by Pillow itself
    assert read_image(path, max_pixels=600).shape == (3, 20, 30)


def test_the_limit_holds_in_data_sets_caches_and_thumbnails(tmp_path):
    (tmp_path / "x").mkdir()
    for k, size in enumerate((10, 20)):
        png(tmp_path / "x" / f"{k}.png", size, size)
    table = list_images(tmp_path / "x")
    dataset = ImageDataset(table, max_pixels=100, on_error="skip")
    assert len(dataset.checked()) == 1
    assert "400 pixels" in str(dataset.checked().table.notes)
    assert len(DecodeCache.of(tmp_path / "c", table, max_pixels=100)) == 1
    bomb = png(tmp_path / "bomb.png", 13_300, 13_300)
    assert thumbnails([bomb], 8) == [""]


def test_pillows_warnings_do_not_escape(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 1
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    at = data.index(b"Exif\0\0") + 10
    (tmp_path / "a.jpg").write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Image.open(tmp_path / "a.jpg") as plain:
            plain.getexif()
        assert seen, "the file must make Pillow warn"
        del seen[:]
        assert read_image(tmp_path / "a.jpg").shape == (3, 8, 8)
        assert seen == []


def test_less_usual_names_of_readable_formats_are_listed_and_read(tmp_path):
    pixels = np.full((16, 16, 3), 90, np.uint8)
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".JPG": "JPEG", ".pbm": "PPM"}
    kinds |= {".jp2": "JPEG2000"} if features.check("jpg_2000") else {}
    kinds |= {".avif": "AVIF"} if features.check("avif") else {}
    for suffix, kind in kinds.items():
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}", format=kind)
    table = list_images(tmp_path)
    assert len(table) == len(kinds)
    for file in table.files:
        assert (read_image(file).int() - 90).abs().max() <= 3


def test_pictures_of_other_formats_are_counted(tmp_path):
    for name in ("a.heic", "b.HEIC", "c.svg"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"no image .*not read left out: 2 \.heic, 1 \.svg"):
        list_images(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "d.png")
    assert list_images(tmp_path).notes == (
        "files of formats that are not read left out: 2 .heic, 1 .svg",
    )


def test_what_this_pillow_cannot_read_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("cl_core.images.folder.EXTENSIONS", EXTENSIONS - {".avif"})
    Image.new("L", (4, 4)).save(tmp_path / "d.png")
    (tmp_path / "a.avif").write_bytes(b"x")
    assert "left out: 1 .avif" in list_images(tmp_path).notes[0]


def test_masks_and_others_can_be_opened_as_they_are(tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.save(tmp_path / "m.png")
    with open_image(tmp_path / "m.png") as image:
        assert image.mode == "P"
    with (
        pytest.raises(UnreadableImageError, match=r"m\.png: cannot be read .* .wrong inside"),
        open_image(tmp_path / "m.png"),
    ):
        raise OSError("wrong inside")


@pytest.mark.parametrize("damage", [b'{"options": 1}', b"[]", b'{"options": {}, "stamps": {}}'])
def test_a_damaged_cache_is_named(tmp_path, damage):
    index = damage
    tail = struct.pack("<QQ8s", 0, len(index), b"clcache1")
    (tmp_path / "c").write_bytes(index + tail)
    with pytest.raises(InputError, match=r"c: is not a decode cache .*delete it"):
        DecodeCache(tmp_path / "c")


@pytest.mark.parametrize("entry", ['[0, 1000, 1000, 3, "|u1"]', '[0, 1, 1, 3, "<c16"]', "[0]"])
def test_a_cache_cannot_point_outside_its_pixels(tmp_path, entry):
    index = f'{{"options": {{}}, "stamps": {{}}, "entries": {{"a": {entry}}}}}'.encode()
    tail = struct.pack("<QQ8s", 16, len(index), b"clcache1")
    (tmp_path / "c").write_bytes(bytes(16) + index + tail)
    with pytest.raises(InputError, match=r"c: is not a decode cache"):
        DecodeCache(tmp_path / "c")


def test_float_images_must_lie_in_their_range(tmp_path):
    values = np.linspace(0, 240, 48, dtype=np.float32).reshape(6, 8)
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(
        InputError, match=r"a\.tif: its values run from 0 to 240, outside 0 to 1; .*value_range=255"
    ):
        read_image(path)
    x = read_image(path, channels=1, value_range=255)
    torch.testing.assert_close(x[0], torch.from_numpy(values) / 255)
    x = read_image(path, channels=1, value_range=(-60, 240.0))
    torch.testing.assert_close(x[0], (torch.from_numpy(values) + 60) / 300)
    assert torch.equal(
        read_image(path, channels=1, value_range="keep")[0], torch.from_numpy(values)
    )
    with pytest.raises(InputError, match="outside 0 to 239"):
        read_image(path, value_range=239)
    Image.fromarray(values - 100).save(path)
    with pytest.raises(InputError, match=r"value_range=\[-100,140\]"):
        read_image(path)


def test_a_wrong_range_is_never_skipped(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 7.0, np.float32)).save(tmp_path / "b.tif")
    dataset = ImageDataset(list_images(tmp_path), on_error="skip")
    assert dataset[0].views[0].max() == 0.5
    for attempt in (lambda: dataset[1], dataset.checked):
        with pytest.raises(InputError, match=r"b\.tif: its values run from 7 to 7"):
            attempt()


def test_values_that_are_not_finite_make_a_file_unreadable(tmp_path):
    Image.fromarray(np.array([[0.5, np.nan]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match="values that are not finite"):
        read_image(tmp_path / "a.tif")


def test_a_cache_keeps_the_range_it_was_made_with(tmp_path):
    Image.fromarray(np.full((4, 4), 51.0, np.float32)).save(tmp_path / "a.tif")
    table = list_images(tmp_path)
    for scale, value in ((255, 0.2), ((0.0, 102.0), 0.5)):
        cache = DecodeCache.of(tmp_path / "c", table, value_range=scale)
        dataset = ImageDataset(table, cache=cache, value_range=scale)
        assert dataset[0].views[0].max().item() == pytest.approx(value)
        with pytest.raises(ValueError, match="with the dataset's options"):
            ImageDataset(table, cache=cache)
