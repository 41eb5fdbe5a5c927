"""What is opened as a raster: formats by an allow-list, nothing over the network, no bombs."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from mutants import mutants

from cl_core.errors import InputError
from cl_remote_sensing.rasters import formats
from cl_remote_sensing.rasters.handles import handle
from cl_remote_sensing.rasters.mosaic import write_vrt
from cl_remote_sensing.rasters.places import is_remote
from cl_remote_sensing.rasters.raster import open_scene, open_scenes
from cl_remote_sensing.rasters.windows import Window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>-2e7</UpperLeftX><UpperLeftY>2e7</UpperLeftY><LowerRightX>2e7"
    "</LowerRightX><LowerRightY>-2e7</LowerRightY><TileLevel>1</TileLevel><TileCountX>1"
    "</TileCountX><TileCountY>1</TileCountY><YOrigin>top</YOrigin></DataWindow><Projection>"
    "EPSG:3857</Projection><BlockSizeX>256</BlockSizeX><BlockSizeY>256</BlockSizeY>"
    "<BandsCount>1</BandsCount></GDAL_WMS>"
)
AUX = (
    '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{url}/x.tif</MDI>'
    "</Metadata></PAMDataset>"
)


def write(path: Path, values: np.ndarray | None = None, **options: object) -> Path:
    values = np.ones((1, 64, 64), np.uint8) if values is None else values
    shape = dict(zip(("count", "height", "width"), values.shape, strict=True))
    profile = {"driver": "GTiff", "crs": "EPSG:32652", "transform": Affine(10, 0, 5e5, 0, -10, 4e6)}
    with rasterio.open(path, "w", dtype=values.dtype, **(profile | shape | options)) as file:
        file.write(values)
    return path


def vrt(source: str, *, band: str = "", outer: str = "", relative: int = 0) -> str:
    return (
        f'<VRTDataset rasterXSize="64" rasterYSize="64">{outer}<VRTRasterBand dataType="Byte" '
        f'band="1" {band}><SimpleSource><SourceFilename relativeToVRT="{relative}">{source}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The URL of a socket that listens, and whether anyone has connected."""
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        listening.setblocking(False)

        def met() -> bool:
            seen = False
            with suppress(BlockingIOError):
                while True:
                    listening.accept()[0].close()
                    seen = True
            return seen

        yield f"http://127.0.0.1:{listening.getsockname()[1]}", met


def tagged(path: Path, url: str) -> Path:
    write(path)
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{url}/x.tif")
    return path


def saved(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


LEADS_AWAY = {
    "a service under a raster's name": lambda f, u: saved(f / "a.tif", WMS.format(url=u)),
    "a virtual raster": lambda f, u: saved(f / "a.vrt", vrt(f"/vsicurl/{u}/y.tif")),
    "a virtual raster by URL": lambda f, u: saved(f / "a.vrt", vrt(f"{u}/y.tif")),
    "one under another ending": lambda f, u: saved(f / "a.tif", vrt(f"/vsicurl/{u}/y.tif")),
    "an attribute for an element": lambda f, u: saved(
        f / "a.vrt",
        vrt("x").replace("<SimpleSource>", f'<SimpleSource SourceFilename="/vsicurl/{u}/y.tif">'),
    ),
    "an element in lower case": lambda f, u: saved(
        f / "a.vrt", vrt(f"/vsicurl/{u}/y.tif").replace("SourceFilename", "sourcefilename")
    ),
    "text behind a child": lambda f, u: saved(f / "a.vrt", vrt(f"<b/>/vsicurl/{u}/y.tif")),
    "a file system in a file system": lambda f, u: saved(
        f / "a.vrt", vrt(f"/vsizip//vsicurl/{u}/y.zip/y.tif")
    ),
    "a service as a source": lambda f, u: saved(
        f / "a.vrt", vrt(str(saved(f / "s.tif", WMS.format(url=u)).name), relative=1)
    ),
    "a virtual raster as a source": lambda f, u: saved(
        f / "a.vrt", vrt(str(saved(f / "s.vrt", vrt(f"/vsicurl/{u}/y.tif"))))
    ),
    "a service written into the source": lambda f, u: saved(
        f / "a.vrt", vrt(WMS.format(url=u).replace("<", "&lt;"))
    ),
    "a driver's own syntax": lambda f, u: saved(f / "a.vrt", vrt(f"WMS:{u}?")),
    "overviews by a tag": lambda f, u: tagged(f / "a.tif", u),
    "overviews by a side file": lambda f, u: (
        write(f / "a.tif"),
        saved(f / "a.tif.aux.xml", AUX.format(url=f"/vsicurl/{u}")),
    )[0],
    "overviews that are a service": lambda f, u: (
        write(f / "a.tif"),
        saved(f / "a.tif.ovr", WMS.format(url=u)),
    )[0],
    "a mask that is a virtual raster": lambda f, u: (
        write(f / "a.tif"),
        saved(f / "a.tif.msk", vrt(f"/vsicurl/{u}/y.tif")),
    )[0],
    "overviews of a source": lambda f, u: saved(f / "a.vrt", vrt(str(tagged(f / "s.tif", u)))),
    "a list": lambda f, u: saved(f / "list.txt", f"{u}/y.tif\n"),
}


@pytest.mark.parametrize("what", LEADS_AWAY)
def test_local_data_never_lead_to_the_network(what, tmp_path, server):
    url, met = server
    path = LEADS_AWAY[what](tmp_path, url)
    with pytest.raises(InputError) as caught:
        open_scenes([path])[0].read(Window(0, 0, 8, 8))
    assert "\n" not in str(caught.value)
    assert not met()


def test_the_listening_socket_notices(tmp_path, server):
    url, met = server
    saved(tmp_path / "a.vrt", vrt(f"/vsicurl/{url}/y.tif"))
    with (
        rasterio.open(tmp_path / "a.vrt") as file,
        pytest.raises(rasterio.errors.RasterioError),
    ):
        file.read()
    assert met()


def test_the_network_is_asked_where_the_user_says_so(tmp_path, server):
    url, met = server
    saved(tmp_path / "a.vrt", vrt(f"/vsicurl/{url}/y.tif"))
    scene = open_scene(tmp_path / "a.vrt", network=True)
    with pytest.raises(InputError, match="cannot read rows"):
        scene.read(Window(0, 0, 8, 8))
    assert met()
    with pytest.raises(InputError, match="not a raster"):
        open_scene(f"{url}/one.tif")
    assert met()
    saved(tmp_path / "list.txt", f"{url}/other.tif\n")
    with pytest.raises(InputError, match="--allow_network"):
        open_scenes([tmp_path / "list.txt"])
    assert not met()
    with pytest.raises(InputError, match="not a raster"):
        open_scenes([tmp_path / "list.txt"], network=True)
    assert met()


def test_without_a_network_everything_local_works(tmp_path):
    """In a namespace without one, if that may be made."""
    probe = subprocess.run(["unshare", "-rn", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("network namespaces cannot be made here")
    write(tmp_path / "a.tif", np.full((2, 64, 64), 7, np.uint16))
    write_vrt([tmp_path / "a.tif"], tmp_path / "m.vrt")
    code = (
        "import sys; from cl_remote_sensing import open_scene\n"
        "from cl_remote_sensing.rasters.windows import Window\n"
        "print(*(open_scene(p).read(Window(0, 0, 9, 9)).values.sum() for p in sys.argv[1:]))"
    )
    files = [str(tmp_path / "a.tif"), str(tmp_path / "m.vrt")]
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", code, *files], capture_output=True, text=True
    )
    assert done.stdout.split() == ["1134", "1134"], done.stderr


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("a.tif", False),
        ("/data/vsi_images/a.tif", False),
        ("/vsizip/a.zip/a.tif", False),
        ("/vsimem/a.tif", False),
        ("zip://a.zip!a.tif", False),
        ("file:///a.tif", False),
        ("https://x.org/a.tif", True),
        ("s3://b/a.tif", True),
        ("zip+https://x.org/a.zip!a.tif", True),
        ("/vsis3/b/a.tif", True),
        ("/vsizip/vsicurl/https://x.org/a.zip", True),
        ("/vsizip//vsigs/b/a.zip/a.tif", True),
        ("/vsisparse/a.xml", True),
        ("/vsistdin/", True),
    ],
)
def test_what_is_not_known_to_be_local_is_remote(path, remote):
    assert is_remote(path) == remote


def test_files_of_another_format_are_refused_and_the_formats_named(tmp_path):
    (tmp_path / "a.asc").write_text("ncols 1\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n7\n")
    with pytest.raises(InputError, match=r"a\.asc: .* as GTiff, .*convert other formats first"):
        open_scene(tmp_path / "a.asc")


@pytest.mark.parametrize("driver", ["PNG", "JPEG", "BMP", "HFA", "ENVI", "EHdr", "WEBP"])
def test_the_formats_that_are_named_are_read(tmp_path, driver):
    path = tmp_path / "a.img"
    values = np.full((3 if driver in ("WEBP", "BMP") else 1, 16, 16), 9, np.uint8)
    options = {"crs": None, "transform": None} if driver in ("PNG", "JPEG", "BMP", "WEBP") else {}
    try:
        write(path, values, driver=driver, **options)
    except rasterio.errors.RasterioIOError:  # written as a copy only
        write(tmp_path / "b.tif", values, **options)
        rasterio.shutil.copy(tmp_path / "b.tif", path, driver=driver)
    read = open_scene(path).read(Window(2, 2, 5, 5)).values
    np.testing.assert_allclose(read, 9, atol=2)


def test_a_virtual_raster_reads_rasters_wherever_they_lie(tmp_path):
    (tmp_path / "far").mkdir()
    write(tmp_path / "far" / "a.tif")
    for text in (
        vrt("../far/a.tif", relative=1),
        vrt(str(tmp_path / "far" / "a.tif")),
        vrt(
            str(tmp_path / "far" / "a.tif"),
            outer='<Metadata><MDI key="source">https://x.org/vsicurl</MDI></Metadata>',
        ),
    ):
        (tmp_path / "near").mkdir(exist_ok=True)
        saved(tmp_path / "near" / "a.vrt", text)
        assert open_scene(tmp_path / "near" / "a.vrt").read(Window(0, 0, 9, 9)).values.sum() == 81


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1" '
            'subClass="VRTRawRasterBand"><SourceFilename>/etc/hostname</SourceFilename>'
            "</VRTRasterBand></VRTDataset>",
            "reads a file as raw bytes",
        ),
        (
            vrt("a.tif", relative=1).replace(
                "<SimpleSource>",
                "<PixelFunctionLanguage>Python</PixelFunctionLanguage><SimpleSource>",
            ),
            "computes pixels in Python",
        ),
        (vrt("none.tif", relative=1), "'none.tif', which is no plain file"),
        (vrt("notes.txt", relative=1), r"notes\.txt: not a raster"),
        (vrt("a.vrt", relative=1), "nested more than 8 deep"),
        (
            '<!DOCTYPE x [<!ENTITY y "z">]>' + vrt("a.tif", relative=1),
            "(declarations|not a raster)",
        ),
    ],
)
def test_what_a_virtual_raster_may_not_do_is_told(tmp_path, text, told):
    write(tmp_path / "a.tif")
    (tmp_path / "notes.txt").write_text("root:x:0:0")
    saved(tmp_path / "a.vrt", text)
    with pytest.raises(InputError, match=told):
        open_scene(tmp_path / "a.vrt")


def png_of(height: int, width: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_what_would_unpack_to_gigabytes_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_of(40_000, 40_000))
    with pytest.raises(InputError, match=r"bomb\.png: has to be unpacked .* \(4\.5 GiB, over the"):
        open_scene(tmp_path / "bomb.png")
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "sparse_ok": True}
    profile |= {"crs": "EPSG:32652", "transform": Affine(10, 0, 5e5, 0, -10, 4e6)}
    with rasterio.open(
        tmp_path / "tile.tif",
        "w",
        height=40_000,
        width=40_000,
        tiled=True,
        blockxsize=40_000,
        blockysize=40_000,
        **profile,
    ):
        pass
    with pytest.raises(InputError, match=r"tile\.tif: .* tile it first"):
        open_scene(tmp_path / "tile.tif")
    saved(tmp_path / "wide.vrt", vrt("x").replace('"64"', '"2000000000"'))
    with pytest.raises(InputError, match=r"names 'x'|over the limit"):
        open_scene(tmp_path / "wide.vrt")
    write(tmp_path / "a.tif")
    saved(tmp_path / "wide.vrt", vrt("a.tif", relative=1).replace('"64"', '"2000000000"'))
    with pytest.raises(InputError, match=r"wide\.vrt: says it has 2000000000 x .* limit of 1e\+12"):
        open_scene(tmp_path / "wide.vrt")
    many = np.zeros((formats.MAX_BANDS + 1, 1, 1), np.uint8)
    write(tmp_path / "bands.tif", many)
    with pytest.raises(InputError, match=r"4097 bands, over the limit of 4096"):
        open_scene(tmp_path / "bands.tif")


def test_beside_a_raster_in_an_archive_nothing_is_looked_for(tmp_path, server):
    url, met = server
    write(tmp_path / "a.tif", np.full((1, 512, 512), 3, np.uint8))
    saved(tmp_path / "a.tif.ovr", WMS.format(url=url))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "a.tif")
        archive.write(tmp_path / "a.tif.ovr", "a.tif.ovr")
    scene = open_scene(f"/vsizip/{tmp_path / 'a.zip'}/a.tif")
    assert handle(scene.path).overviews(1) == []
    pixels = scene.read(Window(0, 0, 512, 512), shape=(32, 32))
    assert (pixels.values == 3).all()
    assert not met()


# Files that are replaced while they are in use.


def test_a_replaced_file_is_read_anew_and_one_of_another_size_is_told(tmp_path):
    path = write(tmp_path / "a.tif")
    scene = open_scene(path)
    window = Window(0, 0, 8, 8)
    assert (scene.read(window).values == 1).all()
    write(path, np.full((1, 64, 64), 2, np.uint8))  # in place
    assert (scene.read(window).values == 2).all()
    write(tmp_path / "b.tif", np.full((1, 64, 64), 3, np.uint8))
    (tmp_path / "b.tif").replace(path)  # another file under its name
    assert (scene.read(window).values == 3).all()
    write(path, np.full((1, 32, 32), 4, np.uint8))
    with pytest.raises(InputError, match="was 64 x 64 pixels and is now 32 x 32"):
        scene.read(window)
    assert open_scene(path).height == 32


def test_a_replaced_source_of_a_virtual_raster_is_read_anew(tmp_path):
    write(tmp_path / "a.tif")
    write_vrt([tmp_path / "a.tif"], tmp_path / "m.vrt")
    window = Window(0, 0, 8, 8)
    assert (open_scene(tmp_path / "m.vrt").read(window).values == 1).all()
    write(tmp_path / "a.tif", np.full((1, 64, 64), 2, np.uint8))
    assert (open_scene(tmp_path / "m.vrt").read(window).values == 2).all()


def test_a_replacement_is_checked_as_the_first_was(tmp_path, server):
    url, met = server
    scene = open_scene(write(tmp_path / "a.tif"))
    saved(tmp_path / "a.tif", WMS.format(url=url))
    with pytest.raises(InputError, match="not a raster"):
        scene.read(Window(0, 0, 8, 8))
    assert not met()


def test_a_damaged_raster_is_read_or_told_in_one_line(tmp_path, mutations):
    small = np.random.default_rng(0).integers(0, 99, (2, 24, 40), dtype=np.uint8)
    sound = {
        "a.tif": write(tmp_path / "s.tif", small, compress="deflate", nodata=0).read_bytes(),
        "a.vrt": vrt("s.tif", relative=1).encode(),
    }
    write(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    for name, content in sound.items():
        for mutant in mutants(content, mutations, seed=7):
            (tmp_path / name).write_bytes(mutant)
            told = ""
            try:
                scene = open_scene(tmp_path / name)
                height, width = min(scene.height, 24), min(scene.width, 24)
                scene.read(Window(0, 0, height, width))
            except InputError as error:
                told = str(error)
            assert "\n" not in told
