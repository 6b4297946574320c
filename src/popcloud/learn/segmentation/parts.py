"""The task of finding the parts of objects: their columns, batches and figures. A popcloud.learn.run.Task.

A network reads x, y, z, the normals if there are any, and a column per category, 1 all over an object of it, else 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from popcloud.cloud import Floats, PartSet, PointCloud, normalize
from popcloud.data import PARTS
from popcloud.errors import RecipeError
from popcloud.geometry.blocks import draw
from popcloud.learn import batches
from popcloud.learn.distillation import load_teacher
from popcloud.learn.part_metrics import Labels, allowed_parts, part_metrics, restricted
from popcloud.learn.run import Data
from popcloud.learn.segmentation.recipe import PartAugmentation, PartRecipe
from popcloud.packed.program import CATEGORY

POSITION = ("x", "y", "z")


def load_split(recipe: PartRecipe, split: str) -> PartSet:
    """Return a split of the recipe's data set, "train", "val" or "test", every point that its objects have."""
    sizes = {"train": recipe.train_size, "val": recipe.validation_size or None, "test": recipe.test_size}
    root = None if recipe.root is None else Path(recipe.root)
    return PARTS[recipe.dataset](root, split, seed=recipe.data_seed, categories=recipe.categories, clouds=sizes[split])


def load_data(recipe: PartRecipe) -> Data:
    """Return the objects of a run. The test set is read now, so that its absence shows before the training."""
    training, test = load_split(recipe, "train"), load_split(recipe, "test")
    if len(training) < 2:
        raise RecipeError(f"training needs 2 objects or more, {recipe.dataset} has {len(training)}; raise train_size")
    validation = training.subset([]) if recipe.validation_size == 0 else load_split(recipe, "val")
    data = Data(
        Objects(training, recipe),
        Objects(thinned(validation, recipe.points), recipe),
        Objects(thinned(test, recipe.points), recipe),
    )
    teacher = load_teacher(recipe, {"task": recipe.task, **about(data)})
    return Data(data.training, data.validation, data.test, teacher)


class Objects:
    """A set of objects with the columns that a recipe's network reads.

    features  names of the columns: x, y, z, normals, categories
    """

    def __init__(self, clouds: PartSet, recipe: PartRecipe):
        self.clouds, self.seen = clouds, clouds.features if recipe.normals else ()
        self.told = clouds.categories if recipe.category_input else ()
        self.features = (*POSITION, *self.seen, *(CATEGORY + name for name in self.told))

    def __len__(self) -> int:
        return len(self.clouds)

    def columns(self, row: int, points: NDArray[np.int64], augment: Any = None) -> Floats:
        """Return some points of an object as the network reads them, (n, F): in the unit sphere, then `augment`ed.

        augment  from positions and normals (n, 3 or 6) to the same
        """
        cloud = self.clouds.clouds[row]
        own = normalize(cloud.xyz[points], "unit_sphere")
        if self.seen:
            own = np.concatenate([own, _features(cloud)[points]], axis=1)
        own = own if augment is None else augment(own)
        told = np.zeros((len(points), len(self.told)), dtype=np.float32)
        if self.told:
            told[:, self.clouds.category[row]] = 1
        return np.concatenate([own, told], axis=1, dtype=np.float32)


def _features(cloud: PointCloud) -> Floats:
    assert cloud.features is not None  # as the set's `features` promise
    return cloud.features


def about(data: Data) -> dict[str, Any]:
    """Return the names of the parts, "Category/part", and of the columns."""
    return {"classes": data.training.clouds.parts, "features": data.training.features}


def make_batch(recipe: PartRecipe, some: Objects, rows: batches.Rows, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return `points` of each object at `rows`, drawn anew and augmented, (B, n, F), and their parts (B, n)."""
    rng = batches.augment_rng(recipe.seed, epoch, batch)
    xs, labels = [], []
    for row in rows.tolist():
        cloud = some.clouds.clouds[row]
        points = draw(len(cloud), recipe.points, rng)
        xs.append(some.columns(row, points, lambda own: _augmented(own, recipe.augment, rng)))
        labels.append(_labels(cloud)[points])
    return torch.from_numpy(np.stack(xs)).to(recipe.device), torch.from_numpy(np.stack(labels)).to(recipe.device)


def _labels(cloud: PointCloud) -> Labels:
    assert cloud.labels is not None  # PartSet says so
    return cloud.labels


def _augmented(own: Floats, augment: PartAugmentation, rng: np.random.Generator) -> Floats:
    """Return positions and normals (n, 3 or 6) turned about x, y, then z, and the positions shifted and shaken."""
    if augment.rotate > 0:
        turn = _rotation(np.radians(rng.uniform(-augment.rotate, augment.rotate, 3)))
        own = np.concatenate([own[:, at : at + 3] @ turn for at in range(0, own.shape[1], 3)], axis=1)
    moved = own[:, :3] + rng.uniform(-augment.translate, augment.translate, 3).astype(np.float32)
    if augment.jitter > 0:
        moved += np.float32(augment.jitter) * rng.standard_normal(moved.shape, dtype=np.float32)
    return np.concatenate([moved, own[:, 3:]], axis=1)


def _rotation(angles: NDArray[np.float64]) -> Floats:
    """Return the matrix (3, 3) for `row vectors @ matrix`: turns about x, then y, then z."""
    turn = np.eye(3)
    for axis, (c, s) in enumerate(zip(np.cos(angles), np.sin(angles), strict=True)):
        one, (i, j) = np.eye(3), [(1, 2), (2, 0), (0, 1)][axis]
        one[i, i] = one[j, j] = c
        one[i, j], one[j, i] = s, -s
        turn = turn @ one
    return turn.astype(np.float32)


def thinned(clouds: PartSet, points: int) -> PartSet:
    """Return objects with those of their points that evaluation looks at: as popcloud.cloud.resample, none twice."""
    kept = []
    for cloud in clouds.clouds:
        rows = even_rows(len(cloud), points)[: len(cloud)]
        features = None if cloud.features is None else cloud.features[rows]
        kept.append(PointCloud(cloud.xyz[rows], features, _labels(cloud)[rows]))
    return PartSet(tuple(kept), clouds.category, clouds.names, clouds.categories, clouds.parts, clouds.features)


def even_rows(available: int, points: int) -> NDArray[np.int64]:
    """Return the rows that popcloud.cloud.resample takes of so many points."""
    rows = np.arange(points, dtype=np.int64)
    return rows * available // points if available >= points else rows % available


def sample(recipe: PartRecipe, some: Objects) -> Tensor:
    """Return the first batch of objects, as they are."""
    first = range(min(recipe.batch, len(some)))
    return torch.from_numpy(np.stack([_whole(recipe, some, row) for row in first])).to(recipe.device)


def _whole(recipe: PartRecipe, some: Objects, row: int) -> Floats:
    return some.columns(row, even_rows(len(some.clouds.clouds[row]), recipe.points))


def answers(recipe: PartRecipe, model: nn.Module, some: Objects) -> Iterator[Labels]:
    """Yield the part of every point of each object (N,), N at most `points`, among those of its category.

    The network runs in eval mode, an object at a time, and is left in the mode it was in.
    """
    allowed, mode = allowed_parts(some.clouds), model.training
    model.eval()
    try:
        for row, cloud in enumerate(some.clouds.clouds):
            x = torch.from_numpy(_whole(recipe, some, row)[None]).to(recipe.device)
            with torch.inference_mode():
                scores = model(x)[0].cpu().numpy()
            yield restricted(scores[: len(cloud)], allowed[some.clouds.category[row]])
    finally:
        model.train(mode)


def measure(recipe: PartRecipe, model: nn.Module, some: Objects) -> dict[str, Any]:
    """Return category and instance mIoU, accuracy, and the mIoU of each category."""
    return part_metrics(some.clouds, list(answers(recipe, model, some))).figures()
