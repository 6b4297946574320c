"""An integer confusion matrix and the accuracies read off it. No PyTorch: packed models are measured by it too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Metrics:
    """What a network answered over a set.

    confusion  (C, C) int64: how many clouds, or points of scenes, of class `row` were answered with class `column`
    """

    confusion: Counts

    @property
    def clouds(self) -> int:
        """Return the number of clouds, or points, that were counted."""
        return int(self.confusion.sum())

    @property
    def overall(self) -> float:
        """Return the share answered rightly, 0 for an empty set."""
        return float(np.trace(self.confusion) / self.clouds) if self.clouds else 0.0

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Return the share answered rightly per class (C,), NaN for a class without clouds."""
        counts = self.confusion.sum(axis=1)
        rights = np.full(len(counts), np.nan)
        np.divide(np.diag(self.confusion), counts, out=rights, where=counts > 0)
        return rights

    @property
    def mean_class(self) -> float:
        """Return the mean of `per_class` over the classes that have clouds, 0 for an empty set."""
        present = self.per_class[self.confusion.sum(axis=1) > 0]
        return float(present.mean()) if len(present) else 0.0

    @property
    def per_class_iou(self) -> NDArray[np.float64]:
        """Return the intersection over union per class (C,), NaN for a class that neither occurs nor is answered."""
        right = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - right
        shares = np.full(len(union), np.nan)
        np.divide(right, union, out=shares, where=union > 0)
        return shares

    @property
    def mean_iou(self) -> float:
        """Return the mean of `per_class_iou` over the classes that have one, 0 for an empty set."""
        shares = self.per_class_iou
        known = shares[~np.isnan(shares)]
        return float(known.mean()) if len(known) else 0.0


def confusion_matrix(labels: Counts, answers: Counts, classes: int) -> Counts:
    """Count truth against answer, (classes, classes) int64.

    labels (B,), answers (B,): in 0 .. classes - 1; what has the label IGNORE is left out.
    """
    known = labels != IGNORE
    labels, answers = labels[known], answers[known]
    pairs = labels.astype(np.int64) * classes + answers.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def figures(metrics: Metrics, classes: Sequence[str], scenes: int) -> dict[str, Any]:
    """Return figures over the points of scenes as plain values.

    mean_iou, accuracy, mean_class, scenes, points, and iou: of each class, None where it neither occurs nor is answered
    """
    shares = zip(classes, metrics.per_class_iou.tolist(), strict=True)
    return {
        "mean_iou": metrics.mean_iou,
        "accuracy": metrics.overall,
        "mean_class": metrics.mean_class,
        "scenes": scenes,
        "points": metrics.clouds,
        "iou": {name: None if math.isnan(share) else share for name, share in shares},
    }
