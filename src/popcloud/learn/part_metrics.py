"""How well the parts of objects are found. No PyTorch: packed models are measured by it too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats, PartSet

Labels = NDArray[np.int64]


def allowed_parts(clouds: PartSet) -> list[Labels]:
    """Return the parts of each category, index into parts."""
    return [np.array(clouds.parts_of(c), dtype=np.int64) for c in range(len(clouds.categories))]


def restricted(scores: Floats, parts: Labels) -> Labels:
    """Return the part of each point (N,) among those of its object's category; the first of equal scores (N, C)."""
    found: Labels = parts[scores[:, parts].argmax(axis=1)]
    return found


def shape_iou(labels: Labels, answers: Labels, parts: Sequence[int] | Labels) -> float:
    """Return the mean over the category's parts of intersection over union, on the points (N,) of one object.

    A part that neither occurs nor is answered counts 1 (PointNet 2017, section 5.2).
    """
    shares = []
    for part in parts:
        true, said = labels == part, answers == part
        union = int((true | said).sum())
        shares.append(int((true & said).sum()) / union if union else 1.0)
    return float(np.mean(shares))


@dataclass(frozen=True)
class PartMetrics:
    """What was answered over a set of objects.

    iou         (B,) `shape_iou` of each object
    category    (B,) its category, index into categories
    categories  their names
    right       points answered rightly
    points      points in all
    """

    iou: NDArray[np.float64]
    category: Labels
    categories: tuple[str, ...]
    right: int
    points: int

    @property
    def instance_miou(self) -> float:
        """Return the mean over objects, 0 for an empty set."""
        return float(self.iou.mean()) if len(self.iou) else 0.0

    @property
    def per_category(self) -> dict[str, float | None]:
        """Return the mean over the objects of each category, None for one without any."""
        own = [self.iou[self.category == c] for c in range(len(self.categories))]
        return {n: float(iou.mean()) if len(iou) else None for n, iou in zip(self.categories, own, strict=True)}

    @property
    def category_miou(self) -> float:
        """Return the mean of `per_category` over the categories that have objects, 0 for an empty set."""
        known = [share for share in self.per_category.values() if share is not None]
        return math.fsum(known) / len(known) if known else 0.0

    @property
    def accuracy(self) -> float:
        """Return the share of points answered rightly, 0 for an empty set."""
        return self.right / self.points if self.points else 0.0

    def figures(self) -> dict[str, Any]:
        """Return all of them as plain values; the category mIoU, which papers report, first."""
        return {
            "category_miou": self.category_miou,
            "instance_miou": self.instance_miou,
            "accuracy": self.accuracy,
            "categories": self.per_category,
        }


def part_metrics(clouds: PartSet, answers: Sequence[Labels]) -> PartMetrics:
    """Measure answers, one (N,) per cloud: index into parts for each of its points."""
    allowed = allowed_parts(clouds)
    iou, right, points = np.empty(len(clouds)), 0, 0
    for row, (cloud, found) in enumerate(zip(clouds.clouds, answers, strict=True)):
        assert cloud.labels is not None  # PartSet says so
        iou[row] = shape_iou(cloud.labels, found, allowed[clouds.category[row]])
        right += int((cloud.labels == found).sum())
        points += len(cloud)
    return PartMetrics(iou, clouds.category, clouds.categories, right, points)
