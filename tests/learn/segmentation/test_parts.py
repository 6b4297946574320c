from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from popcloud.cloud import prepare, resample
from popcloud.learn.segmentation import parts


class Constant(nn.Module):
    """Answers with one part everywhere, and keeps what it was shown."""

    def __init__(self, classes: int, part: int):
        super().__init__()
        self.scores = torch.zeros(classes)
        self.scores[part] = 1
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        assert not self.training
        self.seen.append(x)
        return self.scores.expand(*x.shape[:2], -1)


def test_columns_are_positions_normals_and_the_category(tiny):
    recipe = tiny("parts")
    data = parts.load_data(recipe)
    assert parts.about(data)["features"] == (
        *("x", "y", "z", "normal_x", "normal_y", "normal_z"),
        *("category:stick", "category:plate"),
    )
    x, labels = parts.make_batch(recipe, data.training, np.array([0, 1, 2]), 0, 0)
    assert x.shape == (3, 16, 8)
    assert x[:, :, 6:].unique(dim=1).squeeze(1).tolist() == [[1, 0], [0, 1], [1, 0]]
    assert labels.shape == (3, 16)
    assert all(set(row.tolist()) <= own for row, own in zip(labels, [{0, 1}, {2, 3, 4}, {0, 1}], strict=True))


@pytest.mark.parametrize(
    ("override", "features"),
    [
        ("category_input=false", ("x", "y", "z", "normal_x", "normal_y", "normal_z")),
        ("normals=false", ("x", "y", "z", "category:stick", "category:plate")),
    ],
)
def test_columns_can_be_left_out(tiny, override, features):
    recipe = tiny("parts", override)
    data = parts.load_data(recipe)
    assert parts.about(data)["features"] == features
    assert parts.make_batch(recipe, data.training, np.array([0]), 0, 0)[0].shape[2] == len(features)


def test_one_network_per_category_has_its_parts_alone(tiny):
    data = parts.load_data(tiny("parts", "categories=[plate]", "category_input=false"))
    assert parts.about(data)["classes"] == ("plate/left", "plate/middle", "plate/right")
    assert set(data.training.clouds.category.tolist()) == {0}


def test_each_epoch_draws_other_points_and_turns_them(tiny):
    recipe = tiny("parts")
    data = parts.load_data(recipe)
    rows = np.array([0, 1])
    first, again, later = (parts.make_batch(recipe, data.training, rows, epoch, 0)[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_normals_turn_with_the_object(tiny):
    plain = tiny("parts", "augment.translate=0", "augment.rotate=0")
    turned = tiny("parts", "augment.translate=0", "augment.rotate=15")
    data = parts.load_data(plain)
    x, y = (parts.make_batch(recipe, data.training, np.array([0]), 0, 0)[0][0] for recipe in (plain, turned))
    # The same draw of points: the angles between all positions and normals stay as they were.
    torch.testing.assert_close(x[:, :3] @ x[:, 3:6].T, y[:, :3] @ y[:, 3:6].T, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(x[:, 3:6], y[:, 3:6], atol=1e-3)


def test_rotations_are_rotations_of_fifteen_degrees_at_most(rng):
    for _ in range(20):
        angles = np.radians(rng.uniform(-15, 15, 3))
        turn = parts._rotation(angles)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)
    about_z = parts._rotation(np.array([0, 0, np.radians(90)]))
    np.testing.assert_allclose(np.array([1, 0, 0]) @ about_z, [0, 1, 0], atol=1e-6)


@pytest.mark.parametrize("points", [1, 16, 37, 64])
def test_evaluation_shows_what_the_run_time_will(tiny, points):
    recipe = tiny("parts", points=points)
    data = parts.load_data(recipe)
    model = Constant(5, 0)
    found = list(parts.answers(recipe, model, data.test))
    whole = parts.load_split(recipe, "test").clouds
    for x, cloud, answer in zip(model.seen, whole, found, strict=True):
        assert np.array_equal(x[0, :, :3].numpy(), prepare(cloud.xyz, points, "unit_sphere"))
        assert len(answer) == min(points, len(cloud))


def test_every_point_is_counted_once_and_answers_are_the_category_s(tiny):
    recipe = tiny("parts", points=64)  # more than any object has
    data = parts.load_data(recipe)
    whole = parts.load_split(recipe, "test")
    found = parts.measure(recipe, Constant(5, 1), data.test)  # outside its category the first part is answered
    right = sum(
        int((cloud.labels == (1 if c == 0 else 2)).sum()) for cloud, c in zip(whole.clouds, whole.category, strict=True)
    )
    assert found["accuracy"] == right / sum(len(cloud) for cloud in whole.clouds)


def test_even_rows_are_those_of_resample(rng):
    for available, points in [(5, 5), (5, 3), (3, 8), (100, 7)]:
        xyz = rng.standard_normal((available, 3)).astype(np.float32)
        assert np.array_equal(xyz[parts.even_rows(available, points)], resample(xyz, points))


def test_measuring_leaves_the_network_as_it_was(tiny):
    recipe = tiny("parts")
    model = Constant(5, 0).train()
    parts.measure(recipe, model, parts.load_data(recipe).test)
    assert model.training
