"""The made-up shapes: from a seed, in part view, tilted, noisy, and still told apart."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.data import shapes
from popcloud.errors import DatasetError


def test_there_are_ten_classes_or_more():
    assert len(shapes.CLASSES) >= 10


def test_the_seed_changes_every_cloud():
    one, two = (shapes.load(None, "train", points=16, seed=seed, clouds=28) for seed in (0, 1))
    assert not {cloud.tobytes() for cloud in one.xyz} & {cloud.tobytes() for cloud in two.xyz}


def test_classes_come_evenly_and_in_random_order():
    labels = shapes.load(None, "train", points=8, clouds=5 * len(shapes.CLASSES) + 3).labels
    counts = np.bincount(labels)
    assert counts.min() == 5
    assert counts.max() == 6
    assert not np.array_equal(labels, np.sort(labels))


def test_fewer_clouds_than_classes_are_refused():
    with pytest.raises(DatasetError, match="3 clouds can't show"):
        shapes.load(None, "train", points=8, clouds=3)


def test_defaults_are_the_documented_sizes():
    assert {split: len(shapes.load(None, split, points=2)) for split in ("train", "test")} == shapes.CLOUDS


def test_poses_stretch_turn_and_tilt_within_their_limits(rng):
    pose = shapes.poses(500, rng)
    lengths = np.linalg.norm(pose, axis=2)
    assert lengths.min() >= 1 - shapes.STRETCH - 1e-9
    assert lengths.max() <= 1 + shapes.STRETCH + 1e-9
    axes = pose / lengths[:, :, None]
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), np.broadcast_to(np.eye(3), axes.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(axes), 1)
    tilt = np.degrees(np.arccos(axes[:, 2, 2].clip(-1, 1)))
    assert tilt.max() <= shapes.TILT + 1e-6
    assert tilt.max() > shapes.TILT / 2
    turned = np.arctan2(axes[:, 0, 1], axes[:, 0, 0])
    assert np.histogram(turned, bins=4, range=(-np.pi, np.pi))[0].min() > 80


def test_points_facing_the_camera_are_seen_more_often(rng):
    directions = rng.standard_normal((200, 400, 3)).astype(np.float32)
    normals = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    seen = shapes.in_view(normals, normals, rng)  # the unit sphere: a point is its own normal
    share = seen.mean(axis=1)
    assert share.min() > 0.3
    assert 0.6 < share.mean() < 0.9
    # What is left leans to one side: the mean of the points seen is off the centre.
    lean = [np.linalg.norm(cloud[mask].mean(axis=0)) for cloud, mask in zip(normals, seen, strict=True)]
    assert np.mean(lean) > 0.1  # 400 points spread evenly lean by about 0.05


def test_noise_moves_all_points_a_little_and_a_few_far(rng):
    still = np.zeros((50, 400, 3), dtype=np.float32)
    moved = np.linalg.norm(shapes.add_noise(still, rng), axis=2)
    assert (moved > 0).all()
    far = moved > 6 * shapes.JITTER
    assert 0.3 * shapes.OUTLIERS < far.mean() < 3 * shapes.OUTLIERS
    assert moved[~far].std() < shapes.JITTER
    assert not still.any()


def test_a_cloud_shorter_than_asked_repeats_what_is_seen():
    xyz = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    seen = np.array([[False, True, False, True]])
    np.testing.assert_array_equal(shapes.first_seen(xyz, seen, 3), xyz[:, [1, 3, 1]])


def test_classes_differ_in_shape_and_not_in_size_and_stretch_alone():
    """A nearest neighbour by the histogram of pair distances (D2, Osada et al. 2002) beats one by second moments."""
    train, test = (shapes.load(None, split, points=128, clouds=40 * len(shapes.CLASSES)) for split in ("train", "test"))
    by_moments, by_distances = (accuracy(features, train, test) for features in (moments, pair_distances))
    assert by_moments < 0.7
    assert by_distances > max(by_moments, 5 / len(shapes.CLASSES))


def moments(xyz: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(np.einsum("bni,bnj->bij", xyz, xyz) / xyz.shape[1])


def pair_distances(xyz: np.ndarray) -> np.ndarray:
    apart = np.linalg.norm(xyz[:, :64, None] - xyz[:, None, 64:], axis=3).reshape(len(xyz), -1)
    return np.stack([np.histogram(row, bins=24, range=(0, 2))[0] / len(row) for row in apart])


def accuracy(features, train, test) -> float:
    known, asked = features(train.xyz), features(test.xyz)
    nearest = np.linalg.norm(asked[:, None] - known, axis=2).argmin(axis=1)
    return float(np.mean(train.labels[nearest] == test.labels))
