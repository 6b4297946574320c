"""Learning from a trained network: its answers as a second target, or its weights to start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcloud.errors import RecipeError
from popcloud.learn import checkpoint


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || network) of softened answers, mean over all rows (Hinton et al. 2015, section 2).

    logits, teacher (R, C). Unlabelled rows count as well: the teacher answers everywhere.
    """
    student, target = (F.log_softmax(one / temperature, dim=1) for one in (logits, teacher.detach()))
    return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)


def load_teacher(recipe: Any, wanted: Mapping[str, object]) -> nn.Module | None:
    """Return the recipe's teacher in eval mode, without gradients; None if it has none.

    wanted  what it must have been trained with: classes, features, or fields of its recipe
    Raises RecipeError if it reads or answers something else.
    """
    if recipe.teacher is None:
        return None
    trained = checkpoint.load(recipe.teacher)
    for name, value in wanted.items():
        found = getattr(trained, name) if name in ("classes", "features") else getattr(trained.recipe, name, None)
        if found != value:
            raise RecipeError(f"teacher {recipe.teacher}: expected {name} {value}, found {found}; use a twin's run")
    return trained.model.to(recipe.device).requires_grad_(False)


@torch.no_grad()
def start_from(model: nn.Module, path: str) -> None:
    """Copy the tensors of a trained network that have the same names and shapes here; the others stay fresh.

    A binary network starts this way from its real-valued twin: the same weights, to be signed from now on.
    Raises RecipeError if that has no weight that fits.
    """
    found = checkpoint.load(path).model.state_dict()
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    if not any(name.endswith("weight") for name in fitting):
        raise RecipeError(f"start {path}: expected a network of the same backbone, found no weight that fits")
    model.load_state_dict(own | fitting)
