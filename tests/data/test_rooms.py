"""Rooms: the same from the same seed, every class in them, seen in part, and not to be told by height or colour."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import IGNORE
from popcloud.data.furniture import FURNITURE, Top
from popcloud.data.raycast import Part
from popcloud.data.rooms import (
    CEILING,
    CLASSES,
    ELEVATION,
    FEATURES,
    GRAZING,
    NOISE,
    NOISE_GROWTH,
    RAYS,
    SCENES,
    SIDE,
    VIEW,
    Rectangle,
    Room,
    clutter,
    load,
    rays,
    scan,
)
from popcloud.errors import DatasetError

WALL = Part("box", (5, 0, 0), (0.5, 20, 20), "wall", (1, 1, 1))
SCREEN = Part("box", (2, 0, 0), (0.01, 0.5, 0.5), "box", (0, 0, 1))


@pytest.fixture(scope="module")
def data():
    return load(None, "train", scenes=8)


def bits(cloud) -> bytes:
    return cloud.xyz.tobytes() + cloud.features.tobytes() + cloud.labels.tobytes()


def test_a_scene_has_the_contracts_types(data):
    assert data.classes == CLASSES
    assert data.features == FEATURES
    assert len(CLASSES) >= 8
    assert len(set(data.names)) == len(data) == 8
    for cloud in data.clouds:
        assert cloud.xyz.dtype == cloud.features.dtype == np.float32
        assert cloud.labels.dtype == np.int64
        assert cloud.xyz.shape == cloud.features.shape == (len(cloud), 3)
        assert cloud.labels.shape == (len(cloud),)
        assert np.isfinite(cloud.xyz).all()
        assert np.abs(cloud.features).max() <= 1


def test_the_same_seed_gives_the_same_bits_whatever_else_is_made(data):
    again = load(None, "train", scenes=3)
    assert [bits(cloud) for cloud in again.clouds] == [bits(cloud) for cloud in data.clouds[:3]]


def test_splits_and_seeds_share_no_scene(data):
    others = [load(None, "val", scenes=2), load(None, "test", scenes=2), load(None, "train", scenes=2, seed=1)]
    every = [bits(cloud) for each in (data, *others) for cloud in each.clouds]
    assert len(set(every)) == 14


def test_the_default_sizes_cover_all_splits(monkeypatch):
    assert set(SCENES) == {"train", "val", "test"}
    monkeypatch.setitem(SCENES, "test", 1)
    assert load(None, "test").names == ("test_0000",)


def test_a_scene_has_as_many_points_as_promised_and_the_size_of_a_room(data):
    for cloud in data.clouds:
        assert 10_000 < len(cloud) < 40_000
        extent = np.ptp(cloud.xyz, axis=0)
        assert (extent[:2] < 1.5 * SIDE[1] + 0.5).all()  # the diagonal, and noise
        assert 1.5 < extent[2] < CEILING[1] + 0.5


def test_every_class_is_in_most_scenes_and_none_is_nearly_all(data):
    present = np.array(
        [[np.count_nonzero(cloud.labels == label) for label in range(len(CLASSES))] for cloud in data.clouds]
    )
    assert ((present > 20).sum(axis=0) >= 6).all(), dict(zip(CLASSES, present.T.tolist(), strict=True))
    share = present.sum(axis=0) / present.sum()
    assert share.max() < 0.6
    assert share.min() > 0.004


def test_the_floor_is_at_zero_and_walls_stand_up(data):
    for cloud in data.clouds:
        floor = cloud.xyz[cloud.labels == CLASSES.index("floor"), 2]
        assert abs(np.median(floor)) < 0.02
        assert np.ptp(cloud.xyz[cloud.labels == CLASSES.index("wall"), 2]) > 1.4


def test_height_names_no_piece_of_furniture(data):
    """In no 10 cm slice from knee to shoulder does one class of furniture have more than three quarters."""
    height = np.concatenate([cloud.xyz[:, 2] for cloud in data.clouds])
    labels = np.concatenate([cloud.labels for cloud in data.clouds])
    for low in np.arange(0.1, 1.3, 0.1):
        slice_ = labels[(height >= low) & (height < low + 0.1) & (labels >= 2)]
        assert np.bincount(slice_).max() < 0.75 * len(slice_), low


def recall_by_colour(known, asked) -> float:
    """The mean recall over the classes in both clouds if each point takes the class with the nearest mean colour."""
    both = sorted(set(known.labels.tolist()) & set(asked.labels.tolist()))
    means = np.array([known.features[known.labels == label].mean(axis=0) for label in both])
    found = np.array(both)[np.linalg.norm(asked.features[:, None] - means, axis=2).argmin(axis=1)]
    return float(np.mean([np.mean(found[asked.labels == label] == label) for label in both]))


def test_colour_helps_but_does_not_tell(data):
    """In one room it parts many things; in the next one the same classes have other colours."""
    here = [recall_by_colour(cloud, cloud) for cloud in data.clouds]
    elsewhere = [recall_by_colour(one, two) for one, two in zip(data.clouds, data.clouds[1:], strict=False)]
    assert 0.3 < np.mean(here) < 0.75
    assert np.mean(elsewhere) < 0.6 * np.mean(here)


def test_classes_are_renumbered_and_the_others_ignored(data):
    part = load(None, "train", scenes=2, classes=["ball", "floor"])
    assert part.classes == ("ball", "floor")
    for whole, cloud in zip(data.clouds, part.clouds, strict=False):
        np.testing.assert_array_equal(cloud.labels == 0, whole.labels == CLASSES.index("ball"))
        np.testing.assert_array_equal(cloud.labels == 1, whole.labels == CLASSES.index("floor"))
        assert set(np.unique(cloud.labels)) <= {IGNORE, 0, 1}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "valid"}, "unknown split 'valid'.*valid: train, val, test"),
        ({"classes": ["chairs"]}, "unknown class 'chairs'; did you mean 'chair'"),
        ({"scenes": 0}, "scenes: expected at least 1, found 0"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(DatasetError, match=says):
        load(None, **({"split": "train"} | arguments))


# --- the scanner ---


def test_what_stands_in_front_hides_what_is_behind(rng):
    eye = np.array([-1.0, 0, 0])
    alone, _, _ = scan([WALL], eye, np.random.default_rng(1))
    xyz, part, _ = scan([WALL, SCREEN], eye, np.random.default_rng(1))
    shadow = (np.abs(xyz[part == 0, 1:]) < 0.9).all(axis=1)  # the screen's shadow at the wall: 5.5 / 3 of 0.5
    assert shadow.sum() == 0
    assert (np.abs(alone[:, 1:]) < 0.9).all(axis=1).sum() > 100
    assert (part == 1).sum() > 100


def test_points_are_fewer_and_noisier_the_farther_away(rng):
    def plate(distance):
        return [Part("box", (distance + 0.5, 0, 0), (0.5, 0.5, 0.5), "wall", (1, 1, 1))]

    def seen(distance):
        clouds = [scan(plate(distance), np.array([-1e-9, 0, 0]), rng)[0] for _ in range(8)]
        return np.concatenate(clouds)

    near, far = seen(1.5), seen(3.0)
    assert len(near) / len(far) == pytest.approx(4, rel=0.25)
    for distance, xyz in ((1.5, near), (3.0, far)):
        # Along the ray, so it is the plane's distance that scatters by the cosine of the ray, which is 0.9 and more.
        assert (xyz[:, 0] - distance).std() == pytest.approx(NOISE + NOISE_GROWTH * distance**2, rel=0.25)


def test_surfaces_seen_at_a_grazing_angle_mostly_stay_out(rng):
    floor = Part("box", (0, 0, -0.5), (40, 40, 0.5), "floor", (1, 1, 1))
    views = [scan([floor], np.array([0.0, 0, 1.0]), rng)[0] for _ in range(10)]
    steep = [(np.linalg.norm(xyz[:, :2], axis=1) < 1).sum() for xyz in views]  # cosines over 0.71
    flat = [((reach := np.linalg.norm(xyz[:, :2], axis=1)) > 9.95).sum() - (reach > 19.98).sum() for xyz in views]
    sent = RAYS / np.ptp(np.sin(np.radians(ELEVATION)))  # per unit of the ray's height, on the unit sphere
    assert np.mean(steep) == pytest.approx(0.97 * sent * (np.sin(np.radians(65)) - 0.7071), rel=0.05)
    assert np.mean(flat) == pytest.approx(sent * 0.05 * 0.075 / GRAZING, rel=0.2)  # cosines 0.05 to 0.1


def test_rays_cover_their_field_of_view_evenly(rng):
    for heading in (0.0, 2.0):
        directions = rays(heading, rng)
        assert abs(len(directions) - RAYS) < 0.02 * RAYS
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
        elevation = np.degrees(np.arcsin(directions[:, 2]))
        assert ELEVATION[0] - 1e-6 <= elevation.min() < ELEVATION[0] + 2
        assert ELEVATION[1] - 2 < elevation.max() <= ELEVATION[1] + 1e-6
        counts, _ = np.histogram(directions[:, 2], bins=10)
        assert np.ptp(counts) < 0.1 * counts.mean()
        beside = np.degrees(np.angle(directions[:, :2] @ [1, 1j] * np.exp(-1j * heading)))
        assert np.abs(beside).max() <= VIEW[1] / 2
        assert abs(beside.mean()) < 2


# --- the room ---


@pytest.mark.parametrize(
    ("other", "meets"),
    [
        (Rectangle(0, 0, 0.1, 0.1), True),
        (Rectangle(1.9, 0, 1, 1), True),
        (Rectangle(2.1, 0, 1, 1), False),
        (Rectangle(2.1, 0, 1, 1, np.pi / 4), True),  # its corner reaches in
        (Rectangle(2.1, 2.1, 1, 1, np.pi / 4), False),  # its side does not, though the boxes about both overlap
        (Rectangle(0, 1.6, 3, 0.5, 0.01), False),
        (Rectangle(0, 1.6, 3, 0.5, 0.2), True),
    ],
)
def test_rectangles_that_meet(other, meets):
    square = Rectangle(0, 0, 1, 1)
    assert square.meets(other) is meets
    assert other.meets(square) is meets


def test_rectangles_meet_where_points_of_one_lie_in_the_other(rng):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 2)
    seen = set()
    for _ in range(200):
        one, two = (
            Rectangle(*rng.uniform(-1.5, 1.5, 2), *rng.uniform(0.3, 1.2, 2), rng.uniform(0, 6)) for _ in range(2)
        )
        corners = one.corners()
        middle, x, y = corners.mean(axis=0), (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
        distance = two.distance(middle + grid @ np.stack([x, y])).min()
        if 0 < distance < 0.1:
            continue  # too close to call by points
        assert one.meets(two) is bool(distance == 0)
        seen.add(one.meets(two))
    assert seen == {True, False}


def test_no_two_pieces_stand_in_each_other(rng):
    for _ in range(5):
        room = Room.empty(rng)
        for name, make in FURNITURE.items():
            for _ in range(3):
                room._place(name, make(rng), rng)
        for i, one in enumerate(room.taken):
            assert (np.abs(one.corners()) <= [room.width / 2 + 1e-6, room.depth / 2 + 1e-6]).all()
            assert not any(one.meets(two) for two in room.taken[:i])


def test_places_are_inside_the_room_and_not_inside_things(rng):
    for _ in range(10):
        room = Room.empty(rng)
        room.furnish(rng)
        first, second = room.places(rng, 2)
        assert np.linalg.norm(first[:2] - second[:2]) > 0.3
        for eye in (first, second):
            assert (np.abs(eye[:2]) < [room.width / 2, room.depth / 2]).all()
            assert min(ground.distance(eye[None, :2])[0] for ground in room.taken) > 0.1


def test_clutter_stands_on_its_top(rng):
    top = Top(0.1, -0.2, 0.5, 0.25, 0.7, 0.3)
    labels = set()
    for _ in range(60):
        for part in clutter(top, rng):
            labels.add(part.label)
            assert part.centre[2] - part.size[2] >= 0.7 - 1e-9
            assert part.centre[2] + part.size[2] <= 1.0 + 1e-9
            assert abs(part.centre[0] - 0.1) <= 0.5
    assert labels == {"box", "ball"}  # too low for a lamp
    tall = Top(0, 0, 0.5, 0.25, 0.7)
    assert "lamp" in {part.label for _ in range(40) for part in clutter(tall, rng)}
