"""The picture of scenes: a colour per class, what is wrong in red, walls that do not hide the room, plain errors."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud import show, show_scenes
from popcloud.errors import CloudError, FileError
from popcloud.show_scenes import in_the_way, palette, scenes_picture
from test_show import pixels, size

pytest.importorskip("matplotlib")
CLASSES = ("floor", "wall", "table", "ceiling")


@pytest.fixture
def room(rng) -> tuple[np.ndarray, np.ndarray]:
    """A box of 4 by 4 by 2.5 m with a table in the middle, and its labels."""
    walls = rng.uniform([-2, -2, 0], [2, 2, 2.5], (4000, 3))
    side = np.arange(4000) % 4
    walls[np.arange(4000), side // 2] = np.where(side % 2, 2.0, -2.0)
    floor, table = (
        rng.uniform([-2, -2, 0], [2, 2, 0], (2000, 3)),
        rng.uniform([-0.5, -0.5, 0.7], [0.5, 0.5, 0.7], (500, 3)),
    )
    ceiling = rng.uniform([-2, -2, 2.5], [2, 2, 2.5], (2000, 3))
    labels = np.repeat([1, 0, 2, 3], [4000, 2000, 500, 2000])
    return np.concatenate([walls, floor, table, ceiling]).astype(np.float32), labels


def test_classes_have_their_colours_and_the_wrong_ones_are_red(tmp_path, room):
    xyz, truth = room
    answer = np.where(truth == 2, 1, truth)
    scenes_picture([xyz], [truth], CLASSES, tmp_path / "right.png", [truth])
    scenes_picture([xyz], [answer], CLASSES, tmp_path / "wrong.png", [truth])
    seen = {name: pixels(tmp_path / f"{name}.png") for name in ("right", "wrong")}
    third = seen["right"].shape[1] // 3
    red = {name: about(image[:, 2 * third :], show.WRONG) for name, image in seen.items()}
    assert red["wrong"] > 200 > 10 > red["right"]
    body = seen["wrong"][: -int(0.5 * 140)]  # without the legend
    table = [about(part, palette(CLASSES)[2]) for part in (body[:, :third], body[:, third:])]
    assert table[0] > 200 > 10 > table[1]


def about(image: np.ndarray, colour: str) -> int:
    """How many pixels have this colour, given as #rrggbb, or are somewhat paler, as far points are."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=2) < 60).sum())


def test_ceiling_and_near_walls_are_left_out(room):
    xyz, labels = room
    body = show_scenes.centred(xyz)
    hidden = in_the_way(body, labels, CLASSES)
    turn = np.radians(show.AZIMUTH)
    toward = body[:, :2] @ [np.cos(turn), np.sin(turn)]
    high = xyz[:, 2] > 0.6
    assert hidden[labels == 3].all()
    assert not hidden[(labels == 0) | (labels == 2)].any()
    for axis, side, gone in ((0, 2, True), (1, -2, True), (0, -2, False), (1, 2, False)):
        wall = (labels == 1) & (xyz[:, axis] == side) & high & (np.abs(xyz[:, 1 - axis]) < 0.8)
        assert hidden[wall].all() == hidden[wall].any() == gone
        assert (toward[wall].mean() > 0) == gone
    assert not hidden[(labels == 1) & (xyz[:, 2] < 0.1)].any()
    assert not in_the_way(body, labels, ("ground", "bush", "house", "sky")).any()


def test_every_class_has_a_colour_of_its_own():
    names = [f"class {i}" for i in range(14)]
    assert len(set(palette([*names, "floor", "wall"]))) == 16
    assert palette(["wall", *names])[1:] == palette(names)
    assert len(palette([str(i) for i in range(90)])) == 90


def test_sheets_grow_with_scenes(tmp_path, room):
    xyz, labels = room
    scenes_picture([xyz] * 2, [labels] * 2, CLASSES, tmp_path / "plain.png")
    scenes_picture([xyz] * 2, [labels] * 2, CLASSES, tmp_path / "truth.png", [labels] * 2, ["one", "two"])
    scenes_picture([xyz[:1]], [labels[:1]], CLASSES, tmp_path / "point.png", [np.array([-100])])
    wide, three = size(tmp_path / "plain.png"), size(tmp_path / "truth.png")
    assert (wide[0], three[0]) == (int(2 * show_scenes.PANEL * 140), int(3 * show_scenes.PANEL * 140))
    assert three[1] > 1.8 * wide[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"answers": []}, r"answers: expected one per cloud \(1\), found 0"),
        ({"truth": []}, "truth: expected one per cloud"),
        (
            {"answers": [np.zeros(3, int)]},
            r"here, answers: expected 5 whole numbers, one per point, found int64 \(3,\)",
        ),
        ({"truth": [np.full(5, 4)]}, "here, truth: expected classes below 4, found 4"),
        ({"clouds": [np.full((5, 3), np.nan)]}, "scene 1: 5 of 5 points are not finite"),
        ({"columns": 0}, "columns: expected at least 1"),
    ],
)
def test_what_cant_be_drawn_is_said(tmp_path, rng, arguments, says):
    given = {"clouds": [rng.random((5, 3))], "answers": [np.zeros(5, int)], "names": ["here"]} | arguments
    with pytest.raises(CloudError, match=says):
        scenes_picture(**given, classes=CLASSES, path=tmp_path / "a.png")


def test_a_path_that_cant_be_written(tmp_path, rng):
    with pytest.raises(FileError, match="can't be written"):
        scenes_picture([rng.random((5, 3))], [np.zeros(5, int)], CLASSES, tmp_path / "none" / "a.png")
