"""The report page: everything in it, nothing outside, nothing executed that a user wrote."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cl_core.report import Report
from cl_core.report.explorer.plane import scatter_2d
from cl_core.report.figures import new_figure

HOSTILE = '<script>alert("1")</script>'


class Page(HTMLParser):
    """What a browser would see: elements, identifiers, links, scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.links, self.scripts, self.texts = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        names = ("src", "href", "xlink:href", "action", "srcset", "data")
        self.links += [attrs[name] for name in names if name in attrs]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data.strip())


def drawing(text="label"):
    figure, (axes,) = new_figure(width=3, height=2)
    axes.plot([0, 1], [0, 1], label=text)
    axes.set_title(text)
    axes.legend()
    return figure


def full():
    report = Report("Run", "subtitle").metrics({"accuracy": 0.84})
    report.section("Scores").text("One.\n\nTwo.")
    report.table([{"method": "a", "accuracy": 0.5}, {"method": "b"}], "All scores.")
    report.section("Pictures").figure(drawing(), "A line.").figure(drawing(), "Again.")
    report.block(scatter_2d(np.eye(2), np.array([0, 1])), "Points.")
    return report.configuration({"lr": 0.1, "trainer": {"devices": 1}})


def test_nothing_is_loaded_from_elsewhere():
    html = full().html()
    page = Page(html)
    assert page.links
    for link in page.links:
        assert link.startswith(("#", "data:")), link
    assert "link" not in page.tags
    assert "iframe" not in page.tags
    assert "@import" not in html[: html.index("</style>")]
    assert "default-src 'none'" in html


def test_every_identifier_is_unique_and_every_reference_has_its_target():
    html = full().html()
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert not link.startswith("#") or link[1:] in page.ids, link


def test_sections_are_listed_and_equal_titles_have_their_own_anchors():
    page = Page(Report("r").section("Scores").section("Scores").section("Ünï").html())
    assert [link for link in page.links if link.startswith("#")][:3] == [
        "#scores",
        "#scores-2",
        "#n",
    ]


def test_text_tables_and_options_are_on_the_page():
    texts = Page(full().html()).texts
    for expected in ("Run", "subtitle", "One.", "Two.", "All scores.", "b", "A line.", "0.84"):
        assert expected in texts
    assert "trainer.devices" in texts
    assert texts.count("\N{EN DASH}") == 1  # the accuracy that b does not have


@pytest.mark.parametrize(
    "build",
    [
        lambda r: Report(HOSTILE, HOSTILE),
        lambda r: r.section(HOSTILE),
        lambda r: r.text(HOSTILE),
        lambda r: r.metrics({HOSTILE: HOSTILE}),
        lambda r: r.configuration({HOSTILE: HOSTILE}, HOSTILE),
        lambda r: r.table([{HOSTILE: HOSTILE}], HOSTILE),
        lambda r: r.figure(drawing(HOSTILE), HOSTILE),
    ],
)
def test_what_a_user_names_is_text_and_never_a_script(build):
    html = build(Report("r")).html()
    assert "script" not in Page(html).tags
    assert "<script" not in html


def test_names_on_a_plane_cannot_end_its_script():
    block = scatter_2d(np.eye(2), np.array([0, 1]), [HOSTILE, "</script>"], [HOSTILE, "b"])
    page = Page(Report("r").block(block, HOSTILE).html())
    assert page.tags.count("script") == 2  # the data, the drawing
    assert json.loads(page.scripts[0])["ids"] == [HOSTILE, "b"]


def test_a_page_without_images_is_small():
    assert len(Report("r").figure(drawing()).html()) < 100_000
    points = np.random.default_rng(0).normal(size=(10_000, 2))
    names = [f"photos/field {row // 100}/plant {row}.jpg" for row in range(len(points))]
    block = scatter_2d(points, np.arange(len(points)) % 10, None, names)
    assert len(Report("r").block(block).html()) < 1_500_000


def test_panels_stand_on_their_own_and_the_figure_stays_as_it_was():
    figure, panels = new_figure(1, 3)
    for number, panel in enumerate(panels):
        panel.plot([0, 1], [0, number])
        panel.set_xlabel("epoch")
    panels[2].set_visible(False)
    before = [panel.get_position().bounds for panel in panels]
    html = Report("r").figure(figure).html()
    assert html.count("<svg") == 2
    sizes = set(re.findall(r'<svg[^>]* viewBox="([^"]*)"', html))
    assert len(sizes) == 1  # all of one size
    assert [panel.get_visible() for panel in panels] == [True, True, False]
    assert Report("r").figure(figure).html().count("<svg") == 2
    assert len(before) == 3
    figure.suptitle("of all")
    assert Report("r").figure(figure).html().count("<svg") == 1


def test_links_lead_to_pages_near_by_and_are_escaped():
    html = Report("r").links({HOSTILE: "../a b/report.html", "x": "javascript:alert(1)"}).html()
    assert '<a href="../a%20b/report.html">' in html
    assert "<script" not in html
    assert 'href="javascript:' not in html


def test_black_ink_takes_the_colour_of_the_page():
    html = Report("r").figure(drawing()).html()
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert "prefers-color-scheme: dark" in html


def test_a_figure_with_very_many_points_becomes_a_picture():
    figure, (axes,) = new_figure(width=3, height=2)
    rng = np.random.default_rng(0)
    axes.scatter(*rng.normal(size=(2, 20_000)), c=rng.random(20_000), s=1)
    html = Report("r").figure(figure, 'many "points"').html()
    assert 'src="data:image/png;base64,iVBOR' in html
    assert "<svg" not in html
    assert len(html) < 1_500_000


def test_columns_of_numbers_are_flush_right():
    html = Report("r").table([{"a": "x", "b": "84.0 ± 0.9"}, {"a": "1", "b": 1e-7}]).html()
    assert '<th scope="col">a</th><th scope="col" class="number">b</th>' in html


def test_saving_replaces_the_page_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert Report("new title").save(path) == path
    assert "new title" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    report = Report("r")
    report.section("s")
    report._sections[0]["blocks"] = None
    with pytest.raises(TypeError):
        report.save(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
