"""What training on scenes minimises."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from popcloud.cloud import IGNORE
from popcloud.errors import RecipeError


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the weighted mean cross-entropy over labelled rows, 0 where none has a weight.

    logits (S, C); labels (S,), IGNORE for none; weights (C,) per class; smoothing: share spread over all classes.
    """
    total = F.cross_entropy(
        logits, labels, weight=weights, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum"
    )
    known = labels[labels != IGNORE]
    count = logits.new_tensor(float(len(known))) if weights is None else weights[known].sum()
    # Smoothing spreads over classes with a weight even where no row's own class has one.
    return total * (count > 0) / count.clamp_min(torch.finfo(count.dtype).tiny)


def class_weights(rule: str | tuple[float, ...], counts: NDArray[np.int64]) -> Tensor | None:
    """Return a weight per class (C,) float32, None for equal ones.

    rule    "none", "balanced": the inverse of a class's share of points over the number of classes that occur, 0 for a
            class that does not; or the weights themselves
    counts  (C,) points per class
    Raises RecipeError for weights that do not fit the classes.
    """
    if rule == "none":
        return None
    if rule == "balanced":
        inverse = np.divide(counts.sum(), counts, out=np.zeros(len(counts)), where=counts > 0)
        return torch.from_numpy((inverse / max(np.count_nonzero(counts), 1)).astype(np.float32))
    weights = np.asarray(rule, dtype=np.float32)
    if len(weights) != len(counts) or not (weights >= 0).all() or not weights.sum() > 0:
        raise RecipeError(f"class_weights: expected {len(counts)} numbers >= 0, not all 0, found {list(rule)}")
    return torch.from_numpy(weights)
