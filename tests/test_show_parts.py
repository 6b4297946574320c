"""The picture of objects: a colour per part, what is wrong in red, a legend of the parts, plain errors."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud import show, show_parts
from popcloud.errors import CloudError, FileError
from popcloud.show_parts import part_colours, parts_picture
from test_show_scenes import about, pixels, size

pytest.importorskip("matplotlib")
PARTS = ("table/top", "table/leg", "mug/cup", "mug/handle")


@pytest.fixture
def table(rng) -> tuple[np.ndarray, np.ndarray]:
    """A board on one leg, and its parts."""
    top = rng.uniform([-1, -1, 0.9], [1, 1, 1.0], (900, 3))
    leg = rng.uniform([-0.2, -0.2, 0], [0.2, 0.2, 0.9], (600, 3))
    return np.concatenate([top, leg]).astype(np.float32), np.repeat([0, 1], [900, 600])


def test_parts_have_their_colours_and_the_wrong_ones_are_red(tmp_path, table):
    xyz, truth = table
    parts_picture([xyz], [truth], PARTS, tmp_path / "right.png", [truth])
    parts_picture([xyz], [np.zeros_like(truth)], PARTS, tmp_path / "wrong.png", [truth])
    seen = {name: pixels(tmp_path / f"{name}.png") for name in ("right", "wrong")}
    third, foot = seen["right"].shape[1] // 3, int(show_parts.LEGEND * 140)
    red = {name: about(image[:, 2 * third :], show.WRONG) for name, image in seen.items()}
    assert red["wrong"] > 200 > 10 > red["right"]
    for name, shown in (("right", True), ("wrong", False)):
        leg = [about(seen[name][:-foot, i * third : (i + 1) * third], part_colours(PARTS)[1]) for i in (0, 1)]
        assert leg[0] > 200
        assert (leg[1] > 200) == shown


def test_what_has_no_truth_is_not_wrong(tmp_path, table):
    xyz, truth = table
    parts_picture([xyz], [1 - truth], PARTS, tmp_path / "a.png", [np.full_like(truth, -100)])
    assert about(pixels(tmp_path / "a.png"), show.WRONG) < 10


def test_parts_of_one_category_differ_in_colour():
    colours = part_colours(PARTS)
    assert colours[0] == colours[2] != colours[1] == colours[3]
    assert len(set(part_colours([f"a/{i}" for i in range(8)]))) == 8
    assert len(part_colours([f"a/{i}" for i in range(30)])) == 30
    assert len(set(part_colours(["floor", "wall", "door"]))) == 3
    assert show.WRONG not in show_parts.COLOURS


def test_the_axis_that_points_up(tmp_path, table):
    xyz, truth = table
    parts_picture([xyz], [truth], PARTS, tmp_path / "z.png")
    # What has y up is the same object once x, y, z are taken as z, x, y.
    parts_picture([np.roll(xyz, -1, axis=1)], [truth], PARTS, tmp_path / "y.png", up="y")
    np.testing.assert_array_equal(pixels(tmp_path / "z.png"), pixels(tmp_path / "y.png"))


def test_sheets_grow_with_objects(tmp_path, table):
    xyz, labels = table
    unit = int(show_parts.PANEL * 140)
    parts_picture([xyz] * 5, [labels] * 5, PARTS, tmp_path / "plain.png")
    parts_picture([xyz] * 3, [labels] * 3, PARTS, tmp_path / "truth.png", [labels] * 3, ["a", "b", "c"], columns=1)
    parts_picture([xyz[:1]], [labels[:1]], PARTS, tmp_path / "point.png")
    assert size(tmp_path / "plain.png")[0] == 4 * unit
    assert size(tmp_path / "truth.png")[0] == 3 * unit
    assert size(tmp_path / "point.png")[0] == unit
    heights = [size(tmp_path / f"{name}.png")[1] for name in ("point", "plain", "truth")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=2)
    assert heights[2] == pytest.approx(3 * heights[0], abs=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"answers": []}, r"answers: expected one per cloud \(1\), found 0"),
        ({"names": ["a", "b"]}, "names: expected one per cloud"),
        ({"answers": [np.zeros(3, int)]}, r"object 1, answers: expected 5 whole numbers, one per point"),
        ({"truth": [np.full(5, 4)]}, "object 1, truth: expected classes below 4, found 4"),
        ({"clouds": [np.full((5, 3), np.nan)]}, "object 1: 5 of 5 points are not finite"),
        ({"columns": 0}, "columns: expected at least 1"),
        ({"up": "x"}, "up: expected 'y' or 'z', found 'x'"),
    ],
)
def test_what_cant_be_drawn_is_said(tmp_path, rng, arguments, says):
    given = {"clouds": [rng.random((5, 3))], "answers": [np.zeros(5, int)]} | arguments
    with pytest.raises(CloudError, match=says):
        parts_picture(**given, parts=PARTS, path=tmp_path / "a.png")


def test_a_path_that_cant_be_written(tmp_path, rng):
    with pytest.raises(FileError, match="can't be written"):
        parts_picture([rng.random((5, 3))], [np.zeros(5, int)], PARTS, tmp_path / "none" / "a.png")
