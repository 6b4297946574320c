"""The confusion matrix and what is read off it, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import IGNORE
from popcloud.learn.confusion import Metrics, confusion_matrix, figures


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


def test_figures_are_plain_values():
    found = figures(Metrics(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])), ("a", "b", "c"), 2)
    assert found["iou"] == {"a": 3 / 4, "b": 4 / 5, "c": None}
    assert (found["scenes"], found["points"], found["accuracy"]) == (2, 8, 7 / 8)
    assert (found["mean_iou"], found["mean_class"]) == (pytest.approx(31 / 40), 7 / 8)
