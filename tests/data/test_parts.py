"""The made-up objects: from a seed, of many proportions, their parts where they should be."""

from __future__ import annotations

import numpy as np
import pytest

from meshes import open_edges, volume
from popcloud.data import parts
from popcloud.data.mesh import face_vectors, union
from popcloud.data.part_objects import OBJECTS
from popcloud.errors import DatasetError

MANY = 60  # objects of a category: enough to meet each of its kinds


@pytest.fixture(scope="module")
def drawn() -> dict[str, list]:
    rng = np.random.default_rng(7)
    return {name: [maker(rng) for _ in range(MANY)] for name, (maker, _) in OBJECTS.items()}


def test_there_are_six_categories_and_twenty_parts_or_more():
    assert len(parts.CATEGORIES) >= 6
    assert len(set(parts.PARTS)) == len(parts.PARTS) >= 20


@pytest.mark.parametrize("name", OBJECTS)
def test_every_piece_is_closed_and_turned_outward(drawn, name):
    for pieces in drawn[name][:12]:
        for part, mesh in pieces:
            assert open_edges(mesh, 0) == set(), part
            assert volume(mesh)[0] > 0, part


@pytest.mark.parametrize("name", OBJECTS)
def test_every_part_comes_and_objects_have_two_parts_at_least(drawn, name):
    seen = [{part for part, _ in pieces} for pieces in drawn[name]]
    assert set().union(*seen) == set(OBJECTS[name][1])
    assert min(len(one) for one in seen) >= 2


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_of_about_unit_size_and_of_many_proportions(drawn, name):
    bodies = [union(*(mesh for _, mesh in pieces)) for pieces in drawn[name]]
    sizes = np.array([np.ptp(body.vertices[0], axis=0) for body in bodies])
    assert 0.5 < sizes.max(axis=1).min() < sizes.max(axis=1).max() < 4
    proportions = np.sort(sizes, axis=1)[:, 1] / sizes.max(axis=1)
    assert proportions.std() > 0.03
    assert len({body.vertices.tobytes() for body in bodies}) == MANY


def test_no_part_is_too_small_to_be_seen(drawn):
    for name, objects in drawn.items():
        area = dict.fromkeys(OBJECTS[name][1], 0.0)
        for pieces in objects:
            for part, mesh in pieces:
                area[part] += float(np.linalg.norm(face_vectors(mesh), axis=2).sum())
        shares = np.array(list(area.values())) / sum(area.values())
        assert shares.min() > 0.01, name


def test_parts_lie_where_their_names_say():
    data = parts.load(None, "train", points=512, clouds=90)
    above = [("chair/back", "chair/seat"), ("chair/seat", "chair/leg"), ("table/top", "table/leg")]
    above += [("rocket/nose", "rocket/body"), ("rocket/body", "rocket/fin"), ("cap/crown", "cap/peak")]
    for high, low in above:
        one, two = data.parts.index(high), data.parts.index(low)
        clouds = [c for c in data.clouds if {one, two} <= set(c.labels.tolist())]
        differences = [c.xyz[c.labels == one, 2].mean() - c.xyz[c.labels == two, 2].mean() for c in clouds]
        assert len(clouds) >= 9
        assert np.mean(np.array(differences) > 0) > 0.9, (high, low)


def test_a_normal_is_that_of_the_surface_at_its_point():
    cloud = parts.make("knife", 1, 1500, np.random.default_rng(1))[0]
    blade = cloud.labels == 0
    # A blade is a plate: nearly all of its normals are one direction or the opposite one.
    facing = cloud.features[blade] @ cloud.features[blade][0]
    assert (np.abs(facing) > 0.99).mean() > 0.8
    thin = (cloud.xyz[blade] @ cloud.features[blade][0]).std()
    assert thin < 0.2 * np.linalg.norm(cloud.xyz[blade].std(axis=0))


def test_the_seed_changes_every_cloud():
    one, two = (parts.load(None, "val", points=16, seed=seed, clouds=18) for seed in (0, 1))
    assert not {cloud.xyz.tobytes() for cloud in one.clouds} & {cloud.xyz.tobytes() for cloud in two.clouds}


def test_a_category_keeps_its_clouds_when_others_are_left_out():
    whole = parts.load(None, "train", points=32, clouds=18)
    alone = parts.load(None, "train", points=32, clouds=2, categories=["mug"])
    mug = whole.categories.index("mug")
    mine = {whole.clouds[i].xyz.tobytes() for i in np.flatnonzero(whole.category == mug)}
    assert {cloud.xyz.tobytes() for cloud in alone.clouds} == mine
    assert alone.parts == ("mug/cup", "mug/handle")
    assert set(np.concatenate([cloud.labels for cloud in alone.clouds]).tolist()) == {0, 1}


def test_categories_come_evenly_and_in_random_order():
    category = parts.load(None, "train", points=4, clouds=40).category
    assert sorted(np.bincount(category).tolist()) == [4] * 5 + [5] * 4
    assert not np.array_equal(category, np.sort(category))


def test_default_sizes():
    data = parts.load(None, "val")
    assert len(data) == parts.CLOUDS["val"]
    assert {len(cloud) for cloud in data.clouds} == {parts.POINTS}


def test_fewer_clouds_than_categories_are_refused():
    with pytest.raises(DatasetError, match="3 clouds can't show 9 categories"):
        parts.load(None, "train", clouds=3)


def test_place_alone_does_not_tell_the_part():
    """A nearest neighbour by category and place is right often, and not always: shapes differ, and so do poses."""
    train, test = (parts.load(None, split, points=90, clouds=count) for split, count in (("train", 180), ("test", 45)))
    right = []
    for cloud, category in zip(test.clouds, test.category, strict=True):
        known = [train.clouds[i] for i in np.flatnonzero(train.category == category)]
        xyz, labels = np.concatenate([c.xyz for c in known]), np.concatenate([c.labels for c in known])
        nearest = ((cloud.xyz[:, None] - xyz) ** 2).sum(axis=2).argmin(axis=1)
        right.append((labels[nearest] == cloud.labels).mean())
    assert 0.6 < np.mean(right) < 0.93
