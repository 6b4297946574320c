"""How good a network's answers are over a set of clouds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from popcloud.cloud import CloudSet
from popcloud.learn.confusion import Counts, Metrics, confusion_matrix


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


def scores(model: nn.Module, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a network in eval mode on the CPU answers to one cloud (n, F): (C,), or (n, C)."""
    with torch.inference_mode():
        found: NDArray[np.float32] = model(torch.from_numpy(rows)[None])[0].numpy()
    return found


def evaluate(model: nn.Module, clouds: CloudSet, batch: int = 32) -> Metrics:
    """Return the metrics of a network over a set; see `answers` for how it runs."""
    return Metrics(confusion_matrix(clouds.labels, answers(model, clouds, batch), len(clouds.classes)))
