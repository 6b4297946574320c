"""Kernel maps against a dictionary that looks every neighbour up by itself."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcloud.errors import RecipeError
from popcloud.geometry.kernel_map import KernelMap, neighbour_rows, stack_maps, strided, submanifold
from sites import CLOUDS, all_pairs, assert_same_map, dense, pairs, small_clouds


@pytest.fixture(params=CLOUDS)
def sites(request) -> np.ndarray:
    return CLOUDS[request.param]


def rows_of(sites: np.ndarray) -> dict[tuple[int, ...], int]:
    return {tuple(site): row for row, site in enumerate(sites.tolist())}


def check_submanifold(sites: np.ndarray, size: int) -> None:
    rows, made = rows_of(sites), submanifold(sites, size)
    offsets = list(product(range(-(size // 2), size // 2 + 1), repeat=3))
    assert made.offsets.tolist() == [list(offset) for offset in offsets]
    assert (made.input_sites, made.output_sites) == (len(sites), len(sites))
    for k, (i, j, m) in enumerate(offsets):
        looked_up = [(rows.get((x + i, y + j, z + m)), row) for (x, y, z), row in rows.items()]
        assert pairs(made, k) == [pair for pair in looked_up if pair[0] is not None]


def check_strided(sites: np.ndarray) -> None:
    coarse, made = strided(sites)
    rows, parents = rows_of(sites), rows_of(coarse)
    assert set(parents) == {(x >> 1, y >> 1, z >> 1) for x, y, z in rows}
    assert len(parents) == len(coarse)
    assert made.offsets.tolist() == [list(child) for child in product((0, 1), repeat=3)]
    assert (made.input_sites, made.output_sites) == (len(sites), len(coarse))
    for k, (i, j, m) in enumerate(product((0, 1), repeat=3)):
        looked_up = [(rows.get((2 * x + i, 2 * y + j, 2 * z + m)), row) for (x, y, z), row in parents.items()]
        assert pairs(made, k) == [pair for pair in looked_up if pair[0] is not None]


def check_types(made: KernelMap) -> None:
    kinds = {"offsets": np.int8, "inputs": np.int32, "outputs": np.int32, "ranges": np.int64}
    for name, kind in kinds.items():
        array = getattr(made, name)
        assert array.dtype == kind, name
        assert array.flags.c_contiguous, name


@pytest.mark.parametrize("size", [3, 5])
def test_submanifold_map_is_what_a_dictionary_says(sites, size):
    check_submanifold(sites, size)


@given(small_clouds, st.sampled_from([3, 5]))
@settings(max_examples=50)
def test_submanifold_map_of_any_cloud_is_what_a_dictionary_says(cloud, size):
    check_submanifold(cloud, size)


def test_strided_map_is_what_a_dictionary_says(sites):
    check_strided(sites)


@given(small_clouds)
@settings(max_examples=50)
def test_strided_map_of_any_cloud_is_what_a_dictionary_says(cloud):
    check_strided(cloud)


def test_arrays_are_of_one_kind_and_in_one_piece(sites):
    for made in (submanifold(sites, 3), submanifold(sites, 5).picked(neighbour_rows((1, 0, 0))), strided(sites)[1]):
        check_types(made)
        check_types(made.transposed())


def test_dense_block_has_the_counts_of_a_dense_convolution():
    made = submanifold(dense(5), 3)
    counts = (made.ranges[:, 1] - made.ranges[:, 0]).reshape(3, 3, 3)
    reach = np.array([4, 5, 4])
    np.testing.assert_array_equal(counts, reach[:, None, None] * reach[:, None] * reach)


@pytest.mark.parametrize("size", [2, 4, 7, 1])
def test_unknown_size_names_the_known_ones(size):
    with pytest.raises(RecipeError, match=rf"kernel size {size}: expected one of 3, 5"):
        submanifold(dense(2), size)


def test_sites_in_another_order_are_refused():
    with pytest.raises(ValueError, match="not side by side"):
        submanifold(dense(9)[::-1][np.random.default_rng(0).permutation(9**3)])


def made_maps(sites: np.ndarray) -> list[KernelMap]:
    moved = submanifold(sites, 5).picked(neighbour_rows((1, -1, 0)))
    return [submanifold(sites, 3), submanifold(sites, 5), moved, strided(sites)[1]]


def test_transposed_swaps_inputs_and_outputs_and_keeps_the_order(sites):
    for made in made_maps(sites):
        back = made.transposed()
        assert [sorted((o, i) for i, o in one) for one in all_pairs(made)] == [sorted(one) for one in all_pairs(back)]
        for one in all_pairs(back):
            outputs = [output for _, output in one]
            assert outputs == sorted(set(outputs))
        assert (back.input_sites, back.output_sites) == (made.output_sites, made.input_sites)
        np.testing.assert_array_equal(back.offsets, -made.offsets)


def test_transposed_twice_is_the_map_itself(sites):
    for made in made_maps(sites):
        assert_same_map(made.transposed().transposed(), made)


def test_picked_offsets_come_in_the_order_asked_for_and_share_the_pairs(sites):
    made = submanifold(sites, 3)
    picked = made.picked((20, 3, 3))
    assert all_pairs(picked) == [pairs(made, k) for k in (20, 3, 3)]
    np.testing.assert_array_equal(picked.offsets, made.offsets[[20, 3, 3]])
    assert picked.inputs is made.inputs
    assert picked.outputs is made.outputs
    assert_same_map(picked.transposed(), made.transposed().picked((20, 3, 3)))


def test_inner_27_offsets_of_size_5_are_the_map_of_size_3(sites):
    assert_same_map(submanifold(sites, 5).picked(neighbour_rows((0, 0, 0))), submanifold(sites, 3))


@pytest.mark.parametrize("shift", list(product((-1, 0, 1), repeat=3)))
def test_neighbour_rows_are_the_offsets_around_the_shift(shift):
    offsets = submanifold(dense(1), 5).offsets
    wanted = [[s + i for s, i in zip(shift, inner, strict=True)] for inner in product((-1, 0, 1), repeat=3)]
    assert offsets[neighbour_rows(shift)].tolist() == wanted


@pytest.mark.parametrize("shift", [(2, 0, 0), (0, 0), (0, 0.5, 0)])
def test_shift_outside_the_candidates_is_refused(shift):
    with pytest.raises(RecipeError, match=r"shift .*: expected three numbers, each -1, 0 or 1"):
        neighbour_rows(shift)


def test_stacked_maps_are_the_maps_one_below_the_other():
    clouds = [CLOUDS[name] for name in ("crowded", "one site", "crowded", "scattered")]
    for kind in (submanifold, lambda cloud: submanifold(cloud, 5), lambda cloud: strided(cloud)[1]):
        maps = [kind(cloud) for cloud in clouds]
        both = stack_maps(maps)
        into, out = (np.cumsum([0] + [getattr(m, name) for m in maps]) for name in ("input_sites", "output_sites"))
        for k in range(len(both.ranges)):
            moved = [(i + into[at], o + out[at]) for at, m in enumerate(maps) for i, o in pairs(m, k)]
            assert pairs(both, k) == moved
        assert (both.input_sites, both.output_sites) == (into[-1], out[-1])
        assert_same_map(both.transposed(), stack_maps([m.transposed() for m in maps]))
        check_types(both)


def test_picked_maps_are_not_stacked():
    picked = submanifold(dense(2), 3).picked(range(5))
    with pytest.raises(ValueError, match="only whole kernel maps"):
        stack_maps([picked, picked])
