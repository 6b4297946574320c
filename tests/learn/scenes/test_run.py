"""What is refused before any scene is read."""

from __future__ import annotations

import pytest

from popcloud.errors import RecipeError
from popcloud.learn.scenes import run
from popcloud.learn.scenes.recipe import SceneRecipe


def test_choices_that_do_not_go_together_show_before_scenes_are_read(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "load_scenes", lambda _: pytest.fail("scenes were read"))
    with pytest.raises(RecipeError, match="groups: expected a divisor"):
        run.begin(SceneRecipe(variant="net", groups=3), tmp_path)
