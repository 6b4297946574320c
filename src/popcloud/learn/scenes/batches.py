"""From scenes to batches: changed clouds, their voxels and kernel maps, features and labels per site. No PyTorch here.

A batch is a function of the recipe's seed and of (stage, epoch, scene, view) alone: any process may make it, in any
order, and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, Floats, PointCloud, SceneSet
from popcloud.data.augment_scenes import AugmentScenes
from popcloud.errors import CloudError, DatasetError, RecipeError
from popcloud.geometry.inputs import COMPUTED
from popcloud.geometry.plan import GridPlan
from popcloud.geometry.pyramid import Pyramid, stack
from popcloud.geometry.voxels import majority_labels, mean_features

Labels = NDArray[np.int64]
View = tuple[int, int]  # which scene, and which of its changed copies in the epoch

# First word of each seed, so that no two kinds of chance share a stream; 1 to 3 are those of popcloud.learn.batches.
_SPLIT, _ORDER, _AUGMENT = 4, 5, 6


@dataclass(frozen=True)
class Workshop:
    """All that batches are made from: plain values, sent to a worker once.

    scenes   their clouds have labels
    plan     of the network's pyramid
    inputs   names of the columns a site gets, see `columns`
    augment  what happens to each view, None for nothing
    """

    scenes: SceneSet
    plan: GridPlan
    max_sites: int
    inputs: tuple[str, ...]
    augment: AugmentScenes | None
    seed: int


@dataclass(frozen=True)
class Order:
    """One batch to make: of a stage's epoch, both from 0."""

    stage: int
    epoch: int
    views: tuple[View, ...]


@dataclass(frozen=True)
class Sample:
    """What a network reads and is asked about, of one scene or of a batch.

    x       (S, F) float32, a row per site
    labels  (S,) int64, by majority of the site's points; IGNORE where there is none
    """

    pyramid: Pyramid
    x: Floats
    labels: Labels


def make(shop: Workshop, order: Order) -> Sample:
    """Return a batch. Raises CloudError, which names the scene, for one that does not fit the voxel grid."""
    samples = []
    for scene, view in order.views:
        cloud = shop.scenes.clouds[scene]
        if shop.augment is not None:
            rng = np.random.default_rng([_AUGMENT, shop.seed, order.stage, order.epoch, scene, view])
            try:
                cloud = shop.augment.apply(cloud, rng, shop.scenes.features)
            except CloudError as error:
                raise CloudError(f"scene {shop.scenes.names[scene]}: {error}") from error
        samples.append(sample(shop, cloud, shop.scenes.names[scene]))
    if len(samples) == 1:
        return samples[0]
    x, labels = (np.concatenate([getattr(one, part) for one in samples]) for part in ("x", "labels"))
    return Sample(stack([one.pyramid for one in samples]), x, labels)


def sample(shop: Workshop, cloud: PointCloud, name: str) -> Sample:
    """Return one scene as a network reads it; a cloud without labels has IGNORE everywhere."""
    try:
        voxels = shop.plan.voxels(cloud.xyz, max_sites=shop.max_sites)
    except CloudError as error:
        raise CloudError(f"scene {name}: {error}") from error
    labels = np.full(len(cloud), IGNORE, dtype=np.int64) if cloud.labels is None else cloud.labels
    x = mean_features(voxels, columns(cloud, shop.inputs))
    voted = majority_labels(voxels, labels, len(shop.scenes.classes))
    return Sample(shop.plan.over(voxels), x, voted)


def columns(cloud: PointCloud, inputs: Sequence[str]) -> Floats:
    """Return what a network reads of each point, (N, F) float32.

    "features" are the cloud's own columns; of the other names see popcloud.geometry.inputs.
    """
    parts = []
    for name in inputs:
        if name in COMPUTED:
            parts.append(COMPUTED[name](cloud.xyz))
        elif name == "features" and cloud.features is not None:
            parts.append(cloud.features)
    return np.concatenate(parts, axis=1)


def input_names(inputs: Sequence[str], features: Sequence[str]) -> tuple[str, ...]:
    """Return the names of those columns: the cloud's features by their own."""
    return tuple(name for given in inputs for name in (features if given == "features" else (given,)))


def input_channels(inputs: Sequence[str], features: Sequence[str]) -> int:
    """Return how many columns `columns` gives. Raises RecipeError if features are wanted and there are none."""
    if "features" in inputs and not features:
        raise RecipeError("inputs: the data set has no features; leave them out, as in inputs=[one]")
    return len(input_names(inputs, features))


def orders(scenes: int, repeat: int, batch: int, seed: int, stage: int, epoch: int) -> list[Order]:
    """Return the batches of an epoch: `repeat` views of each scene, shuffled, `batch` to each but the last."""
    rows = np.random.default_rng([_ORDER, seed, stage, epoch]).permutation(scenes * repeat).tolist()
    views = [(row % scenes, row // scenes) for row in rows]
    return [Order(stage, epoch, tuple(views[start : start + batch])) for start in range(0, len(views), batch)]


def split(scenes: SceneSet, share: float, seed: int) -> tuple[SceneSet, SceneSet]:
    """Carve validation scenes from training ones: (the rest, the validation scenes), both in the given order.

    round(share * scenes) of them, one at least unless the share is 0; one at least is left.
    """
    count = 0 if share == 0 or len(scenes) < 2 else min(max(round(share * len(scenes)), 1), len(scenes) - 1)
    drawn = set(np.random.default_rng([_SPLIT, seed]).permutation(len(scenes))[:count].tolist())
    rows = range(len(scenes))
    return scenes.subset([i for i in rows if i not in drawn]), scenes.subset([i for i in rows if i in drawn])


def check(scenes: SceneSet, what: str) -> SceneSet:
    """Return the scenes if every one can be learnt from or measured on.

    Raises DatasetError that names the first without labels, with a label outside the classes, with other features than
    the set says, or with no labelled point.
    """
    for name, cloud in zip(scenes.names, scenes.clouds, strict=True):
        fault = _fault(cloud, len(scenes.classes), len(scenes.features))
        if fault:
            raise DatasetError(f"{what} scene {name}: {fault}")
    return scenes


def _fault(cloud: PointCloud, classes: int, features: int) -> str:
    if cloud.labels is None:
        return "has no labels; expected a class per point"
    found = 0 if cloud.features is None else cloud.features.shape[1]
    if found != features:
        return f"has {found} feature columns, its data set {features}"
    outside = (cloud.labels != IGNORE) & ((cloud.labels < 0) | (cloud.labels >= classes))
    if outside.any():
        label = cloud.labels[outside][0]
        return f"has the label {label}; expected 0 to {classes - 1}, or {IGNORE} for none"
    if not (cloud.labels != IGNORE).any():
        return "has no labelled point; leave it out, or choose classes that occur in it"
    return ""


def class_counts(scenes: SceneSet) -> Labels:
    """Return how many points each class has, (C,) int64."""
    counts = np.zeros(len(scenes.classes), dtype=np.int64)
    for cloud in scenes.clouds:
        if cloud.labels is not None:
            counts += np.bincount(cloud.labels[cloud.labels >= 0], minlength=len(counts))
    return counts
