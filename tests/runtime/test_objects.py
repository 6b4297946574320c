"""Models on points answer as their rows say: categories, features, rooms in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud import native
from popcloud.cloud import PointCloud, normalize
from popcloud.errors import CloudError, RecipeError
from popcloud.geometry import blocks
from popcloud.packed.file import write
from popcloud.packed.program import Kind, Op, Program, Rows, Sampling, Step, Value
from popcloud.runtime import reference
from popcloud.runtime.session import REFERENCE, Session

PARTS = ("Cap/panel", "Cap/peak", "Mug/handle", "Mug/body")
OBJECT = ("x", "y", "z", "nx", "ny", "nz", "category:Cap", "category:Mug")
KERNELS = [REFERENCE, *(native.engine().available() if native.available() else [])]


def model(rng, tmp_path, features, classes, *, pooled=False, points=0, normalize="unit_sphere"):
    """A linear map of each point's columns, of the whole cloud if `pooled`; returns its program and its file."""
    values = [Value("cloud", Kind.FLOAT, Rows.POINT, len(features))]
    values.append(Value("answer", Kind.FLOAT, Rows.POINT, len(classes)))
    weight = rng.standard_normal((len(features), len(classes))).astype(np.float32)
    steps = [Step(Op.LINEAR, (0,), 1, blobs={"weight": weight, "bias": np.zeros(len(classes), np.float32)})]
    if pooled:
        values.append(Value("pooled", Kind.FLOAT, Rows.CLOUD, len(classes)))
        steps.append(Step(Op.POOL_MAX, (1,), 2))
    program = Program(
        tuple(values), tuple(steps), points, normalize, classes, plan=Sampling(), features=tuple(features)
    )
    write(program, tmp_path / "model.popc")
    return program, tmp_path / "model.popc"


@pytest.fixture
def mug(rng):
    return PointCloud(rng.standard_normal((40, 3)).astype(np.float32), rng.standard_normal((40, 3)).astype(np.float32))


@pytest.mark.parametrize("kernels", KERNELS)
def test_parts_are_those_of_the_category(rng, tmp_path, mug, kernels):
    program, path = model(rng, tmp_path, OBJECT, PARTS)
    session = Session(path, kernels=kernels)
    told = np.tile(np.float32([0, 1]), (40, 1))
    expected = reference.run(program, np.column_stack([mug.xyz, mug.features, told]))
    assert session.per_point
    assert session.objects.categories == ("Cap", "Mug")
    assert session.objects.own == ("nx", "ny", "nz")
    answer = session.run(mug, category="Mug")
    assert np.array_equal(answer, expected)
    assert np.array_equal(session.labels(mug, category="Mug"), 2 + answer[:, 2:].argmax(1))
    both = session.labels([mug, mug], category=["Cap", "Mug"])
    assert set(both[0]) <= {0, 1}
    assert set(both[1]) <= {2, 3}


@pytest.mark.parametrize(
    ("category", "said"),
    [(None, "expected one of Cap, Mug"), ("Lamp", "unknown category 'Lamp'"), (["Cap"] * 2, "found 2")],
)
def test_a_category_that_the_model_does_not_know_is_refused(rng, tmp_path, mug, category, said):
    session = Session(model(rng, tmp_path, OBJECT, PARTS)[1], kernels=REFERENCE)
    with pytest.raises(RecipeError, match=said):
        session.run(mug, category=category)


def test_a_model_without_categories_refuses_one(rng, tmp_path, mug):
    session = Session(model(rng, tmp_path, OBJECT[:6], PARTS)[1], kernels=REFERENCE)
    with pytest.raises(RecipeError, match="takes none"):
        session.run(mug, category="Cap")


def test_lacking_features_are_named(rng, tmp_path, mug):
    session = Session(model(rng, tmp_path, OBJECT, PARTS)[1], kernels=REFERENCE)
    with pytest.raises(CloudError, match="nx, ny, nz"):
        session.run(mug.xyz, category="Cap")


@pytest.mark.parametrize("features", [np.zeros((39, 3), np.float32), np.zeros((40, 2), np.float32)])
def test_features_of_another_shape_are_refused(rng, tmp_path, mug, features):
    session = Session(model(rng, tmp_path, OBJECT, PARTS)[1], kernels=REFERENCE)
    with pytest.raises(CloudError, match="nx, ny, nz of 40 points"):
        session.run(PointCloud(mug.xyz, features), category="Cap")


def test_features_that_the_model_does_not_read_change_nothing(rng, tmp_path, mug):
    session = Session(model(rng, tmp_path, OBJECT[:3], PARTS)[1], kernels=REFERENCE)
    assert np.array_equal(session.run(mug), session.run(mug.xyz))


@pytest.mark.parametrize("cloud", [[[1.0, 2.0, 3.0], [1.0, 2.0]], "cap", np.full((2, 3), 1e300)])
def test_what_is_no_cloud_is_refused(rng, tmp_path, cloud):
    session = Session(model(rng, tmp_path, OBJECT[:3], PARTS)[1], kernels=REFERENCE)
    with pytest.raises(CloudError, match=r"^cloud: "):
        session.run(PointCloud(cloud))


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_room_is_answered_block_by_block(rng, tmp_path, kernels):
    classes = ("floor", "wall", "chair")
    program, path = model(rng, tmp_path, blocks.FEATURES, classes, normalize="blocks")
    xyz = rng.uniform(0, 3, (500, 3)).astype(np.float32)
    room = PointCloud(xyz, rng.uniform(-1, 1, (500, 3)).astype(np.float32))
    answer = Session(path, kernels=kernels).run(room)
    assert answer.shape == (500, 3)
    for block in blocks.blocks_of(room.xyz, room.features):
        assert np.array_equal(answer[block.rows], reference.run(program, block.features))


@pytest.mark.parametrize("kernels", KERNELS)
def test_whole_clouds_on_points_are_resampled(rng, tmp_path, kernels):
    program, path = model(rng, tmp_path, ("x", "y", "z"), ("a", "b"), pooled=True, points=16)
    clouds = [rng.standard_normal((n, 3)).astype(np.float32) for n in (9, 40)]
    session = Session(path, kernels=kernels)
    assert not session.per_point
    assert np.array_equal(session.run(clouds), [reference.run(program, cloud) for cloud in clouds])
    assert session.labels(clouds[0]) == reference.run(program, clouds[0]).argmax()
    assert session.run([]).shape == (0, 2)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_larger_object_is_dealt_out_into_sets_of_the_size_it_was_trained_on(tmp_path, mug, kernels):
    features = ("x", "y", "z")
    values = tuple(Value(n, Kind.FLOAT, r, 3) for n, r in (("cloud", Rows.POINT), ("top", Rows.CLOUD)))
    last = (Value("beside", Kind.FLOAT, Rows.POINT, 6), Value("answer", Kind.FLOAT, Rows.POINT, 6))
    same = {"weight": np.eye(6, dtype=np.float32), "bias": np.zeros(6, np.float32)}
    steps = (Step(Op.POOL_MAX, (0,), 1), Step(Op.CONCAT, (0, 1), 2), Step(Op.LINEAR, (2,), 3, blobs=same))
    classes = tuple("abcdef")
    program = Program((*values, *last), steps, 15, "unit_sphere", classes, plan=Sampling(), features=features)
    write(program, tmp_path / "model.popc")
    answer = Session(tmp_path / "model.popc", kernels=kernels).run(mug.xyz)
    whole = normalize(mug.xyz, "unit_sphere")
    for first in range(3):  # 40 points in sets of 15 at most: three, of 14, 13 and 13
        part = whole[first::3]
        assert np.array_equal(answer[first::3], np.column_stack([part, np.tile(part.max(0), (len(part), 1))]))
