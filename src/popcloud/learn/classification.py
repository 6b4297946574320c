"""The task of one class per cloud: its clouds, batches and figures. A popcloud.learn.run.Task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popcloud.cloud import CloudSet
from popcloud.data import DATASETS
from popcloud.errors import RecipeError
from popcloud.learn import batches
from popcloud.learn.distillation import load_teacher
from popcloud.learn.metrics import evaluate
from popcloud.learn.recipe import Augmentation, Recipe
from popcloud.learn.run import Data


def load_split(recipe: Recipe, split: str) -> CloudSet:
    """Return a split of the recipe's data set, "train" or "test"."""
    return DATASETS[recipe.dataset](
        None if recipe.root is None else Path(recipe.root),
        split,
        points=recipe.points,
        seed=recipe.data_seed,
        classes=recipe.classes,
        clouds=recipe.train_size if split == "train" else recipe.test_size,
    )


def load_data(recipe: Recipe) -> Data:
    """Return the clouds of a run. The test set is read now, so that its absence shows before the training."""
    clouds, test = load_split(recipe, "train"), load_split(recipe, "test")
    training, validation = batches.split(clouds, recipe.validation, recipe.validation_seed)
    if len(training) < 2:
        raise RecipeError(f"training needs 2 clouds or more, {recipe.dataset} has {len(training)}; raise train_size")
    return Data(training, validation, test, load_teacher(recipe, {"task": recipe.task, "classes": training.classes}))


def about(data: Data) -> dict[str, Any]:
    """Return the names of the classes."""
    return {"classes": data.training.classes}


def make_batch(recipe: Recipe, clouds: CloudSet, rows: batches.Rows, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return the clouds at `rows`, augmented, as (B, N, 3) float32, and their labels (B,), on the recipe's device."""
    xyz = clouds.xyz[rows]
    if recipe.augment != Augmentation():
        rng = batches.augment_rng(recipe.seed, epoch, batch)
        xyz = np.ascontiguousarray(recipe.augment.build().apply(xyz, rng), dtype=np.float32)
    return torch.from_numpy(xyz).to(recipe.device), torch.from_numpy(clouds.labels[rows]).to(recipe.device)


def sample(recipe: Recipe, clouds: CloudSet) -> Tensor:
    """Return the first batch of clouds, as they are."""
    return torch.from_numpy(clouds.xyz[: recipe.batch]).to(recipe.device)


def measure(recipe: Recipe, model: nn.Module, clouds: CloudSet) -> dict[str, Any]:
    """Return the share of right answers, and its mean over classes."""
    found = evaluate(model, clouds, recipe.batch)
    return {"accuracy": found.overall, "mean_class": found.mean_class}
