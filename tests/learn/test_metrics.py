from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from popcloud.cloud import IGNORE, CloudSet
from popcloud.learn.metrics import Metrics, answers, confusion_matrix, evaluate


class Nearest(nn.Module):
    """Answers with the axis of the largest mean; a batch norm tells training from eval."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.mean(1))


def axis_clouds(axes: list[int], labels: list[int]) -> CloudSet:
    xyz = np.zeros((len(axes), 4, 3), dtype=np.float32)
    xyz[np.arange(len(axes)), :, axes] = 1
    return CloudSet(xyz, np.array(labels, dtype=np.int64), ("x", "y", "z"))


def test_confusion_rows_are_truth():
    found = confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0]), 3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]
    assert found.dtype == np.int64


def test_accuracies_by_hand():
    metrics = Metrics(np.array([[3, 1, 0], [0, 1, 0], [2, 0, 0]], dtype=np.int64))
    assert metrics.clouds == 7
    assert metrics.overall == pytest.approx(4 / 7)
    assert metrics.per_class.tolist() == [0.75, 1.0, 0.0]
    assert metrics.mean_class == pytest.approx(1.75 / 3)


def test_a_class_without_clouds_is_left_out_of_the_mean():
    metrics = Metrics(np.array([[1, 1], [0, 0]], dtype=np.int64))
    assert np.isnan(metrics.per_class[1])
    assert metrics.mean_class == 0.5


def test_no_clouds_no_accuracy():
    metrics = Metrics(np.zeros((2, 2), dtype=np.int64))
    assert (metrics.overall, metrics.mean_class) == (0.0, 0.0)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_evaluate_counts_every_cloud_once(batch):
    clouds = axis_clouds([0, 1, 2, 2, 1], [0, 1, 2, 0, 1])
    metrics = evaluate(Nearest(), clouds, batch)
    assert metrics.confusion.tolist() == [[1, 0, 1], [0, 2, 0], [0, 0, 1]]


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_the_network_as_it_was(training):
    model = Nearest().train(training)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    answers(model, axis_clouds([0, 1], [0, 1]), 2)
    assert model.training is training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_iou_is_over_answers_and_truth_together():
    metrics = Metrics(np.array([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0]]))
    np.testing.assert_allclose(metrics.per_class_iou, [3 / 4, 4 / 5, 0, 0])  # 2 is answered, never true; 3 the reverse
    assert metrics.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 4)


def test_a_class_that_neither_occurs_nor_is_answered_does_not_count():
    metrics = Metrics(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert np.isnan(metrics.per_class_iou[2])
    assert metrics.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert Metrics(np.zeros((2, 2), dtype=np.int64)).mean_iou == 0


def test_unlabelled_points_are_not_counted():
    labels = np.array([0, IGNORE, 1, IGNORE])
    assert confusion_matrix(labels, np.array([0, 0, 0, 1]), 2).tolist() == [[1, 0], [1, 0]]
