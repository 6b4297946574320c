from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from popcloud.cloud import CloudSet
from popcloud.learn.metrics import answers, evaluate


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
