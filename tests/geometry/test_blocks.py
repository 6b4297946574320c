"""Rooms in blocks: every point once, columns of the right width, features by their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcloud.cloud import IGNORE, PointCloud, SceneSet
from popcloud.data import SCENES
from popcloud.errors import CloudError
from popcloud.geometry.blocks import FEATURES, block_set, blocks_of, columns, draw


@pytest.fixture
def room(rng) -> tuple[np.ndarray, np.ndarray]:
    """Points in a box of 3.3 by 2.2 by 2.5 m off the origin, and their colours."""
    xyz = rng.uniform([-1, 5, -0.2], [2.3, 7.2, 2.3], (3000, 3)).astype(np.float32)
    return xyz, rng.uniform(-1, 1, (3000, 3)).astype(np.float32)


def scene_set(xyz, colours, labels, features=("red", "green", "blue"), classes=("a", "b")) -> SceneSet:
    return SceneSet((PointCloud(xyz, colours, labels),), ("one",), classes, features)


def in_column(xyz: np.ndarray, begin: np.ndarray, size: float) -> set[int]:
    """By brute force, in float32 as the columns are: the rows of a half-open square."""
    shifted = xyz[:, :2] - xyz[:, :2].min(axis=0)
    return set(np.flatnonzero(((shifted >= begin) & (shifted < begin + size)).all(axis=1)).tolist())


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 1.0, 7.0]), st.integers(0, 60))
def test_every_point_is_in_one_block(seed, size, most):
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-3, 3, (rng.integers(1, 300), 3)).round(1)
    found = blocks_of(xyz, np.zeros_like(xyz), size=size, most=most)
    rows = np.concatenate([block.rows for block in found])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(xyz)))
    for block in found:
        assert 0 < len(block.rows) <= (most or len(xyz))
        assert (np.diff(block.rows) > 0).all()
        assert (np.ptp(xyz[block.rows, :2], axis=0) <= size + 1e-5).all()


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_columns_hold_what_brute_force_finds(room, reach):
    xyz, size = room[0], 1.0
    found = {tuple(rows.tolist()) for rows in columns(xyz, size, size / reach)}
    cells = [math.ceil(extent * reach) for extent in (3.3, 2.2)]
    expected = set()
    for x in range(cells[0] - reach + 1):
        for y in range(cells[1] - reach + 1):
            rows = in_column(xyz, np.array([x, y]) / reach, size)
            expected.add(tuple(sorted(rows)))
    assert found == expected - {()}


def test_columns_come_by_x_then_y(room):
    middles = [
        np.floor(room[0][rows, :2] - room[0][:, :2].min(axis=0)).mean(axis=0).tolist() for rows in columns(room[0])
    ]
    assert middles == sorted(middles)


def test_the_far_edge_belongs_to_the_last_column():
    xyz = np.array([[0, 0, 0], [1, 0.5, 0], [2, 2, 1]], np.float32)
    assert [rows.tolist() for rows in columns(xyz)] == [[0], [1], [2]]
    assert [rows.tolist() for rows in columns(xyz, 2.0)] == [[0, 1, 2]]
    assert [rows.tolist() for rows in columns(xyz[:1])] == [[0]]


def test_features_by_their_definition(room):
    xyz, colours = room
    low, extent = xyz.min(axis=0).astype(float), np.ptp(xyz, axis=0).astype(float)
    for rows, features in blocks_of(xyz, colours):
        assert features.dtype == np.float32
        assert features.shape == (len(rows), len(FEATURES)) == (len(rows), 9)
        middle = xyz[rows, :2].min(axis=0) + 0.5
        np.testing.assert_allclose(features[:, :2], xyz[rows, :2] - middle, atol=2e-6)
        np.testing.assert_allclose(features[:, 2], xyz[rows, 2] - low[2], atol=2e-6)
        np.testing.assert_allclose(features[:, 3:6], (colours[rows] + 1) / 2, atol=1e-6)
        np.testing.assert_allclose(features[:, 6:], (xyz[rows] - low) / extent, atol=1e-6)


def test_a_full_column_is_dealt_out_evenly(room):
    xyz, colours = room
    whole, dealt = blocks_of(xyz, colours), blocks_of(xyz, colours, most=100)
    sizes = [len(block.rows) for block in dealt]
    assert len(dealt) == sum(-(-len(block.rows) // 100) for block in whole)
    assert max(sizes) <= 100
    first = whole[0]
    parts = -(-len(first.rows) // 100)
    for part in range(parts):
        np.testing.assert_array_equal(dealt[part].rows, first.rows[part::parts])
        np.testing.assert_array_equal(dealt[part].features, first.features[part::parts])


def test_a_flat_room_has_position_0_where_it_has_no_extent():
    xyz = np.array([[0, 0, 1], [0.5, 0, 1]], np.float32)
    (block,) = blocks_of(xyz, np.zeros((2, 3)))
    np.testing.assert_array_equal(block.features[:, 6:], [[0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(block.features[:, 2], 0)


def test_blocks_to_learn_from_are_drawn_from_those_of_the_run_time(room, rng):
    xyz, colours = room
    labels = rng.integers(0, 2, len(xyz))
    data = block_set(scene_set(xyz, colours, labels), points=64, fewest=200)
    full = [block for block in blocks_of(xyz, colours) if len(block.rows) >= 200]
    assert data.blocks.shape == (len(full), 64, 9)
    assert data.features == FEATURES
    assert data.rooms == ("one",) * len(full)
    for drawn, own, block in zip(data.blocks, data.labels, full, strict=True):
        known = {row.tobytes(): labels[i] for row, i in zip(block.features, block.rows, strict=True)}
        assert len({row.tobytes() for row in drawn}) == 64
        assert [known[row.tobytes()] for row in drawn] == own.tolist()


def test_a_block_with_too_few_points_repeats_them_and_one_with_far_too_few_is_dropped(room, rng):
    xyz, colours = room
    labels = np.zeros(len(xyz), int)
    counts = np.array([len(rows) for rows in columns(xyz)])
    data = block_set(scene_set(xyz, colours, labels), points=500, fewest=100)
    assert 0 < len(data) == (counts >= 100).sum() < len(counts)
    distinct = [len({row.tobytes() for row in block}) for block in data.blocks]
    assert distinct == np.minimum(counts[counts >= 100], 500).tolist()


def test_overlapping_columns_are_more_blocks(room):
    scenes = scene_set(*room, np.zeros(len(room[0]), int))
    assert len(block_set(scenes, points=8, stride=0.5)) > 2 * len(block_set(scenes, points=8))


def test_the_draw_depends_on_the_seed_and_the_scene_alone():
    scenes = SCENES["rooms"](None, "val", scenes=2)
    whole, alone = block_set(scenes, points=32, seed=4), block_set(scenes.subset([1]), points=32, seed=4)
    own = np.flatnonzero(np.array(whole.rooms) == scenes.names[1])
    np.testing.assert_array_equal(whole.blocks[own], alone.blocks)
    assert not np.array_equal(whole.blocks, block_set(scenes, points=32, seed=5).blocks)


def test_made_up_rooms_become_blocks_whose_classes_may_be_missing():
    scenes = SCENES["rooms"](None, "train", scenes=1, classes=["ball", "floor"])
    data = block_set(scenes, points=128)
    assert data.classes == ("ball", "floor")
    assert set(np.unique(data.labels).tolist()) == {IGNORE, 0, 1}
    assert any(not (own == 0).any() for own in data.labels)
    assert data.blocks[..., 3:].min() >= 0
    assert data.blocks[..., 3:].max() <= 1
    assert np.abs(data.blocks[..., :2]).max() <= 0.5 + 1e-5


def test_draw_takes_different_ones_first(rng):
    assert sorted(draw(5, 5, rng).tolist()) == list(range(5))
    assert len(set(draw(50, 20, rng).tolist())) == 20
    assert draw(3, 8, rng)[:3].tolist() == [0, 1, 2]
    assert draw(3, 8, rng).max() == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"xyz": np.zeros((0, 3))}, "hall: expected at least one point"),
        ({"xyz": np.full((4, 3), np.inf)}, "hall: 4 of 4 points are not finite"),
        ({"colours": np.zeros((3, 3))}, r"hall: expected colours of shape \(4, 3\), found \(3, 3\)"),
        ({"colours": None}, "hall: blocks need a colour per point, found none"),
        ({"colours": np.full((4, 3), 255)}, r"hall: expected colours in \[-1, 1\].*divide 0 to 255 by 127.5"),
        ({"colours": np.full((4, 3), np.nan)}, r"hall: expected colours in \[-1, 1\]"),
        ({"size": 0.0}, "expected a size and a stride in metres, above 0, found 0.0"),
        ({"xyz": np.diag([1e8, 1, 1, 1])[:, :3]}, r"hall: 1e\+08 by 1 m are too wide for columns of 1 m"),
        ({"most": -1}, "most: expected 0 for no limit"),
    ],
)
def test_what_cant_be_cut_is_said_in_one_line(arguments, says):
    given = {"xyz": np.eye(4)[:, :3], "colours": np.zeros((4, 3)), "name": "hall"} | arguments
    with pytest.raises(CloudError, match=says) as caught:
        blocks_of(given.pop("xyz"), given.pop("colours"), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "arguments", "says"),
    [
        ({}, {"fewest": 101}, "no column of 1 m in these 1 scenes has 101 points"),
        ({}, {"points": 0}, "points: expected at least 1 per block"),
        ({}, {"stride": 0.7}, "stride: expected the size 1 m, or its half, third, ..., found 0.7 m"),
        ({}, {"stride": 2.0}, "stride: expected the size 1 m"),
        ({"labels": None}, {}, "one: expected a class per point to learn from, found none"),
        ({"labels": np.zeros(9, int)}, {}, r"one: expected 100 labels, one per point, found \(9,\)"),
        ({"labels": np.full(100, 2)}, {}, "one: expected labels 0 to 1 or -100, found 2"),
        ({"features": ("intensity", "red", "green")}, {}, "blocks need the features red, green, blue; found intensity"),
        ({"features": ()}, {}, "blocks need the features red, green, blue; found none"),
    ],
)
def test_scenes_that_give_no_blocks_are_refused(rng, changed, arguments, says):
    given = {"xyz": rng.random((100, 3)).astype(np.float32), "colours": np.zeros((100, 3), np.float32)}
    given = given | {"labels": np.zeros(100, int)} | changed
    with pytest.raises(CloudError, match=says):
        block_set(scene_set(**given), **arguments)
