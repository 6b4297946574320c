"""A run on scenes in progress: its scenes, and how it begins, goes on, and goes from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popcloud.cloud import SceneSet
from popcloud.data import LABELLED_SPLITS, SCENES
from popcloud.geometry.plan import GridPlan
from popcloud.learn import checkpoint, distillation
from popcloud.learn.layers import initialise, weight_signs
from popcloud.learn.run import Place, Run, read_last, restore
from popcloud.learn.scenes import batches, stages
from popcloud.learn.scenes.batches import Order, Workshop
from popcloud.learn.scenes.evaluate import Whole, operands
from popcloud.learn.scenes.losses import class_weights
from popcloud.learn.scenes.network import state_of
from popcloud.learn.scenes.recipe import SceneAugmentation, SceneRecipe

MAY_DIFFER = {"root", "tensorboard", "save_every", "workers"}  # fields that leave the weights alone
TENTH = 0.1  # share of training scenes kept for validation where the data set has no scenes for it
_WEIGHTS = 7  # first word of the seed of a stage's fresh weights


@dataclass(frozen=True)
class Data:
    """What a run on scenes reads; validation and test are empty where there is none.

    shop     what training batches are made from
    teacher  the network to learn from besides the labels, None for none
    weights  of the classes in the loss, None for equal ones
    """

    shop: Workshop
    validation: Whole
    test: Whole
    teacher: nn.Module | None
    weights: Tensor | None


def load_split(recipe: SceneRecipe, split: str) -> SceneSet:
    """Return a split of the recipe's data set, every scene of it fit to be learnt from or measured on."""
    found = SCENES[recipe.dataset](
        None if recipe.root is None else Path(recipe.root),
        split,
        seed=recipe.data_seed,
        classes=recipe.classes,
        scenes=recipe.train_scenes if split == "train" else recipe.test_scenes,
    )
    return batches.check(found, split)


def load_scenes(recipe: SceneRecipe) -> tuple[SceneSet, SceneSet, SceneSet]:
    """Return the scenes to train on, to choose the epoch by, and to test with at the end.

    With no share for validation in the recipe it is the data set's split "val", or a tenth of the training scenes where
    there is no such split. The test scenes are those of "test"; where there is none and validation has a share of the
    training scenes, they are those of "val"; else there are none.
    """
    splits = LABELLED_SPLITS.get(recipe.dataset, ("train", "val", "test"))
    scenes = load_split(recipe, "train")
    none = scenes.subset([])
    own = recipe.validation is None and "val" in splits
    share = TENTH if recipe.validation is None else recipe.validation
    training, validation = (
        (scenes, load_split(recipe, "val")) if own else batches.split(scenes, share, recipe.validation_seed)
    )
    tested = "test" if "test" in splits else "val" if "val" in splits and not own else None
    return training, validation, none if tested is None else load_split(recipe, tested)


def load_data(recipe: SceneRecipe, plan: GridPlan, scenes: tuple[SceneSet, SceneSet, SceneSet]) -> Data:
    """Return what a run reads. The test scenes are read now, so that their absence shows before the training."""
    training, validation, test = scenes
    augment = None if recipe.augment == SceneAugmentation() else recipe.augment.build()
    shop = Workshop(training, plan, recipe.max_sites, recipe.inputs, augment, recipe.seed)
    weights = class_weights(recipe.class_weights, batches.class_counts(training))
    weights = None if weights is None else weights.to(recipe.device)
    return Data(shop, Whole(shop, validation), Whole(shop, test), load_teacher(recipe, training), weights)


def load_teacher(recipe: SceneRecipe, scenes: SceneSet) -> nn.Module | None:
    """Return the recipe's teacher in eval mode. Raises RecipeError if it reads or answers something else."""
    wanted = {"classes": scenes.classes, "features": scenes.features, "edge": recipe.edge, "inputs": recipe.inputs}
    return distillation.load_teacher(recipe, {"task": "scenes", **wanted})


def orders(run: Run, epoch: int) -> list[Order]:
    """Return the batches of an epoch of the run."""
    recipe, at = run.recipe, stages.now(run.recipe, epoch)
    scenes = len(run.data.shop.scenes)
    return batches.orders(scenes, recipe.repeat, recipe.batch, recipe.seed, at.number, at.epoch)


def begin(recipe: SceneRecipe, out: Path) -> Run:
    """Return the run in `out`: as its `last` left it, or fresh (and saved) if there is none yet."""
    found = read_last(recipe, out, MAY_DIFFER)
    epoch = 0 if found is None else int(found[1]["place"]["epoch"])
    stage = stages.now(recipe, epoch).stage
    with torch.device("meta"):  # choices that don't go together show before scenes are read, which may take minutes
        checkpoint.build(recipe, 2, ("any",), state_of(stage))
    scenes = load_scenes(recipe)
    classes, features = scenes[0].classes, scenes[0].features
    model: Any = checkpoint.build(recipe, len(classes), features, state_of(stage)).to(recipe.device)
    data = load_data(recipe, GridPlan(recipe.edge, model.levels, model.size), scenes)
    about = {"classes": classes, "features": features, "stage": state_of(stage)}
    optimizer = stages.make_optimizer(recipe, model, stage)
    run = Run(recipe, out, data, about, model, optimizer, Place(), {})
    if found is None:
        _fresh(run)
        run.save()
    else:
        restore(run, *found)
    return run


def _fresh(run: Run) -> None:
    """Set what depends on data in a network with fresh weights, from the present epoch's first batch."""
    first = batches.make(run.data.shop, orders(run, run.place.epoch)[0])
    initialise(run.model, *operands(first, run.recipe.device))
    run.signs = weight_signs(run.model)


def hand_over(run: Run) -> None:
    """Go from a stage that just ended to the next one, which starts from its best network."""
    recipe, place = run.recipe, run.place
    before, after = stages.now(recipe, place.epoch - 1), stages.now(recipe, place.epoch)
    seed = int(np.random.SeedSequence([_WEIGHTS, recipe.seed, after.number]).generate_state(1, np.uint64)[0] >> 1)
    best = run.out / stages.best_file(recipe, before.number)
    run.model = stages.next_network(recipe, best, before.stage, after.stage, seed).to(recipe.device)
    run.optimizer = stages.make_optimizer(recipe, run.model, after.stage)
    run.about["stage"] = state_of(after.stage)
    place.best, place.best_epoch = -1.0, 0
    torch.manual_seed(seed)  # whatever was drawn for networks that were read and thrown away
    if after.stage.fresh:
        _fresh(run)
