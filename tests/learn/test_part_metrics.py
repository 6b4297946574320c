from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import PartSet, PointCloud
from popcloud.learn.part_metrics import part_metrics, restricted, shape_iou

CATEGORIES = ("Cap", "Mug", "Lamp")
PARTS = ("Cap/peak", "Cap/panel", "Mug/handle", "Mug/cup", "Lamp/shade", "Lamp/base", "Lamp/tube")


def objects(*given: tuple[int, list[int]]) -> PartSet:
    """Objects from (category, part of each point)."""
    clouds = tuple(
        PointCloud(np.zeros((len(labels), 3), np.float32), None, np.array(labels, np.int64)) for _, labels in given
    )
    category = np.array([category for category, _ in given], dtype=np.int64)
    return PartSet(clouds, category, tuple(str(i) for i in range(len(given))), CATEGORIES, PARTS, ())


def found(*answers: list[int]) -> list[np.ndarray]:
    return [np.array(answer, dtype=np.int64) for answer in answers]


def test_iou_of_a_shape_by_hand():
    labels, answers = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert shape_iou(labels, answers, [0, 1]) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_part_absent_from_both_counts_one_and_one_that_is_only_answered_counts_zero():
    labels = np.array([4, 4, 4, 4])
    assert shape_iou(labels, labels, [4, 5, 6]) == 1.0
    assert shape_iou(labels, np.array([4, 4, 4, 5]), [4, 5, 6]) == pytest.approx((3 / 4 + 0 + 1) / 3)


def test_answers_stay_within_the_category():
    scores = np.array([[9, 0, 1, 2, 9, 9, 9], [0, 9, 3, 3, 9, 0, 0]], dtype=np.float32)
    assert restricted(scores, np.array([2, 3])).tolist() == [3, 2]  # of equal scores the first


def test_categories_weigh_the_same_and_instances_too():
    clouds = objects((0, [0, 1]), (0, [0, 1]), (0, [0, 1]), (1, [2, 3]))
    metrics = part_metrics(clouds, found([0, 1], [0, 1], [0, 1], [3, 2]))
    assert metrics.instance_miou == pytest.approx(3 / 4)
    assert metrics.category_miou == pytest.approx(1 / 2)
    assert metrics.accuracy == pytest.approx(6 / 8)


def test_a_category_without_objects_is_in_no_mean_and_said():
    metrics = part_metrics(objects((0, [0, 1])), found([0, 1]))
    assert metrics.per_category == {"Cap": 1.0, "Mug": None, "Lamp": None}
    assert metrics.category_miou == 1.0


def test_an_empty_set_has_zeros():
    metrics = part_metrics(objects(), [])
    assert (metrics.instance_miou, metrics.category_miou, metrics.accuracy) == (0.0, 0.0, 0.0)


def test_figures_have_the_category_miou_first():
    figures = part_metrics(objects((1, [2, 3])), found([2, 2])).figures()
    assert next(iter(figures)) == "category_miou"
    assert figures["category_miou"] == pytest.approx(0.25)
    assert figures["categories"]["Mug"] == pytest.approx(0.25)
