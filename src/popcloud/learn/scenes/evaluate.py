"""Answers for whole scenes: every point gets its site's logits, as a mean over views if there are several."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from popcloud.cloud import Floats, PointCloud, SceneSet
from popcloud.learn.confusion import Metrics, confusion_matrix, figures
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.scenes.batches import Sample, Workshop, sample

KEEP = 2 << 30  # bytes of prepared scenes that are kept for the next time


class Whole:
    """Scenes as evaluation reads them: not changed, one at a time, prepared once as long as KEEP bytes last."""

    def __init__(self, shop: Workshop, scenes: SceneSet):
        self.shop, self.scenes = replace(shop, scenes=scenes, augment=None), scenes
        self.kept: dict[int, Sample] = {}
        self.room = KEEP

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, scene: int) -> Sample:
        """Return one scene, prepared."""
        if scene in self.kept:
            return self.kept[scene]
        made = sample(self.shop, self.scenes.clouds[scene], self.scenes.names[scene])
        if self.room > 0:
            self.kept[scene] = made
            self.room -= _bytes(made)
        return made

    def samples(self, scene: int, views: int) -> Iterator[Sample]:
        """Yield a scene as it is, then other views of it; points are in the same order in all."""
        yield self.sample(scene)
        for view in range(1, views):
            cloud = self.scenes.clouds[scene]
            turned = PointCloud(seen_from(cloud.xyz, view, views), cloud.features, cloud.labels)
            yield sample(self.shop, turned, self.scenes.names[scene])


def _bytes(made: Sample) -> int:
    """Return about how much memory a sample takes."""
    maps = [level.same for level in made.pyramid.levels] + list(made.pyramid.down)
    return made.x.nbytes + made.labels.nbytes + sum(one.inputs.nbytes + one.outputs.nbytes for one in maps)


def seen_from(xyz: Floats, view: int, views: int) -> Floats:
    """Return points (N, 3) turned about z by view / views of a full turn; odd views are mirrored in x as well."""
    angle = 2 * math.pi * view / views
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=np.float32)
    mirror = np.array([-1 if view % 2 else 1, 1, 1], dtype=np.float32)
    return np.ascontiguousarray((xyz * mirror) @ turn)


def forward(model: nn.Module, made: Sample) -> Tensor:
    """Return the logits (S, C) of a batch's sites, on the network's device."""
    return model(*operands(made, next(model.parameters()).device))


def operands(made: Sample, device: torch.device | str) -> tuple[Tensor, TensorPyramid]:
    """Return what a network is called with for a batch."""
    return torch.from_numpy(made.x).to(device), TensorPyramid.of(made.pyramid).to(device)


def point_logits(model: nn.Module, whole: Whole, scene: int, views: int = 1) -> Floats:
    """Return the mean logits over views for each point of a scene, (N, C) float32; the model is in eval mode."""
    total: Floats | None = None
    with torch.inference_mode():
        for made in whole.samples(scene, views):
            logits = forward(model, made).cpu().numpy()[made.pyramid.point_to_site]
            total = logits if total is None else total + logits
    assert total is not None
    return total / np.float32(views)


def answers(model: nn.Module, whole: Whole, views: int = 1) -> Iterator[NDArray[np.int64]]:
    """Yield the class of each point of every scene, (N,) int64; the first of equal logits.

    The network runs in eval mode and is left in the mode it was in.
    """
    mode = model.training
    model.eval()
    try:
        for scene in range(len(whole)):
            yield point_logits(model, whole, scene, views).argmax(axis=1)
    finally:
        model.train(mode)


def evaluate(model: nn.Module, whole: Whole, views: int = 1) -> Metrics:
    """Return the metrics of a network over all labelled points of whole scenes."""
    classes = len(whole.scenes.classes)
    confusion = np.zeros((classes, classes), dtype=np.int64)
    for cloud, found in zip(whole.scenes.clouds, answers(model, whole, views), strict=True):
        assert cloud.labels is not None  # checked when the scenes were read
        confusion += confusion_matrix(cloud.labels, found, classes)
    return Metrics(confusion)


def measured(model: nn.Module, whole: Whole, views: int = 1) -> dict[str, Any] | None:
    """Return figures over points as confusion.figures has them, None where there are no scenes."""
    return figures(evaluate(model, whole, views), whole.scenes.classes, len(whole)) if len(whole) else None
