"""Neighbours by the engine are those of numpy: element for element, for any number of threads and any kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds import CLOUDS
from popcloud import native
from popcloud.errors import CloudError, EngineError, PopcloudError
from popcloud.geometry import fast, neighbors

THREADS = (1, 2, 3)

pytestmark = pytest.mark.skipif(not native.available(), reason="the engine is not built")


def same(name: str, *arguments: object) -> None:
    """Hold the engine's answer, or its error, to numpy's."""
    wanted = outcome(lambda: getattr(neighbors, name)(*arguments))
    for threads in THREADS:
        found = outcome(lambda threads=threads: getattr(fast, name)(*arguments, threads=threads))
        for one, two in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, two)
            assert np.asarray(one).dtype == np.asarray(two).dtype


def outcome(call):
    try:
        answer = call()
    except PopcloudError as error:
        return type(error).__name__, str(error)
    return answer if isinstance(answer, tuple) else (answer,)


@pytest.fixture(params=CLOUDS)
def cloud(request) -> np.ndarray:
    return CLOUDS[request.param]


def spread(cloud: np.ndarray) -> float:
    """Return about how far apart the points are."""
    return float(np.abs(cloud.astype(np.float64) - cloud[0]).mean()) or 1.0


def queries_of(cloud: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some of the points, and places between and around them."""
    around = cloud[rng.integers(0, len(cloud), 40)] + spread(cloud) * rng.normal(size=(40, 3)).astype(np.float32)
    return np.concatenate([cloud[:60], around.astype(np.float32), cloud[:1] * 0])


@pytest.mark.parametrize(("k", "dilation"), [(1, 1), (20, 1), (16, 3), (129, 1)])
def test_nearest_points_are_equal(cloud, rng, k, dilation):
    same("nearest", queries_of(cloud, rng), cloud, k, dilation)


def test_more_neighbours_than_are_kept_in_order_are_equal(rng):
    cloud = rng.normal(size=(900, 3)).astype(np.float32)
    same("nearest", cloud[:5], cloud, 600)
    same("nearest", cloud[:5], cloud, 300, 3)
    same("nearest_features", cloud[:5], cloud, 600)


def test_neighbours_of_all_points_are_equal(cloud):
    same("nearest", cloud, cloud, min(len(cloud), 20))


@pytest.mark.parametrize(("share", "k"), [(0.02, 3), (0.3, 1), (0.3, 32), (1.0, 7), (1.0, 200), (10.0, 33)])
def test_balls_are_equal(cloud, share, k):
    same("ball", cloud[:150], cloud, min(share * spread(cloud), 1e19), k)


def test_balls_whose_surface_holds_points_are_equal():
    lattice = CLOUDS["lattice"]
    for radius in (1.0, 2.0, 3.0):
        same("ball", lattice, lattice, radius, 40)


def test_farthest_points_are_equal(cloud):
    for count in {1, min(2, len(cloud)), (len(cloud) + 1) // 2, len(cloud)}:
        same("farthest_points", cloud, count)


def test_farthest_points_of_many_are_equal(rng):
    same("farthest_points", rng.normal(size=(9000, 3)), 300)
    same("farthest_points", np.round(rng.normal(size=(9000, 3)) * 3), 600)


def test_densities_are_equal(cloud):
    for share in (0.05, 1.0):
        same("density", cloud, min(share * spread(cloud), 1e18))


def test_interpolation_is_equal(cloud, rng):
    queries = queries_of(cloud, rng)
    same("three_nearest", queries, cloud)
    if len(cloud) >= 3:
        features = rng.normal(size=(len(cloud), 13)).astype(np.float32)
        same("interpolate", features, *neighbors.three_nearest(queries, cloud))


@pytest.mark.parametrize("kernels", native.engine().available() if native.available() else [])
@pytest.mark.parametrize("channels", [1, 3, 16, 67])
def test_nearest_features_are_equal(rng, channels, kernels):
    points = rng.normal(size=(133, channels)).astype(np.float32)
    points[40:90] = np.round(points[40:90])
    points[[5, 130], 0] = np.nan, np.inf
    queries = np.concatenate([points[::3], rng.normal(size=(20, channels)).astype(np.float32)])
    for k, dilation in ((20, 1), (10, 4), (133, 1)):
        wanted = neighbors.nearest_features(queries, points, k, dilation)
        for threads in THREADS:
            found = native.engine().nearest_features(queries, points, k, dilation, threads, kernels)
            np.testing.assert_array_equal(found, wanted)
    same("nearest_features", queries, points, 12)


@pytest.mark.parametrize("kernels", native.engine().available() if native.available() else [])
@pytest.mark.parametrize("words", [1, 2, 5])
def test_nearest_signs_are_equal(rng, words, kernels):
    points = rng.integers(0, 1 << 63, (210, words)).astype(np.uint64)
    points[50:90] = points[:40]
    queries = points[:99].copy()
    for k, dilation in ((1, 1), (20, 1), (9, 7), (210, 1)):
        wanted = neighbors.nearest_signs(queries, points, k, dilation)
        for threads in THREADS:
            found = native.engine().nearest_signs(queries, points, k, dilation, threads, kernels)
            np.testing.assert_array_equal(found, wanted)
    same("nearest_signs", points[:9], points, 5)


@given(
    points=st.lists(st.tuples(*[st.floats(-4, 4, width=16)] * 3), min_size=1, max_size=80),
    k=st.integers(1, 40),
    dilation=st.integers(1, 3),
    radius=st.sampled_from([0.25, 1.0, 2.0]),
)
@settings(max_examples=60)
def test_any_points(points, k, dilation, radius):
    cloud = np.array(points, np.float32)
    same("nearest", cloud, cloud, k, dilation)
    same("ball", cloud, cloud[::2], radius, k)
    same("farthest_points", cloud, min(k, len(cloud)))
    same("density", cloud, radius)


def test_clouds_together_are_clouds_one_by_one(rng):
    clouds = rng.normal(size=(5, 60, 3)).astype(np.float32)
    asked = np.ascontiguousarray(clouds[:, ::3])
    signs = rng.integers(0, 1 << 63, (5, 60, 2)).astype(np.uint64)
    features = rng.normal(size=(5, 60, 7)).astype(np.float32)
    rows, weights = fast.three_nearest(asked, clouds)
    calls = [
        (fast.nearest, (asked, clouds), (6, 2)),
        (fast.nearest_features, (features, features), (4,)),
        (fast.nearest_signs, (signs, signs), (4,)),
        (fast.ball, (asked, clouds), (0.8, 12)),
        (fast.farthest_points, (clouds,), (20,)),
        (fast.density, (clouds,), (0.5,)),
        (fast.interpolate, (features, rows, weights), ()),
    ]
    for call, batches, others in calls:
        each = np.stack([call(*(batch[b] for batch in batches), *others) for b in range(5)])
        for threads in THREADS:
            np.testing.assert_array_equal(call(*batches, *others, threads=threads), each)


def bad(rows: int, value: float) -> np.ndarray:
    cloud = np.zeros((rows, 3))
    cloud[-1, 1] = value
    return cloud


TEN = np.arange(30.0).reshape(10, 3)
REFUSED = [
    ("nearest", TEN, TEN, 11),
    ("nearest", TEN, TEN, 5, 3),
    ("nearest", TEN, TEN, 0),
    ("nearest", TEN, TEN, 2, 0),
    ("nearest", TEN, bad(5, np.nan), 2),
    ("nearest", bad(5, np.inf), TEN, 2),
    ("nearest", TEN, np.zeros((0, 3)), 1),
    ("nearest", TEN[:, :2], TEN, 1),
    ("nearest_features", TEN.astype(np.float32), TEN.astype(np.float32), 11),
    ("nearest_features", TEN.astype(np.float32), TEN.astype(np.float32)[:, :2], 1),
    ("nearest_signs", np.zeros((4, 1), np.uint64), np.zeros((4, 1), np.uint64), 5),
    ("farthest_points", TEN, 11),
    ("farthest_points", TEN, 0),
    ("farthest_points", bad(3, np.nan), 2),
    ("ball", TEN, TEN[:4], 2.0, 3),
    ("ball", TEN, TEN, 0.0, 3),
    ("ball", TEN, TEN, float("nan"), 3),
    ("ball", TEN, TEN, 1e30, 3),
    ("ball", TEN, TEN, 1.0, 0),
    ("three_nearest", TEN, TEN[:2]),
    ("density", TEN, -1.0),
    ("density", bad(2, np.inf), 1.0),
]


@pytest.mark.parametrize("call", REFUSED, ids=lambda call: call[0])
def test_errors_are_equal(call):
    name, *arguments = call
    with pytest.raises(PopcloudError):
        getattr(neighbors, name)(*arguments)
    same(name, *arguments)


def test_the_binding_refuses_by_itself():
    engine, ten = native.engine(), TEN.astype(np.float32)
    with pytest.raises(CloudError, match="needs at least 11 points, found 10"):
        engine.nearest(ten, ten, 11)
    with pytest.raises(CloudError, match="11 farthest points: expected 1 to 10"):
        engine.farthest_points(ten, 11)
    with pytest.raises(CloudError, match="within 1 of query 2"):
        engine.ball(np.stack([ten, ten]), np.stack([ten, np.repeat(ten[:2], 5, axis=0)]), 1.0, 3)
    with pytest.raises(EngineError, match="as many clouds"):
        engine.nearest(ten[None], ten, 2)
    for interpolate in (engine.interpolate, neighbors.interpolate):
        for row in (-1, 10):
            with pytest.raises(EngineError, match=f"rows must be those of features, less than 10, found {row}"):
                interpolate(ten, np.full((1, 3), row, np.int32), np.ones((1, 3), np.float32))
    with pytest.raises(EngineError, match="threads must be 1 to 1024"):
        engine.nearest(ten, ten, 2, 1, 0)
