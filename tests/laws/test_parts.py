"""What holds for every data set of parts: one loader shape, parts of their category, the same bits again."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from part_folders import write_text
from popcloud.cloud import normalize
from popcloud.data import PARTS, part_sets, parts
from popcloud.errors import DatasetError


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path | None]:
    """A small folder for every data set that reads one."""
    folder = tmp_path_factory.mktemp("shapenet_part")
    write_text(folder)
    return {"parts": None, "shapenet_part": folder}


@pytest.fixture(params=PARTS)
def name(request) -> str:
    return request.param


@pytest.fixture
def load(name, roots):
    """The loader with its folder and a small size filled in."""

    def loader(split="train", **arguments):
        return PARTS[name](roots[name], split, **{"points": 24, "clouds": 18} | arguments)

    return loader


def test_every_loader_takes_the_same_arguments(name):
    assert inspect.signature(PARTS[name]) == inspect.signature(parts.load)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_clouds_have_the_contracts_shapes_and_types(load, split):
    data = load(split)
    assert len(data) == len(data.names) == len(set(data.names)) == len(data.category) > 0
    assert data.category.dtype == np.int64
    for cloud in data.clouds:
        assert cloud.xyz.shape == (24, 3)
        assert cloud.xyz.dtype == cloud.features.dtype == np.float32
        assert cloud.xyz.flags.c_contiguous
        assert cloud.features.shape == (24, len(data.features))
        assert cloud.labels.shape == (24,)
        assert cloud.labels.dtype == np.int64


def test_a_clouds_parts_are_those_of_its_category(load):
    data = load()
    for cloud, category in zip(data.clouds, data.category.tolist(), strict=True):
        assert set(cloud.labels.tolist()) <= set(data.parts_of(category))


def test_parts_belong_to_one_category_each_side_by_side(load):
    data = load()
    groups = [data.parts_of(category) for category in range(len(data.categories))]
    assert [part for group in groups for part in group] == list(range(len(data.parts)))
    assert all(len(group) > 1 for group in groups)


def test_clouds_lie_in_the_unit_sphere_and_normals_have_length_1(load):
    for cloud in load().clouds:
        np.testing.assert_allclose(normalize(cloud.xyz, "unit_sphere"), cloud.xyz, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(cloud.features, axis=1), 1, atol=1e-5)


def test_same_arguments_give_the_same_bits(load):
    one, two = load(seed=5), load(seed=5)
    assert one.names == two.names
    for a, b in zip(one.clouds, two.clouds, strict=True):
        for field in ("xyz", "features", "labels"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_splits_share_no_cloud(load):
    seen = [{cloud.xyz.tobytes() for cloud in load(split).clouds} for split in ("train", "val", "test")]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


def test_categories_are_restricted_in_the_order_asked_for(load):
    first, *_, last = load().categories
    data = load(categories=[last, first])
    assert data.categories == (last, first)
    assert set(data.category.tolist()) == {0, 1}
    assert [part.split("/")[0] for part in data.parts] == sorted(
        [part.split("/")[0] for part in data.parts], key=[last, first].index
    )
    for cloud, category in zip(data.clouds, data.category.tolist(), strict=True):
        assert set(cloud.labels.tolist()) <= set(data.parts_of(category))


def test_a_subset_keeps_what_belongs_together(load):
    data = load()
    part = data.subset([3, 1])
    assert part.names == (data.names[3], data.names[1])
    assert part.category.tolist() == data.category[[3, 1]].tolist()
    np.testing.assert_array_equal(part.clouds[1].xyz, data.clouds[1].xyz)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "valid"}, "unknown split 'valid'; did you mean 'val'.*train, val, test"),
        ({"categories": ["sofa"]}, "unknown category 'sofa'.*valid:"),
        ({"categories": []}, "categories: expected different names, at least one"),
        ({"categories": "Chair"}, "categories: expected a list"),
        ({"points": 0}, "points: expected at least 1"),
        ({"clouds": 0}, "clouds: expected at least 1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_one_line(load, arguments, says):
    with pytest.raises(DatasetError, match=says) as caught:
        load(**arguments)
    assert "\n" not in str(caught.value)


def test_an_unknown_data_set_names_the_valid_ones():
    with pytest.raises(DatasetError, match=r"unknown data set of parts 'part'; did you mean 'parts'.*shapenet_part"):
        part_sets("part")


def test_a_known_data_set_is_found(name):
    assert part_sets(name) is PARTS[name]
