"""The explorer page, driven in a real browser, and what goes into it."""

import base64
import io
import json
from urllib.parse import quote

import numpy as np
import pytest
import torch
from browser import BROWSER, browser
from PIL import Image

from cl_core.errors import InputError
from cl_core.images import list_images
from cl_core.report import Report
from cl_core.report.explorer import contact_sheet, explorer_block, explorer_page, thumbnails
from cl_core.report.explorer.fields import category, field
from cl_core.report.figures import MISSING

HOSTILE = "</script><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


COLOURS = {"a": (220, 30, 30), "b": (30, 170, 30), "c": (30, 30, 220), "d": (200, 200, 20)}
POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # a b below, c d above


def squares():
    return [np.full((40, 40, 3), colour, np.uint8) for colour in COLOURS.values()]


def page(path, **more):
    options = {
        "images": squares(),
        "labels": np.array([0, 0, 1, -1]),
        "classes": ["oat", "rye"],
        "ids": list(COLOURS),
        "columns": {"height": [1.5, 2.5, None, 4.5]},
    }
    return explorer_page(path / "explorer.html", POINTS, **options | more)


def place(tab):
    """Where the pinned point is, in pixels of the page."""
    tab.js("new Promise(requestAnimationFrame)")
    box = "document.querySelector('.ring.pinned').getBoundingClientRect()"
    return tab.js(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")


def link(tab, path, name):
    tab.open(path, f"#point={quote(name)}")
    return place(tab)


def middle_of(tab, selector):
    """Colour of the middle of an image that the page shows."""
    return tab.js(
        f"(async photo => {{ await photo.decode(); const c = document.createElement('canvas');"
        "c.width = c.height = 1; const pen = c.getContext('2d');"
        "pen.drawImage(photo, photo.naturalWidth / 2, photo.naturalHeight / 2, 1, 1, 0, 0, 1, 1);"
        f"return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3); }})"
        f"(document.querySelector('{selector}'))"
    )


def test_a_link_pins_its_point_where_it_belongs_with_its_picture_and_fields(tab, tmp_path):
    path = page(tmp_path)
    places = {name: link(tab, path, name) for name in COLOURS}
    assert places["a"][0] == pytest.approx(places["c"][0], abs=1)
    assert places["b"][0] - places["a"][0] == pytest.approx(places["a"][1] - places["c"][1], abs=1)
    assert places["b"][0] > places["a"][0] + 100
    assert places["a"][1] > places["c"][1] + 100  # the second axis points up
    assert tab.text(".card .name") == "d"
    assert tab.text(".card dl").split("\n") == ["class", MISSING, "height", "4.5"]
    assert np.abs(np.subtract(middle_of(tab, ".card .photo"), COLOURS["d"])).max() < 12
    assert not tab.complaints()


def test_the_pointer_shows_a_point_and_a_click_pins_it(tab, tmp_path):
    path = page(tmp_path)
    x, y = link(tab, path, "b")
    tab.open(path)
    assert not tab.shown(".card")
    tab.mouse("mouseMoved", x + 3, y - 3)
    assert tab.shown(".tip")
    assert tab.text(".tip .name") == "b"
    assert tab.text(".tip dl").split("\n") == ["class", "oat", "height", "2.5"]
    assert np.abs(np.subtract(middle_of(tab, ".tip .photo"), COLOURS["b"])).max() < 12
    tab.mouse("mouseMoved", x + 60, y)
    assert not tab.shown(".tip")
    tab.click(x, y)
    assert tab.text(".card .name") == "b"
    assert tab.js("location.hash") == "#point=b"


def test_the_keyboard_walks_pins_and_lets_go(tab, tmp_path):
    tab.open(page(tmp_path), "#point=a")
    tab.js("document.querySelector('canvas').focus()")
    tab.key("ArrowRight")
    assert tab.text(".tip .name") == "b"
    tab.key("ArrowUp")
    assert tab.text(".tip .name") == "d"
    assert tab.text("[role=status]") == f"d, {MISSING}"
    tab.key("Enter")
    assert tab.text(".card .name") == "d"
    tab.key("Escape")
    tab.key("Escape")
    assert not tab.shown(".card")
    assert tab.js("location.hash") == ""
    tab.key("/", "/")
    assert tab.js("document.activeElement.type") == "search"


def test_the_wheel_zooms_about_the_pointer_and_dragging_pans(tab, tmp_path):
    path = page(tmp_path)
    far = link(tab, path, "b")
    x, y = link(tab, path, "a")
    tab.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    assert place(tab) == pytest.approx([x, y], abs=1.5)  # the point under the pointer stays
    tab.mouse("mouseMoved", x + 40, y)
    tab.mouse("mousePressed", x + 40, y, button="left", clickCount=1)
    tab.mouse("mouseMoved", x + 70, y - 50, button="left", buttons=1)
    tab.mouse("mouseReleased", x + 70, y - 50, button="left", clickCount=1)
    assert place(tab) == pytest.approx([x + 30, y - 50], abs=1.5)
    assert tab.text(".card .name") == "a"  # a drag is no click
    tab.js("location.hash = '#point=b'")
    tab.js("new Promise(done => setTimeout(done, 50))")
    assert place(tab)[0] - (x + 30) != pytest.approx(far[0] - x, abs=20)


def nearly(picture, colour, tolerance=40):
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < tolerance).sum())


def test_the_legend_hides_a_class_or_all_others(tab, tmp_path):
    tab.scheme("light")
    tab.open(page(tmp_path))
    stage = (slice(90, 770), slice(30, 970))
    oat, rye = (59, 125, 216), (224, 130, 20)  # the first colours of the palette
    assert nearly(tab.picture()[stage], oat) > 20
    assert nearly(tab.picture()[stage], rye) > 10
    assert [tab.text(f".legend li:nth-child({k})").split("\n") for k in (1, 2, 3)] == [
        ["oat", "2"],
        ["rye", "1"],
        ["unlabelled", "1"],
    ]
    tab.js("document.querySelector('.legend li button').click()")
    tab.js("new Promise(requestAnimationFrame)")
    assert nearly(tab.picture()[stage], oat) == 0
    assert nearly(tab.picture()[stage], rye) > 10
    assert tab.text(".count") == "2 of 4 points"
    tab.js(
        "document.querySelector('.legend li button')"
        ".dispatchEvent(new MouseEvent('click', {shiftKey: true}))"
    )
    tab.js("new Promise(requestAnimationFrame)")
    assert nearly(tab.picture()[stage], rye) == 0
    assert nearly(tab.picture()[stage], oat) > 20


def test_a_search_finds_ids_and_classes_and_enter_pins_the_first(tab, tmp_path):
    tab.open(page(tmp_path, ids=["field 1/a", "field 1/b", "field 2/a", "field 2/b"]))
    tab.js("document.querySelector('input').focus()")
    tab.call("Input.insertText", text="FIELD 2")
    assert tab.text(".count") == "2 of 4 match"
    tab.key("Enter")
    assert tab.text(".card .name") == "field 2/a"
    tab.js("document.querySelector('input').select()")
    tab.call("Input.insertText", text="oat")
    assert tab.text(".count") == "2 of 4 match"
    tab.key("Escape")
    assert tab.text(".count") == "4 points"


def test_colours_follow_the_chosen_column_and_pictures_take_the_place_of_points(tab, tmp_path):
    tab.scheme("light")
    tab.open(page(tmp_path))
    assert nearly(tab.picture(), COLOURS["d"], 25) == 0
    tab.js(
        "(s => { s.value = 'height'; s.dispatchEvent(new Event('change')); })"
        "(document.querySelector('select'))"
    )
    assert tab.text(".legend").split("\n") == ["height", "1.5", "4.5"]
    tab.js("document.querySelector('.tools .pictures').click()")
    tab.js("new Promise(done => setTimeout(done, 300))")
    for colour in COLOURS.values():
        assert nearly(tab.picture(), colour, 25) > 900


def test_another_projection_moves_the_points(tab, tmp_path):
    planes = {"PCA": POINTS, "mirrored": POINTS * [-1, 1]}
    path = explorer_page(tmp_path / "e.html", planes, ids=list(COLOURS))
    tab.scheme("light")  # with reduced motion
    a, b = link(tab, path, "a"), link(tab, path, "b")
    tab.js("document.querySelector('[data-plane=\"1\"]').click()")
    assert place(tab) == pytest.approx(a, abs=1)
    assert a[0] < b[0] - 100


@pytest.mark.parametrize(("scheme", "light"), [("light", True), ("dark", False)])
def test_the_page_follows_the_light_or_dark_setting(tab, tmp_path, scheme, light):
    tab.scheme(scheme)
    tab.open(page(tmp_path))
    assert (np.median(tab.picture()) > 128) == light


def test_hostile_names_are_text_in_the_browser(tab, tmp_path):
    ids = [HOSTILE, "% 100%", "ünï/ 葉.jpg", "bytes \udcff"]
    path = page(
        tmp_path, ids=ids, classes=[HOSTILE, "x"], columns={HOSTILE: [HOSTILE, "", "", ""]},
        title=HOSTILE, subtitle=HOSTILE,
    )  # fmt: skip
    for name in ids[:3]:
        link(tab, path, name)
        assert tab.text(".card .name") == name
        assert tab.js("document.title") == HOSTILE
    link(tab, path, HOSTILE)
    assert tab.text(".card dl").count(HOSTILE) == 3
    assert not tab.complaints()


def test_a_script_that_is_not_the_page_s_own_is_refused(tab, tmp_path):
    path = page(tmp_path)
    path.write_text(path.read_text().replace("</main>", "<script>var owned = 1</script></main>"))
    tab.open(path)
    assert tab.js("typeof owned") == "undefined"
    assert any("Content Security Policy" in json.dumps(event) for event in tab.complaints())


def test_a_report_carries_the_explorer_and_a_contact_sheet(tab, tmp_path):
    report = Report("Run").section("Images")
    report.block(contact_sheet(squares(), list(COLOURS), ["x", "y", "y", "y"]), "All of them.")
    report.block(explorer_block(POINTS, squares(), ids=list(COLOURS)))
    tab.open(report.save(tmp_path / "report.html"))
    assert tab.text(".contact-sheet h3:nth-of-type(2)") == "y 3 images"
    tab.js("document.querySelector('canvas').scrollIntoView()")
    tab.js("document.querySelector('canvas').focus()")
    tab.key("ArrowRight")
    assert tab.shown(".tip")
    got = middle_of(tab, ".contact-sheet ul:nth-of-type(2) li:nth-child(2) img")
    assert np.abs(np.subtract(got, COLOURS["c"])).max() < 12
    assert not tab.complaints()


def test_a_narrow_window_has_no_sideways_scroll(tab, tmp_path):
    tab.size(390, 844, ratio=2)
    try:
        tab.open(page(tmp_path), "#point=a")
        assert tab.js("document.documentElement.scrollWidth") <= 390
        assert tab.shown(".card")
    finally:
        tab.size(1280, 800)


def test_twenty_thousand_points_open_in_a_small_page(tab, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 20_000)
    points = rng.normal(size=(20_000, 2)) + np.c_[labels, labels % 3]
    path = explorer_page(tmp_path / "e.html", points, labels=labels)
    assert path.stat().st_size < 1_000_000
    tab.open(path, "#point=19999")
    assert tab.text(".card .name") == "19999"
    assert tab.text(".count") == "20,000 points"


# ---- what goes in


def embedded(block):
    text = str(block).partition('<script type="application/json">')[2].partition("</script>")[0]
    return json.loads(text)


def opened(thumbnail):
    return Image.open(io.BytesIO(base64.b64decode(thumbnail)))


def test_a_thumbnail_fits_its_square_and_is_never_enlarged():
    wide, small = np.zeros((50, 200, 3), np.uint8), np.zeros((5, 7), np.uint8)
    assert [opened(t).size for t in thumbnails([wide, small], 64)] == [(64, 16), (7, 5)]


def test_every_kind_of_picture_shows_the_same_colours(tmp_path):
    array = np.zeros((16, 16, 3), np.uint8) + np.array([200, 60, 20], np.uint8)
    Image.fromarray(array).save(tmp_path / "ä b.png")
    deep = torch.from_numpy(array).permute(2, 0, 1)
    kinds = [array, Image.fromarray(array), deep, deep / 255, tmp_path / "ä b.png"]
    for thumbnail in thumbnails(kinds, 16):
        pixel = np.asarray(opened(thumbnail).convert("RGB"))[8, 8].astype(int)
        assert np.abs(pixel - [200, 60, 20]).max() < 8


def test_sixteen_bits_are_stretched_and_a_broken_file_leaves_a_gap(tmp_path):
    dim = np.full((16, 16), 300, np.uint16)
    dim[:, 8:] = 900
    Image.fromarray(dim).save(tmp_path / "dim.png")
    (tmp_path / "broken.png").write_bytes(b"")
    from_file, gap, from_array = thumbnails(
        [tmp_path / "dim.png", tmp_path / "broken.png", dim], 16
    )
    assert gap == ""
    assert thumbnails([None, dim], 16) == [None, from_array]
    for thumbnail in (from_file, from_array):
        grey = np.asarray(opened(thumbnail).convert("L"))
        assert grey[:, :6].max() < 20
        assert grey[:, 10:].min() > 235
    with pytest.raises(ValueError, match="a picture is an array"):
        thumbnails([np.zeros(4)], 16)


def test_a_contact_sheet_orders_groups_and_tells_what_it_leaves_out():
    groups = [10, 2, 2, -1, 2]
    html = str(contact_sheet([np.zeros((4, 4), np.uint8)] * 5, list("abcde"), groups, per_group=2))
    headings = [part.partition("</span>")[0] for part in html.split("<h3>")[1:]]
    assert headings == ["2 <span>3 images, 2 shown", "10 <span>1 image", "unlabelled <span>1 image"]
    assert html.count("<img") == 4
    assert 'alt="e"' not in html  # the third of group 2


def test_a_contact_sheet_of_a_table_names_files_and_classes(tmp_path):
    for name in ("oat/a <b>.png", "rye/c.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "rye" / "bad.png").write_bytes(b"no image")
    html = str(contact_sheet(list_images(tmp_path)))
    assert '<figure title="oat/a &lt;b&gt;.png">' in html
    assert "<figcaption>a &lt;b&gt;.png</figcaption>" in html
    assert html.count('<div class="missing">unreadable</div>') == 1
    assert html.index("oat <span>") < html.index("rye <span>")


def test_a_contact_sheet_escapes_and_writes_what_is_no_unicode():
    html = str(contact_sheet([np.zeros((4, 4), np.uint8)], [HOSTILE + "\udcff"], [HOSTILE]))
    assert "<script" not in html
    html.encode("utf-8")


def test_a_table_gives_the_page_its_ids_classes_and_splits(tmp_path):
    for name in ("train/oat/a.png", "test/rye/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    data = embedded(explorer_block(np.eye(2), list_images(tmp_path)))
    assert data["ids"] == ["test/rye/b.png", "train/oat/a.png"]
    kinds = {f["name"]: [f["levels"][code] for code in f["codes"]] for f in data["fields"]}
    assert kinds == {"class": ["rye", "oat"], "split": ["test", "train"]}


def test_embeddings_bring_their_projection_and_their_nearest_rows():
    x = np.random.default_rng(3).normal(size=(30, 5))
    data = embedded(explorer_block(torch.from_numpy(x), neighbours=4))
    assert [plane["name"] for plane in data["planes"]] == ["PCA"]
    z = [row / np.linalg.norm(row) for row in x]
    for i in range(30):
        far = sorted((j for j in range(30) if j != i), key=lambda j: -float(z[i] @ z[j]))
        assert data["neighbours"][i] == far[:4]


def test_points_keep_their_proportions():
    data = embedded(explorer_block(np.array([[0, 0], [4, 1], [2, 0.5]])))
    assert data["planes"] == [{"name": "", "x": [0, 100_000, 50_000], "y": [0, 25_000, 12_500]}]
    assert embedded(explorer_block(np.zeros((1, 2))))["planes"][0]["x"] == [0]


def test_columns_become_categories_scales_or_text():
    assert field("a", [True, False])["levels"] == ["no", "yes"]
    assert field("a", [3, -1, 10])["levels"] == ["-1", "3", "10"]
    assert field("a", list(range(50)))["kind"] == "number"
    assert field("a", [0.5, None, np.nan])["values"] == [0.5, None, None]
    assert field("a", ["x", None, "x"])["codes"] == [0, -1, 0]
    assert field("a", [f"name {k}" for k in range(99)])["kind"] == "text"
    assert category("c", np.array([2, 0, -1]), ["oat", "pea", "rye"]) == {
        "name": "c", "kind": "category", "levels": ["oat", "rye"], "codes": [1, 0, -1],
    }  # fmt: skip
    assert category("c", [1.0, np.nan])["codes"] == [0, -1]


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.eye(2), {"ids": ["a"]}, "one of ids a point, got 1 for 2"),
        (np.eye(2), {"labels": [1, 2, 3]}, "one of labels a point, got 3 for 2"),
        (np.eye(2), {"columns": {"size": [1]}}, "one of size a point, got 1 for 2"),
        (np.eye(2), {"images": []}, "one of images a point, got 0 for 2"),
        (np.zeros(3), {}, r"embeddings \(n, d\) or points"),
        (np.array([[0, np.nan]]), {}, "not finite"),
        (np.array([[0, np.inf, 1], [0, 0, 0]]), {}, "embeddings hold values that are not finite"),
        ({"a": np.eye(2), "b": np.zeros((3, 2))}, {}, "differ in their number of points"),
    ],
)
def test_what_cannot_be_drawn_is_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        explorer_block(x, **options)


def test_an_empty_contact_sheet_and_plain_text_in_a_report_are_refused():
    with pytest.raises(InputError, match="at least one image"):
        contact_sheet([])
    with pytest.raises(ValueError, match="one of captions an image, got 1 for 2"):
        contact_sheet([np.zeros((2, 2))] * 2, ["a"])
    with pytest.raises(ValueError, match="marked as safe"):
        Report("r").block("<b>text</b>")
