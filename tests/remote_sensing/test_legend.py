import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutants
from raster_files import write

from cl_core.errors import InputError
from cl_remote_sensing.labels.discovery import discover
from cl_remote_sensing.labels.legend import IGNORE, Legend, default_colors
from cl_remote_sensing.labels.legend_files import read_legend

KOREA = Legend(
    ("building", "road", "field"), (10, 30, 50), ((255, 0, 0), (90, 90, 90), (250, 240, 10))
)


@pytest.mark.parametrize(
    "text",
    [
        "- {name: building, code: 10, color: '#ff0000'}\n"
        "- {name: road, code: 30, color: [90, 90, 90]}\n"
        "- {name: field, code: 50, color: '250, 240, 10'}\n",
        "classes:\n  building: {code: 10, color: '#ff0000'}\n"
        "  road: {code: 30, color: '90 90 90'}\n  field: {code: 50, color: [250, 240, 10]}\n",
        "10: {name: building, color: '#ff0000'}\n30: {name: road, color: [90, 90, 90]}\n"
        "50: {name: field, color: '#faf00a'}\n",
    ],
)
def test_a_yaml_legend_may_be_a_list_or_a_mapping(tmp_path, text):
    (tmp_path / "legend.yaml").write_text(text)
    assert read_legend(tmp_path / "legend.yaml") == KOREA


def test_a_csv_legend_takes_hex_colors_or_three_columns(tmp_path):
    one = tmp_path / "one.csv"
    one.write_text("name,code,color\nbuilding,10,#ff0000\nroad,30,#5a5a5a\nfield,50,#faf00a\n")
    other = tmp_path / "other.csv"
    other.write_text(
        "code,name,red,green,blue\n10,building,255,0,0\n30,road,90,90,90\n50,field,250,240,10\n"
    )
    assert read_legend(one) == read_legend(other) == KOREA


def test_a_json_legend_is_what_a_model_card_holds(tmp_path):
    path = tmp_path / "legend.json"
    path.write_text(json.dumps(KOREA.to_dict()))
    assert read_legend(path) == KOREA


def test_codes_map_to_names_and_names_to_codes(tmp_path):
    (tmp_path / "a.yaml").write_text("10: building\n30: road\n")
    (tmp_path / "b.yaml").write_text("building: 10\nroad: 30\n")
    legend = read_legend(tmp_path / "a.yaml")
    assert legend == read_legend(tmp_path / "b.yaml")
    assert legend.names == ("building", "road")
    assert legend.codes == (10, 30)


def test_names_alone_leave_codes_open_and_get_colors(tmp_path):
    (tmp_path / "legend.yaml").write_text("[water, land]")
    legend = read_legend(tmp_path / "legend.yaml")
    assert legend.codes is None
    assert legend.colors == default_colors(2)


def test_an_entry_called_ignore_is_no_class(tmp_path):
    path = tmp_path / "legend.csv"
    path.write_text("name,code,color\nignore,0,#000000\nwater,7,\n")
    legend = read_legend(path)
    assert legend.names == ("water",)
    assert legend.ignored == (0,)
    assert legend.ignored_colors == ((0, 0, 0),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "- {name: water, code: 7}\n- {name: ignore, code: [0, 255, cloud]}\n"),
        ("b.yaml", "classes: [{name: water, code: 7}]\nignore: [0, 255, cloud]\n"),
        ("c.yaml", "water: 7\nignore: [0, 255, cloud]\n"),
        ("d.json", '[{"name": "water", "code": 7}, {"name": "ignore", "code": ["cloud", 0, 255]}]'),
        ("e.csv", "name,code\nwater,7\nignore,0\nignore,255\nignore,cloud\n"),
    ],
)
def test_what_is_no_class_is_named_by_code_or_name_or_a_list(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    legend = read_legend(tmp_path / name)
    assert legend.codes == (7,)
    assert legend.ignored == (0, 255)
    assert legend.ignored_names == ("cloud",)
    assert Legend.from_dict(json.loads(json.dumps(legend.to_dict()))) == legend


WRONG = [None, True, 3, -1.5, "x", [], [[]], {}, {"a": {}}, 10**400, [1, 2, 3, 4], float("inf"), ""]


@pytest.mark.parametrize("key", ["name", "code", "color", "red"])
def test_wrong_types_at_every_place_are_taken_or_told(tmp_path, key):
    path = tmp_path / "legend.json"
    for value in WRONG:
        entry = {"name": "a", "code": 1, key: value}
        for plain in (
            [entry],
            {"classes": [entry]},
            entry,
            {"1": entry},
            [value],
            {"classes": value},
        ):
            path.write_text(json.dumps(plain))
            told = ""
            try:
                read_legend(path)
            except InputError as error:
                told = str(error)
            assert "\n" not in told
            assert len(told) < 500


def test_damaged_legends_are_read_or_told(tmp_path, mutations):
    yaml = "- {name: a, code: 1, color: '#ff0000'}\n- {name: ignore, code: [0, b]}\n"
    sound = {
        "l.yaml": yaml,
        "l.json": json.dumps(KOREA.to_dict()),
        "l.csv": "name,code\na,1\nb,2\n",
    }
    for number, (name, text) in enumerate(sound.items()):
        for mutant in mutants(text.encode(), mutations, seed=number):
            (tmp_path / name).write_bytes(mutant)
            with suppress(InputError):
                read_legend(tmp_path / name)


@pytest.mark.parametrize("codes", [(2**40, 1), (-(2**31) - 1, 1), (1,), ()])
def test_codes_beyond_a_raster_or_too_few_are_refused(codes):
    with pytest.raises(ValueError, match=r"codes lie between|a code \(or no codes\)"):
        Legend(("a", "b"), codes, default_colors(2))


def test_a_missing_color_is_none_that_is_taken(tmp_path):
    first = default_colors(1)[0]
    path = tmp_path / "legend.csv"
    path.write_text("name,code,color\na,1,\nb,2,#{:02x}{:02x}{:02x}\n".format(*first))
    colors = read_legend(path).colors
    assert colors[1] == first
    assert colors[0] != first


@given(st.integers(1, 255))
@settings(deadline=None, max_examples=20)
def test_default_colors_differ_and_do_not_depend_on_how_many_follow(count):
    colors = default_colors(count)
    assert len(set(colors)) == count
    assert colors == default_colors(255)[:count]


@given(
    st.lists(st.tuples(st.text(min_size=1), st.integers(-9, 10**6)), min_size=1, max_size=20),
    st.lists(st.integers(10**6 + 1, 10**7), unique=True, max_size=3),
)
@settings(deadline=None, max_examples=30)
def test_a_legend_survives_json(entries, ignored):
    names = tuple(dict.fromkeys(name for name, _ in entries))
    codes = tuple(dict.fromkeys(code for _, code in entries))
    count = min(len(names), len(codes))
    legend = Legend(names[:count], codes[:count], default_colors(count), tuple(ignored))
    assert Legend.from_dict(json.loads(json.dumps(legend.to_dict()))) == legend


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "- {name: a, code: 1}\n- {name: a, code: 2}\n", "the name a occurs twice"),
        ("b.csv", "name,code\na,1\nb,1\n", "the code 1 occurs twice"),
        ("c.csv", "name,code\na,1\nb,\n", "the class b has no code"),
        ("d.csv", "name,code\na,one\n", "the code of a is 'one'"),
        ("e.csv", "name,color\na,#12345\n", "is no color"),
        ("f.yaml", "- {code: 3}\n", "a class has no name"),
        ("g.yaml", "a: [\n", "is no YAML in line 2"),
        ("h.json", "{", "is damaged or no JSON"),
        ("i.yaml", "7", "expected a list of classes"),
        ("j.txt", "a", "a legend is a .yaml, .json or .csv file"),
        ("k.csv", "name\n", "has a header and no rows"),
        ("l.json", "[]", "1 to 255 classes, got 0"),
    ],
)
def test_a_bad_legend_file_is_told_in_one_line(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        read_legend(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_legend_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        read_legend(tmp_path / "none.yaml")


def test_codes_are_discovered_over_all_files_without_nodata(tmp_path):
    one = write(tmp_path / "a.tif", np.uint8([[10, 30], [0, 10]]), nodata=0)
    other = write(tmp_path / "b.tif", np.uint8([[100, 30], [0, 0]]), nodata=0)
    legend = discover([one, other])
    assert legend.codes == (10, 30, 100)
    assert legend.names == ("10", "30", "100")


def test_a_palette_gives_discovered_codes_their_colors(tmp_path):
    palette = {3: (1, 2, 3, 255), 5: (200, 0, 9, 255)}
    path = write(tmp_path / "a.tif", np.uint8([[3, 5], [5, 3]]), palette=palette)
    legend = discover([path])
    assert legend.codes == (3, 5)
    assert legend.colors == ((1, 2, 3), (200, 0, 9))


def test_colors_are_discovered_as_classes(tmp_path):
    image = np.zeros((3, 2, 2), np.uint8)
    image[:, 0, 0] = 255, 0, 0
    image[:, 0, 1] = 0, 255, 255
    legend = discover([write(tmp_path / "a.tif", image)])
    assert legend.names == ("#000000", "#00ffff", "#ff0000")
    assert legend.codes is None
    assert legend.colors == ((0, 0, 0), (0, 255, 255), (255, 0, 0))


def test_values_of_a_class_field_are_discovered(tmp_path):
    def feature(value):
        ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "properties": {"class": value}, "geometry": geometry}

    path = tmp_path / "a.geojson"
    collection = {"type": "FeatureCollection"}
    path.write_text(json.dumps({**collection, "features": [feature("wood"), feature("lake")]}))
    assert discover([path]).names == ("lake", "wood")
    path.write_text(json.dumps({**collection, "features": [feature(10.0), feature(9)]}))
    assert discover([path]).codes == (9, 10)


def test_an_image_is_not_taken_for_labels(tmp_path):
    values = np.arange(400, dtype=np.uint16).reshape(20, 20)
    with pytest.raises(InputError, match="more than 255 different codes"):
        discover([write(tmp_path / "a.tif", values)])


def test_files_of_several_kinds_are_refused(tmp_path):
    one = write(tmp_path / "a.tif", np.uint8([[1, 2]]))
    other = write(tmp_path / "b.tif", np.zeros((3, 1, 2), np.uint8))
    with pytest.raises(InputError, match="several kinds"):
        discover([one, other])


def test_a_file_without_a_label_gives_no_legend(tmp_path):
    with pytest.raises(InputError, match="every pixel is nodata"):
        discover([write(tmp_path / "a.tif", np.zeros((2, 2), np.uint8), nodata=0)])


def test_train_ids_leave_room_for_the_ignored_one():
    names = tuple(str(k) for k in range(IGNORE))
    assert len(Legend(names, None, default_colors(255))) == 255
    with pytest.raises(ValueError, match="1 to 255 classes, got 256"):
        Legend((*names, "more"), None, default_colors(256))


def test_the_keys_of_json_may_be_codes(tmp_path):
    (tmp_path / "a.json").write_text('{"1": "lake", "20": "wood"}')
    (tmp_path / "b.json").write_text('{"lake": 1, "wood": 20}')
    (tmp_path / "c.json").write_text('{"1": {"name": "lake"}, "20": {"name": "wood"}}')
    legends = [read_legend(tmp_path / name) for name in ("a.json", "b.json", "c.json")]
    assert [(legend.names, legend.codes) for legend in legends] == [(("lake", "wood"), (1, 20))] * 3
