"""The task of a class per point of rooms, block by block: their batches and figures. A popcloud.learn.run.Task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from popcloud.cloud import IGNORE, BlockSet, SceneSet
from popcloud.data import BLOCKS, SCENES
from popcloud.errors import RecipeError
from popcloud.geometry.blocks import block_set
from popcloud.learn import batches
from popcloud.learn.confusion import Metrics, confusion_matrix, figures
from popcloud.learn.distillation import load_teacher
from popcloud.learn.run import Data
from popcloud.learn.segmentation.recipe import BlockRecipe

_ROOMS = 8  # first word of the seed of the validation rooms


def load_split(recipe: BlockRecipe, split: str) -> BlockSet:
    """Return the blocks of a split of the recipe's data set, "train" or "test"."""
    root = None if recipe.root is None else Path(recipe.root)
    size = recipe.train_size if split == "train" else recipe.test_size
    held_out: dict[str, Any] = {"test_area": f"Area_{recipe.area}"} if recipe.dataset.startswith("s3dis") else {}
    chosen: dict[str, Any] = {"seed": recipe.data_seed, "classes": recipe.classes, **held_out}
    if recipe.dataset in BLOCKS:
        return BLOCKS[recipe.dataset](root, split, blocks=size, **chosen)
    return cut(recipe, SCENES[recipe.dataset](root, split, scenes=size, **chosen), split)


def cut(recipe: BlockRecipe, scenes: SceneSet, split: str) -> BlockSet:
    """Return the blocks of rooms: of training rooms they may overlap, to test each place is in one."""
    return block_set(
        scenes,
        points=recipe.points,
        size=recipe.size,
        stride=recipe.stride if split == "train" else None,
        fewest=recipe.fewest,
        seed=recipe.data_seed,
    )


def load_data(recipe: BlockRecipe) -> Data:
    """Return the blocks of a run. The test set is read now, so that its absence shows before the training."""
    blocks, test = load_split(recipe, "train"), load_split(recipe, "test")
    training, validation = split_rooms(blocks, recipe.validation, recipe.validation_seed)
    # A block with no point of the classes asked for teaches nothing, and a batch of such has no loss.
    training = training.subset(np.flatnonzero((training.labels != IGNORE).any(axis=1)))
    if len(training) < 2:
        raise RecipeError(f"training needs 2 blocks or more, {recipe.dataset} has {len(training)}; raise train_size")
    weights = None if recipe.class_weights == "none" else rarity(training)
    data = Data(training, validation, test)
    teacher = load_teacher(recipe, {"task": recipe.task, **about(data)})
    return Data(training, validation, test, teacher, None if weights is None else weights.to(recipe.device))


def split_rooms(blocks: BlockSet, share: float, seed: int) -> tuple[BlockSet, BlockSet]:
    """Carve validation rooms from training rooms: (the rest, theirs). Blocks of one room may overlap: it stays whole.

    They are round(share * rooms), at least one if there are two; a share of 0 gives an empty set.
    """
    rooms = sorted(set(blocks.rooms))
    count = 0 if share == 0 or len(rooms) < 2 else min(max(round(share * len(rooms)), 1), len(rooms) - 1)
    drawn = np.random.default_rng([_ROOMS, seed]).permutation(len(rooms))[:count]
    chosen = np.isin(np.array(blocks.rooms), [rooms[row] for row in drawn])
    return blocks.subset(np.flatnonzero(~chosen)), blocks.subset(np.flatnonzero(chosen))


def rarity(blocks: BlockSet) -> Tensor:
    """Return a weight per class (C,): (max / points of the class)^(1/3), as BiPointNet has it for S3DIS.

    A class without points has weight 0.
    """
    counts = np.bincount(blocks.labels[blocks.labels != IGNORE], minlength=len(blocks.classes)).astype(np.float64)
    rare = np.divide(counts.max(), counts, out=np.zeros_like(counts), where=counts > 0)
    return torch.from_numpy(np.cbrt(rare).astype(np.float32))


def about(data: Data) -> dict[str, Any]:
    """Return the names of the classes and of the columns."""
    return {"classes": data.training.classes, "features": data.training.features}


def make_batch(
    recipe: BlockRecipe, some: BlockSet, rows: batches.Rows, epoch: int, batch: int
) -> tuple[Tensor, Tensor]:
    """Return the blocks at `rows` as they are, (B, n, 9), and the classes of their points, (B, n)."""
    x, labels = torch.from_numpy(some.blocks[rows]), torch.from_numpy(some.labels[rows])
    return x.to(recipe.device), labels.to(recipe.device)


def sample(recipe: BlockRecipe, some: BlockSet) -> Tensor:
    """Return the first batch of blocks."""
    return torch.from_numpy(some.blocks[: recipe.batch]).to(recipe.device)


def answers(recipe: BlockRecipe, model: nn.Module, some: BlockSet) -> NDArray[np.int64]:
    """Return the class of each point of each block, (B, n); the first of equal logits.

    The network runs in eval mode, a block at a time, and is left in the mode it was in.
    """
    mode, found = model.training, np.empty(some.labels.shape, dtype=np.int64)
    model.eval()
    with torch.inference_mode():
        for row, block in enumerate(some.blocks):
            found[row] = model(torch.from_numpy(block[None]).to(recipe.device))[0].argmax(dim=1).cpu().numpy()
    model.train(mode)
    return found


def measure(recipe: BlockRecipe, model: nn.Module, some: BlockSet) -> dict[str, Any]:
    """Return mIoU and accuracy over all labelled points, the IoU of each class, and the confusion matrix."""
    found = answers(recipe, model, some)
    metrics = Metrics(confusion_matrix(some.labels.ravel(), found.ravel(), len(some.classes)))
    return block_figures(metrics, some.classes)


def block_figures(metrics: Metrics, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return figures over points; `absent` names the classes that neither occur nor are answered: no mean has them."""
    all_of_them = figures(metrics, classes, 0)
    kept = {name: all_of_them[name] for name in ("mean_iou", "accuracy", "mean_class", "points", "iou")}
    absent = [name for name, share in kept["iou"].items() if share is None]
    return kept | {"absent": absent, "confusion": metrics.confusion.tolist()}
