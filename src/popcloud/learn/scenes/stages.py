"""The stages of a run: which one an epoch belongs to, what it trains with, and how one hands over to the next.

Epochs count through all stages, so that a run's place, log and progress are those of one long training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from popcloud.learn import checkpoint
from popcloud.learn.layers import binary_layers
from popcloud.learn.scenes.network import build, state_of
from popcloud.learn.scenes.recipe import SceneRecipe, Stage
from popcloud.learn.shifted import best_shifts, confidence, copy_shifts, end_search, search_parameters, start_search
from popcloud.learn.sparse_layers import set_weights_binary


@dataclass(frozen=True)
class Now:
    """Where an epoch of the run is.

    number, stage  of the recipe's plan, from 0
    epoch          of the stage, from 0
    epochs         of the stage
    """

    number: int
    stage: Stage
    epoch: int
    epochs: int

    @property
    def last_epoch(self) -> bool:
        """Return whether the stage ends with this epoch."""
        return self.epoch + 1 == self.epochs


def now(recipe: SceneRecipe, epoch: int) -> Now:
    """Return what epoch `epoch` of the run belongs to; after the run's end its last epoch."""
    plan = recipe.plan()
    epoch = min(epoch, total_epochs(recipe) - 1)
    for number, stage in enumerate(plan):
        epochs = stage.epochs or recipe.epochs
        if epoch < epochs:
            return Now(number, stage, epoch, epochs)
        epoch -= epochs
    raise AssertionError("an epoch below the total is in some stage")


def total_epochs(recipe: SceneRecipe) -> int:
    """Return the epochs of all stages."""
    return sum(stage.epochs or recipe.epochs for stage in recipe.plan())


def best_file(recipe: SceneRecipe, number: int) -> str:
    """Return the name of the file for the best network of a stage; the last stage's is the run's."""
    plan = recipe.plan()
    return checkpoint.BEST if number + 1 == len(plan) else f"best_{plan[number].name}.safetensors"


def rate_factor(recipe: SceneRecipe, at: Now) -> float:
    """Return what the learning rates of an epoch are multiplied by; a function of the epoch alone."""
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * at.epoch / at.epochs))
    if recipe.schedule == "step":
        # A stage too short for a milestone still begins at its full rate.
        return recipe.step_factor ** sum(at.epoch >= max(round(share * at.epochs), 1) for share in recipe.milestones)
    return 1.0


def make_optimizer(recipe: SceneRecipe, model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Return Adam over a stage's parameters, the choices of a search in a group of their own (A7: inferred).

    Each group keeps its rate at the stage's start as "base_lr". Adam moves each parameter by itself, so two groups are
    two optimisers.
    """
    choices = search_parameters(model) if stage.search else []
    chosen = {id(one) for one in choices}
    weights = [one for one in model.parameters() if id(one) not in chosen]
    groups: list[dict[str, Any]] = [{"params": weights, "lr": stage.lr, "weight_decay": stage.weight_decay}]
    if choices:
        groups.append({"params": choices, "lr": recipe.logits_lr, "weight_decay": 0.0})
    optimizer = torch.optim.Adam(groups, fused=True)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` of what it was at the stage's start."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


@torch.no_grad()
def clip_weights(model: nn.Module) -> None:
    """Keep latent weights in [-1, 1]: beyond, their signs get no gradient (BSC-Net's supplementary)."""
    for _, layer in binary_layers(model):
        layer.weight.clamp_(-1, 1)


def next_network(recipe: SceneRecipe, best: Path, before: Stage, stage: Stage, seed: int) -> nn.Module:
    """Return the network that a stage starts with.

    best    the file with the best network of the stage before
    before  that stage; after a search its best guess becomes the shifts
    seed    of a fresh network's weights
    """
    trained = checkpoint.load(best)
    net = trained.model
    if before.search:
        end_search(net)
    if stage.fresh:
        torch.manual_seed(seed)
        fresh = build(recipe, len(trained.classes), trained.features, state_of(stage) | {"search": False})
        copy_shifts(net, fresh)
        net = fresh
    if stage.search:
        start_search(net)
    set_weights_binary(net, stage.weights == "binary")
    return net


def search_state(model: nn.Module) -> dict[str, Any]:
    """Return what a log says of a search: the mean entropy of the choices, and the best shifts per layer and group."""
    with torch.no_grad():
        entropy = float(confidence(model, "entropy"))
    return {"undecided": entropy, "shifts": best_shifts(model)}
