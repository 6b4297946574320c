"""Augmentation of scenes: identity by default, each change within its limits, the input untouched."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import IGNORE, PointCloud
from popcloud.data.augment_scenes import MAX_NODES, AugmentScenes, distorted
from popcloud.errors import CloudError, RecipeError

NAMES = ("red", "returns", "blue")
EVERYTHING = AugmentScenes(
    crop=3.0,
    dropout=0.5,
    matrix=0.1,
    mirror=True,
    rotate_z=True,
    scale=(0.9, 1.1),
    elastic=((0.2, 0.3), (0.6, 0.9)),
    offset=0.4,
    colour=0.1,
)
ALONE = {
    "crop": {"crop": 2.0},
    "dropout": {"dropout": 0.5},
    "matrix": {"matrix": 0.1},
    "mirror": {"mirror": True},
    "rotate_z": {"rotate_z": True},
    "scale": {"scale": (0.5, 2.0)},
    "elastic": {"elastic": ((0.3, 0.5),)},
    "offset": {"offset": 0.4},
    "colour": {"colour": 0.1},
}


@pytest.fixture
def cloud(rng) -> PointCloud:
    """6 x 4 x 2 metres, the corner at (10, -3, 1); labels 0 to 2 and IGNORE."""
    xyz = (rng.random((2000, 3)) * [6, 4, 2] + [10, -3, 1]).astype(np.float32)
    labels = rng.integers(-1, 3, 2000)
    return PointCloud(xyz, rng.uniform(-1, 1, (2000, 3)).astype(np.float32), np.where(labels < 0, IGNORE, labels))


def run(cloud, seed=0, **arguments) -> PointCloud:
    return AugmentScenes(**arguments).apply(cloud, np.random.default_rng(seed), NAMES)


def test_the_defaults_change_nothing_and_draw_nothing(cloud, rng):
    state = rng.bit_generator.state
    same = AugmentScenes().apply(cloud, rng, NAMES)
    assert rng.bit_generator.state == state
    np.testing.assert_array_equal(same.xyz, cloud.xyz)
    np.testing.assert_array_equal(same.features, cloud.features)
    np.testing.assert_array_equal(same.labels, cloud.labels)
    assert not np.shares_memory(same.xyz, cloud.xyz)
    assert not np.shares_memory(same.features, cloud.features)


@pytest.mark.parametrize("name", ALONE)
def test_each_change_alone_does_something(cloud, name):
    changed = [run(cloud, seed, **ALONE[name]) for seed in range(6)]
    assert len({(each.xyz.tobytes(), each.features.tobytes()) for each in changed}) > 1


def test_the_input_stays_as_it_is(cloud, rng):
    before = cloud.xyz.copy(), cloud.features.copy(), cloud.labels.copy()
    for array in (cloud.xyz, cloud.features, cloud.labels):
        array.flags.writeable = False
    changed = EVERYTHING.apply(cloud, rng, NAMES)
    np.testing.assert_array_equal(cloud.xyz, before[0])
    np.testing.assert_array_equal(cloud.features, before[1])
    np.testing.assert_array_equal(cloud.labels, before[2])
    assert changed.xyz.dtype == changed.features.dtype == np.float32
    assert changed.labels.dtype == np.int64
    assert len(changed.xyz) == len(changed.features) == len(changed.labels)
    assert np.isfinite(changed.xyz).all()


def test_same_generator_same_bits(cloud):
    def changed(*key):
        made = EVERYTHING.apply(cloud, np.random.default_rng(key), NAMES)
        return made.xyz.tobytes(), made.features.tobytes(), made.labels.tobytes()

    assert changed(1, 2, 3) == changed(1, 2, 3)
    assert len({changed(1, 2, 3), changed(0, 2, 3), changed(1, 0, 3), changed(1, 2, 0)}) == 4


def test_scenes_without_features_or_labels_go_through(cloud, rng):
    changed = EVERYTHING.apply(PointCloud(cloud.xyz), rng)
    assert changed.features is None
    assert changed.labels is None


# --- which points stay ---


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_is_a_full_square_inside_the_scene(cloud, seed):
    kept = run(cloud, seed, crop=2.0)
    extent = np.ptp(kept.xyz, axis=0)
    assert (extent[:2] <= 2.0).all()
    assert (extent[:2] > 1.8).all()  # some 170 points: never half beyond the border
    low, high = kept.xyz.min(axis=0), kept.xyz.max(axis=0)
    inside = ((cloud.xyz[:, :2] >= low[:2]) & (cloud.xyz[:, :2] <= high[:2])).all(axis=1)
    np.testing.assert_array_equal(kept.xyz, cloud.xyz[inside])  # all that is there, at all heights, in order
    np.testing.assert_array_equal(kept.labels, cloud.labels[inside])
    np.testing.assert_array_equal(kept.features, cloud.features[inside])


def test_crops_fall_everywhere(cloud):
    middles = np.array([run(cloud, seed, crop=1.0).xyz[:, :2].mean(axis=0) for seed in range(40)])
    assert (np.ptp(middles, axis=0) > [4, 2]).all()


def test_a_crop_larger_than_the_scene_keeps_all(cloud):
    np.testing.assert_array_equal(run(cloud, crop=6.5).xyz, cloud.xyz)
    assert np.ptp(run(cloud, crop=5.0).xyz[:, 1]) == np.ptp(cloud.xyz[:, 1])


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_holds_the_only_labelled_point(cloud, seed):
    labels = np.full(len(cloud), IGNORE)
    labels[77] = 1
    kept = run(PointCloud(cloud.xyz, cloud.features, labels), seed, crop=0.5)
    assert (kept.labels == 1).sum() == 1


def test_a_crop_of_a_scene_without_labels_still_has_points(cloud):
    assert len(run(PointCloud(cloud.xyz, cloud.features, np.full(len(cloud), IGNORE)), crop=0.2)) > 0


def test_dropout_keeps_rows_together_and_stays_below_its_share(cloud):
    rows = {row.tobytes(): i for i, row in enumerate(cloud.xyz)}
    shares = []
    for seed in range(30):
        kept = run(cloud, seed, dropout=0.4)
        numbers = [rows[row.tobytes()] for row in kept.xyz]
        assert numbers == sorted(numbers)
        np.testing.assert_array_equal(kept.features, cloud.features[numbers])
        np.testing.assert_array_equal(kept.labels, cloud.labels[numbers])
        shares.append(1 - len(kept) / len(cloud))
    assert max(shares) < 0.45
    assert np.mean(shares) == pytest.approx(0.2, abs=0.06)


def test_dropout_never_empties_a_scene():
    one = PointCloud(np.ones((1, 3), np.float32), None, np.zeros(1, np.int64))
    assert all(len(run(one, seed, dropout=0.99)) == 1 for seed in range(30))


# --- where they go ---


def middle(xyz):
    return (xyz.min(axis=0) + xyz.max(axis=0)) / 2


def test_rotation_keeps_height_and_distance_from_the_middle(cloud):
    changed = run(cloud, rotate_z=True).xyz
    np.testing.assert_allclose(changed[:, 2], cloud.xyz[:, 2], rtol=1e-5)
    pivot = middle(cloud.xyz)
    np.testing.assert_allclose(
        np.linalg.norm(changed - pivot, axis=1), np.linalg.norm(cloud.xyz - pivot, axis=1), rtol=1e-3, atol=1e-5
    )


def turn_of(changed, cloud):
    """Degrees about the middle, from the point farthest from it."""
    before, after = ((xyz - middle(cloud.xyz))[:, :2] @ [1, 1j] for xyz in (cloud.xyz, changed.xyz))
    far = np.abs(before).argmax()
    return np.degrees(np.angle(after[far] / before[far]))


def test_rotation_takes_all_turns_or_up_to_so_many_degrees(cloud):
    every = [turn_of(run(cloud, seed, rotate_z=True), cloud) for seed in range(40)]
    assert np.histogram(every, bins=4, range=(-180, 180))[0].min() > 3
    few = np.abs([turn_of(run(cloud, seed, rotate_z=10), cloud) for seed in range(40)])
    assert 7 < few.max() <= 10.01


def test_a_mirror_turns_x_about_the_middle_every_other_time(cloud):
    mirrored = 0
    for seed in range(40):
        changed = run(cloud, seed, mirror=True).xyz
        np.testing.assert_allclose(changed[:, 1:], cloud.xyz[:, 1:], atol=1e-5)
        if not np.array_equal(changed, cloud.xyz):
            mirrored += 1
            np.testing.assert_allclose(changed[:, 0], 2 * middle(cloud.xyz)[0] - cloud.xyz[:, 0], rtol=1e-5)
    assert 10 < mirrored < 30


def test_scale_is_one_factor(cloud):
    factors = []
    for seed in range(30):
        factor = np.ptp(run(cloud, seed, scale=(0.5, 2.0)).xyz, axis=0) / np.ptp(cloud.xyz, axis=0)
        np.testing.assert_allclose(factor, factor[0], rtol=1e-4)
        factors.append(factor[0])
    assert 0.5 <= min(factors) < 0.8
    assert 1.7 < max(factors) <= 2.001


def test_matrix_noise_is_linear_with_its_deviation(cloud):
    entries = []
    around = cloud.xyz - middle(cloud.xyz)
    for seed in range(60):
        changed = run(cloud, seed, matrix=0.1).xyz - middle(cloud.xyz)
        found, *_ = np.linalg.lstsq(around.astype(np.float64), changed.astype(np.float64), rcond=None)
        np.testing.assert_allclose(around @ found, changed, atol=1e-4)
        entries.append(found - np.eye(3))
    assert np.std(entries) == pytest.approx(0.1, rel=0.1)
    assert np.abs(np.mean(entries, axis=0)).max() < 0.05


def test_an_offset_is_one_shift_per_axis(cloud):
    shifts = []
    for seed in range(40):
        shift = run(cloud, seed, offset=0.4).xyz - cloud.xyz
        np.testing.assert_allclose(shift, np.broadcast_to(shift[:1], shift.shape), atol=1e-5)
        shifts.append(shift[0])
    assert np.min(shifts) >= -1e-6
    assert np.max(shifts) < 0.4 + 1e-6
    assert (np.ptp(shifts, axis=0) > 0.3).all()


def test_a_distortion_has_its_deviation_and_is_smooth(rng):
    xyz = (rng.random((4000, 3)) * [20, 20, 4]).astype(np.float32)
    xyz[2001:] = (xyz[1:2000] + np.float32(0.005)).clip(xyz.min(axis=0), xyz.max(axis=0))  # row i + 2000 is close to i
    shift = distorted(xyz, 0.25, 1.0, np.random.default_rng(5)) - xyz
    # [1, 2, 3, 2, 1] / 9 three times makes 0.1137 of white noise; between the nodes there is less, not more.
    assert 0.07 < shift.std() < 0.1137
    assert np.abs(shift[2001:] - shift[1:2000]).max() < 0.02  # 1 % of the way between two nodes


def test_a_distortion_is_linear_in_its_magnitude(cloud):
    one, two = (distorted(cloud.xyz, 0.3, size, np.random.default_rng(1)) - cloud.xyz for size in (0.5, 1.0))
    np.testing.assert_allclose(2 * one, two, atol=1e-5)


def test_a_distortion_at_a_node_is_the_blurred_noise_there():
    xyz = np.stack(np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
    shift = distorted(xyz, 0.5, 2.0, np.random.default_rng(9)) - xyz
    noise = np.random.default_rng(9).standard_normal((9, 9, 9, 3), dtype=np.float32)
    blur = np.array([1, 2, 3, 2, 1]) / 9
    expected = 2 * np.einsum("i,j,k,ijkc->c", blur, blur, blur, noise[2:7, 1:6, 3:8])
    row = np.flatnonzero((xyz == [2, 1, 3]).all(axis=1))[0]
    np.testing.assert_allclose(shift[row], expected, atol=1e-5)


def test_too_fine_a_distortion_says_what_helps(cloud):
    with pytest.raises(CloudError, match=f"granularity 0.001 m.*at most {MAX_NODES} are allowed; crop") as caught:
        run(cloud, elastic=((0.001, 0.1),))
    assert "\n" not in str(caught.value)


# --- colour ---


def test_colour_is_one_shift_per_column_of_a_colour(cloud):
    shifts = []
    for seed in range(60):
        shift = run(cloud, seed, colour=0.1).features - cloud.features
        np.testing.assert_allclose(shift, np.broadcast_to(shift[:1], shift.shape), atol=1e-6)
        shifts.append(shift[0])
    np.testing.assert_array_equal(np.array(shifts)[:, 1], 0)  # returns is no colour
    assert np.std(np.array(shifts)[:, [0, 2]]) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"crop": -1.0}, "augment.crop"),
        ({"crop": float("nan")}, "augment.crop"),
        ({"dropout": 1.0}, "augment.dropout"),
        ({"dropout": -0.1}, "augment.dropout"),
        ({"matrix": float("inf")}, "augment.matrix"),
        ({"rotate_z": 181}, "augment.rotate_z"),
        ({"rotate_z": -1}, "augment.rotate_z"),
        ({"scale": (1.2, 0.8)}, "augment.scale"),
        ({"scale": (1.0,)}, "augment.scale"),
        ({"scale": (0.0, 1.0)}, "augment.scale"),
        ({"elastic": ((0.0, 1.0),)}, "augment.elastic"),
        ({"elastic": ((1.0, float("inf")),)}, "augment.elastic"),
        ({"elastic": (0.2, 0.4)}, "augment.elastic"),
        ({"elastic": ((1.0, 1.0, 1.0),)}, "augment.elastic"),
        ({"offset": -0.1}, "augment.offset"),
        ({"colour": -0.1}, "augment.colour"),
    ],
)
def test_values_out_of_range_are_refused(arguments, says):
    with pytest.raises(RecipeError, match=says) as caught:
        AugmentScenes(**arguments)
    assert "found" in str(caught.value)
