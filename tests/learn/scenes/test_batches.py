from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from popcloud.cloud import IGNORE, PointCloud
from popcloud.data.augment_scenes import AugmentScenes
from popcloud.errors import CloudError, DatasetError, RecipeError
from popcloud.geometry.plan import GridPlan
from popcloud.learn.scenes import batches
from popcloud.learn.scenes.batches import Order, Workshop, columns, make, orders, sample

VARIED = AugmentScenes(crop=1.5, rotate_z=True, scale=(0.8, 1.2))


@pytest.fixture
def shop(scenes):
    return Workshop(scenes, GridPlan(0.25, 2), 1 << 20, ("one", "features", "height"), VARIED, seed=3)


def test_a_batch_depends_on_nothing_but_its_order(shop):
    order = Order(1, 4, ((2, 0), (0, 1)))
    one = make(shop, order)
    make(shop, Order(0, 0, ((1, 1),)))
    again = make(shop, order)
    assert one.x.tobytes() == again.x.tobytes()
    assert one.labels.tobytes() == again.labels.tobytes()
    assert np.array_equal(one.pyramid.point_to_site, again.pyramid.point_to_site)


@pytest.mark.parametrize("other", [Order(1, 0, ((0, 0),)), Order(0, 1, ((0, 0),)), Order(0, 0, ((0, 1),))])
def test_stage_epoch_and_view_change_what_is_seen(shop, other):
    one, another = make(shop, Order(0, 0, ((0, 0),))), make(shop, other)
    assert one.x.tobytes() != another.x.tobytes()


def test_a_batch_is_its_scenes_one_after_the_other(shop):
    both = make(shop, Order(0, 0, ((0, 0), (1, 0))))
    first, second = (make(shop, Order(0, 0, ((scene, 0),))) for scene in (0, 1))
    assert np.array_equal(both.x, np.concatenate([first.x, second.x]))
    assert np.array_equal(both.labels, np.concatenate([first.labels, second.labels]))
    sites = [
        np.concatenate([a.sites, b.sites]) for a, b in zip(first.pyramid.levels, second.pyramid.levels, strict=True)
    ]
    assert all(np.array_equal(level.sites, s) for level, s in zip(both.pyramid.levels, sites, strict=True))


def test_sites_get_mean_columns_and_the_majority_label(shop):
    xyz = np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.1], [0.1, 0.1, 0.2], [0.9, 0.1, 0.1]], dtype=np.float32)
    features = np.array([[1, 0], [0, 0], [0.5, 3], [7, 7]], dtype=np.float32)
    made = sample(shop, PointCloud(xyz, features, np.array([2, 2, IGNORE, IGNORE])), "four")
    assert made.labels.tolist() == [2, IGNORE]
    np.testing.assert_allclose(made.x, [[1, 0.5, 1, 0.1 / 30], [1, 7, 7, 0]], atol=1e-7)


def test_height_is_over_the_lowest_hundredth(rng):
    xyz = rng.uniform(0, 1, (1000, 3)).astype(np.float32)
    xyz[:5, 2] = -50  # strays below the ground
    assert np.sort(columns(PointCloud(xyz), ["height"])[:, 0])[10] == 0


@pytest.mark.parametrize(("repeat", "batch", "lengths"), [(1, 2, [2, 1]), (3, 4, [4, 4, 1]), (2, 6, [6])])
def test_an_epoch_has_each_view_once(repeat, batch, lengths):
    epoch = orders(3, repeat, batch, seed=0, stage=0, epoch=0)
    assert [len(order.views) for order in epoch] == lengths
    views = [view for order in epoch for view in order.views]
    assert sorted(views) == [(scene, view) for scene in range(3) for view in range(repeat)]


def test_epochs_and_stages_are_shuffled_differently():
    found = {
        str(orders(20, 1, 20, seed, stage, epoch)[0].views) for seed in (0, 1) for stage in (0, 1) for epoch in (0, 1)
    }
    assert len(found) == 8


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 1), (0.34, 1), (0.5, 2)])
def test_split_keeps_a_share_and_one_to_train_on(scenes, share, count):
    rest, kept = batches.split(scenes, share, seed=1)
    assert len(kept) == count
    assert sorted([*rest.names, *kept.names]) == sorted(scenes.names)
    assert batches.split(scenes.subset([0]), 0.5, 0)[1].names == ()


def test_classes_are_counted_without_unlabelled_points(scenes):
    counts = batches.class_counts(scenes)
    assert counts.sum() == 3 * 81
    assert counts.tolist() == [81, 81, 81]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, "has no labels"),
        ({"labels": np.full(90, 3)}, "has the label 3; expected 0 to 2"),
        ({"labels": np.full(90, -1)}, "has the label -1"),
        ({"labels": np.full(90, IGNORE)}, "has no labelled point"),
        ({"features": None}, "has 0 feature columns, its data set 2"),
    ],
)
def test_a_scene_that_is_of_no_use_is_named(scenes, change, words):
    bad = replace(scenes.clouds[1], **change)
    changed = replace(scenes, clouds=(scenes.clouds[0], bad, scenes.clouds[2]))
    with pytest.raises(DatasetError, match="val scene train1: ") as caught:
        batches.check(changed, "val")
    assert words in str(caught.value)
    assert batches.check(scenes, "val") is scenes


def test_too_fine_an_edge_names_the_scene_and_an_edge_that_fits(shop):
    fine = replace(shop, plan=GridPlan(0.001, 2), max_sites=20, augment=None)
    with pytest.raises(CloudError, match=r"scene train2: voxel edge .* an edge of .* fits"):
        make(fine, Order(0, 0, ((2, 0),)))


def test_features_that_are_not_there_are_refused():
    assert batches.input_channels(["one", "features", "height"], ["red", "green"]) == 4
    with pytest.raises(RecipeError, match="inputs=\\[one\\]"):
        batches.input_channels(["features"], [])
