from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from popcloud.errors import RecipeError
from popcloud.learn import fields as settings
from popcloud.learn import tasks
from popcloud.learn.recipe import Augmentation, Recipe, differing, document, load, parse
from popcloud.learn.segmentation.recipe import BlockRecipe, PartRecipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def complaint(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(None, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_defaults_are_valid():
    assert load() == Recipe()


def test_file_then_overrides(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 7\nlr: 1e-3  # YAML 1.1 reads this as text\naugment: {jitter: 0.02, scale: [0.5, 2]}\n")
    recipe = load(path, ["epochs=9", "augment.jitter=0.01", "classes=[a, b]"])
    assert recipe.epochs == 9
    assert recipe.lr == 0.001
    assert recipe.classes == ("a", "b")
    assert recipe.augment == Augmentation(jitter=0.01, scale=(0.5, 2.0))


def test_an_empty_file_gives_the_defaults(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("# nothing\n")
    assert load(path) == Recipe()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_committed_recipes_are_valid(path):
    assert tasks.load(path).epochs > 0


def test_there_are_committed_recipes():
    assert len(RECIPES) >= 5


def test_a_recipe_survives_json():
    recipe = load(None, ["augment.scale=[0.8, 1.2]", "classes=[a, b]", "threads=2"])
    assert parse(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("15", 15.0), ("0.5", 0.5)])
def test_a_turn_is_a_switch_or_degrees(text, value):
    turn = load(None, [f"augment.rotate_z={text}"]).augment.rotate_z
    assert turn == value
    assert type(turn) is type(value)


def test_a_recipe_is_frozen():
    with pytest.raises(ValidationError):
        Recipe().epochs = 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epocs=3", ["unknown recipe field 'epocs'", "did you mean 'epochs'?", "valid: task, backbone"]),
        ("augment.jiter=3", ["unknown recipe field 'jiter'", "did you mean 'jitter'?"]),
        ("backbone=pointnett", ["unknown backbone 'pointnett'", "did you mean 'pointnet'?", "pointnet_vanilla"]),
        ("binarizer=xnr", ["unknown binarizer 'xnr'", "did you mean 'xnor'?", "irnet", "real"]),
        ("pool=maxi", ["unknown pool 'maxi'", "did you mean 'max'?", "ema-mean"]),
        ("dataset=shape", ["unknown dataset 'shape'", "did you mean 'shapes'?", "modelnet40"]),
        ("optimizer=adm", ["optimizer", "'adam'", "found 'adm'"]),
        ("epochs=0", ["epochs", "greater than or equal to 1", "found 0"]),
        ("epochs=2.5", ["epochs", "integer", "found 2.5"]),
        ("lr=-1", ["lr", "greater than 0", "found -1"]),
        ("lr=.nan", ["lr", "finite", "found nan"]),
        ("batch=1", ["batch", "greater than or equal to 2"]),
        ("validation=0.9", ["validation", "less than or equal to 0.5"]),
        ("augment.scale=[2, 1]", ["augment.scale", "0 < low <= high", "[2.0, 1.0]"]),
        ("augment.dropout=1", ["augment.dropout", "less than 1"]),
        ("augment.rotate_z=200", ["augment.rotate_z", "less than or equal to 180"]),
        ("augment=3", ["augment", "found 3"]),
        ("epochs.more=3", ["epochs"]),
        ("epochs", ["expected key=value"]),
        ("=3", ["expected key=value"]),
        ("classes=[a", ["no YAML value"]),
        ("classes=[a]", ["classes", "two class names at least", "leave it out"]),
        ("seed=-1", ["seed", "greater than or equal to 0"]),
    ],
)
def test_a_bad_override_gets_one_clear_line(override, words):
    line = complaint(override)
    for word in words:
        assert word in line


def test_an_override_below_a_plain_value():
    assert "has no fields of its own" in complaint("epochs=3", "epochs.more=3")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epochs: [1", "not YAML (line "),
        ("- 1\n- 2", "found a list"),
        ("epochs: many", "epochs: expected integer"),
        ("3: 4", "unknown recipe field '3'"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, words):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=r"bad\.yaml: ") as caught:
        load(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_binary_file_is_no_recipe(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RecipeError, match="not YAML"):
        load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: recipe can't be read"):
        load(tmp_path / "none.yaml")


def test_differing_names_nested_fields():
    assert differing(Recipe(), load(None, ["epochs=3", "augment.jitter=0.1"])) == ["augment.jitter", "epochs"]
    assert differing(Recipe(), Recipe()) == []


def test_every_field_is_documented_with_default_and_bounds():
    table = document()
    for name, field in Recipe.model_fields.items():
        assert field.description
        assert f"| {name} " in table or f"| {name}." in table
    assert "| epochs | 60 | int, >= 1, <= 100000 |" in table
    assert "| augment.dropout | 0.0 | float, >= 0, < 1 |" in table
    assert "| optimizer | adam | adam, adamw, sgd |" in table
    assert "None" not in table.replace("or None", "")


@pytest.mark.parametrize("kind", [Recipe, PartRecipe, BlockRecipe])
def test_lab_needs_an_optimizer_with_second_moments(kind):
    for optimizer in ("adam", "adamw"):
        assert kind(binarizer="lab", optimizer=optimizer).optimizer == optimizer
    assert kind(binarizer="bnn", optimizer="sgd").optimizer == "sgd"
    with pytest.raises(RecipeError, match=r"^recipe: .*lab needs an optimizer .* adam or adamw, found sgd$"):
        settings.parse(kind, {"binarizer": "lab", "optimizer": "sgd"}, "recipe")
