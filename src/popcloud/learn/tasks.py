"""The kinds of recipes: one a task, told apart by the field `task`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popcloud.errors import RecipeError, unknown
from popcloud.learn import fields as settings
from popcloud.learn.recipe import Recipe
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.learn.segmentation.recipe import BlockRecipe, PartRecipe

AnyRecipe = Recipe | PartRecipe | BlockRecipe | SceneRecipe

RECIPES: dict[str, type[AnyRecipe]] = {
    "classification": Recipe,
    "parts": PartRecipe,
    "blocks": BlockRecipe,
    "scenes": SceneRecipe,
}


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe of any task from a YAML file, or None for defaults, and "key=value" changes; see recipe.load.

    Raises RecipeError, one line, for a file that can't be read, a misspelt field, or a value out of range.
    """
    return parse(settings.read(path, overrides), str(path) if path is not None else "recipe")


def parse(fields: dict[str, Any], source: str = "recipe") -> AnyRecipe:
    """Make a recipe from plain values; without a task they are of a classification. Raises RecipeError."""
    task = fields.get("task", "classification")
    if task not in RECIPES:
        raise RecipeError(f"{source}: {unknown('task', str(task), RECIPES)}")
    return settings.parse(RECIPES[task], fields, source)


def document() -> str:
    """Return a markdown table of all fields for each task."""
    return "\n".join(f"task: {task}\n\n{settings.document(recipe)}" for task, recipe in RECIPES.items())
