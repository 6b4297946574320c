"""How good answers are: an integer confusion matrix, and the accuracies read off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from popcloud.cloud import IGNORE, CloudSet

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


def answers(model: nn.Module, clouds: CloudSet, batch: int) -> Counts:
    """Return the class the network answers for each cloud, (B,) int64; the first of equal logits.

    The network runs in eval mode, `batch` clouds at a time, and is left in the mode it was in.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    found = np.empty(len(clouds), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(clouds), batch):
            x = torch.from_numpy(np.ascontiguousarray(clouds.xyz[start : start + batch])).to(device)
            found[start : start + batch] = model(x).argmax(dim=1).cpu().numpy()
    model.train(training)
    return found


def evaluate(model: nn.Module, clouds: CloudSet, batch: int = 32) -> Metrics:
    """Return the metrics of a network over a set; see `answers` for how it runs."""
    return Metrics(confusion_matrix(clouds.labels, answers(model, clouds, batch), len(clouds.classes)))
