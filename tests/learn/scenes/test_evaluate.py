from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from popcloud.cloud import IGNORE
from popcloud.geometry.plan import GridPlan
from popcloud.learn.scenes import evaluate as evaluation
from popcloud.learn.scenes.batches import Workshop
from popcloud.learn.scenes.evaluate import Whole, answers, evaluate, measured, point_logits, seen_from


class Known(nn.Module):
    """Answers from the site's own features alone: logits x W."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x, at):
        assert not self.training
        return x @ self.weight


@pytest.fixture
def whole(scenes):
    shop = Workshop(scenes, GridPlan(0.25, 2), 1 << 20, ("features",), None, seed=0)
    return Whole(shop, scenes)


def test_each_point_gets_its_sites_logits(whole):
    net = Known([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]).eval()
    logits = point_logits(net, whole, 1)
    made = whole.sample(1)
    for site in range(len(made.x)):
        rows = made.pyramid.point_to_site == site
        np.testing.assert_allclose(logits[rows], np.tile(made.x[site] @ net.weight.detach().numpy(), (rows.sum(), 1)))


def test_metrics_count_labelled_points_not_sites(whole):
    found = evaluate(Known([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).train(), whole)
    labels = np.concatenate([cloud.labels for cloud in whole.scenes.clouds])
    assert found.clouds == (labels != IGNORE).sum()
    assert found.confusion.sum(axis=1).tolist() == [81, 81, 81]


def test_the_mode_of_the_network_is_left_alone(whole):
    net = Known([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).train()
    assert [len(found) for found in answers(net, whole)] == [90, 90, 90]
    assert net.training


def test_views_are_averaged_point_by_point(whole):
    net = Known([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]).eval()
    made = list(whole.samples(0, 3))
    each = [(one.x @ net.weight.detach().numpy())[one.pyramid.point_to_site] for one in made]
    assert len({len(one.x) for one in made}) > 1
    np.testing.assert_allclose(point_logits(net, whole, 0, views=3), np.mean(each, axis=0), atol=1e-6)


def test_views_turn_and_mirror_and_keep_distances(rng):
    xyz = rng.uniform(-1, 1, (9, 3)).astype(np.float32)
    between = np.linalg.norm(xyz[:, None] - xyz, axis=2)
    turned = [seen_from(xyz, view, 4) for view in range(4)]
    for view in turned:
        np.testing.assert_allclose(np.linalg.norm(view[:, None] - view, axis=2), between, atol=1e-5)
        np.testing.assert_array_equal(view[:, 2], xyz[:, 2])
    hands = [np.sign(np.linalg.det(np.linalg.lstsq(xyz, view, rcond=None)[0])) for view in turned]
    assert hands == [1, -1, 1, -1]
    assert len({view.tobytes() for view in turned}) == 4


def test_scenes_are_prepared_once_while_there_is_room(whole, monkeypatch):
    assert whole.sample(0) is whole.sample(0)
    whole.room = 0
    assert whole.sample(1) is not whole.sample(1)
    assert whole.sample(0) is whole.sample(0)


def test_figures_are_plain_values(whole, monkeypatch):
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: evaluation.Metrics(confusion))
    found = measured(SimpleNamespace(), whole)
    assert found["iou"] == {"floor": 0.75, "wall": 0.8, "thing": None}
    assert found["mean_iou"] == pytest.approx(0.775)
    assert (found["accuracy"], found["points"], found["scenes"]) == (7 / 8, 8, 3)
    assert measured(SimpleNamespace(), Whole(whole.shop, whole.scenes.subset([]))) is None
