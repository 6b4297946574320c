"""The network of a scene recipe, in the state that a stage of its training needs.

A checkpoint's record says the state as {"search": bool, "weights": "binary" or "real"}: whether its convolutions are
searching their shifts, and what its binary layers compute with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from popcloud.learn.backbones import build_scene
from popcloud.learn.scenes.batches import input_channels
from popcloud.learn.scenes.recipe import SceneRecipe, Stage
from popcloud.learn.shifted import start_search
from popcloud.learn.sparse_layers import set_weights_binary

State = dict[str, Any]


def state_of(stage: Stage) -> State:
    """Return the state of a stage's network, as a record keeps it."""
    return {"search": stage.search, "weights": stage.weights}


def build(
    recipe: SceneRecipe, classes: int, features: tuple[str, ...], state: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the recipe's network with fresh weights; state None: that of the recipe's last stage.

    features  names of the data set's feature columns
    Raises RecipeError for what does not go together, such as groups that do not divide the channels.
    """
    channels = input_channels(recipe.inputs, features)
    net = build_scene(recipe.backbone, classes=classes, features=channels, **recipe.options())
    state = state_of(recipe.plan()[-1]) if state is None else state
    if state["search"]:
        start_search(net)
    set_weights_binary(net, state["weights"] == "binary")
    return net
