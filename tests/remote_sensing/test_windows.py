"""The window grid against the golden vectors, its laws and its refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_remote_sensing.rasters.windows import Window, grid, starts

GOLDEN = Path(__file__).parents[1] / "golden" / "glcnet.npz"


def test_starts_match_the_golden_vectors() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        cases = [name for name in golden.files if name.startswith("grid") and "args" in name]
        assert len(cases) == 5
        for case in cases:
            length, size, stride = golden[case].tolist()
            expected = golden[case.replace("args", "starts")].tolist()
            assert starts(length, size, stride) == expected


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 400), size=st.integers(1, 100), data=st.data())
def test_windows_cover_every_pixel_and_stay_inside(
    length: int, size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, size))
    seen = np.zeros(length, bool)
    first = starts(length, size, stride)
    for start in first:
        assert 0 <= start <= max(length - size, 0)
        seen[start : start + size] = True
    assert seen.all()
    assert first == sorted(set(first))


def test_the_grid_is_row_major_and_ends_on_the_last_pixel() -> None:
    assert grid(5, 7, size=4, stride=3) == [
        Window(0, 0, 4, 4),
        Window(0, 3, 4, 4),
        Window(1, 0, 4, 4),
        Window(1, 3, 4, 4),
    ]


def test_a_raster_smaller_than_the_window_gives_one_window_of_its_own_size() -> None:
    assert grid(3, 10, size=8, stride=8) == [Window(0, 0, 3, 8), Window(0, 2, 3, 8)]
    assert grid(3, 5, size=8, stride=4) == [Window(0, 0, 3, 5)]


@pytest.mark.parametrize("arguments", [(0, 4, 4), (4, 0, 4), (4, 4, 0)])
def test_lengths_below_one_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        starts(*arguments)
