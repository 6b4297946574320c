from __future__ import annotations

import pytest

from popcloud.data.augment_scenes import AugmentScenes
from popcloud.errors import RecipeError
from popcloud.learn.scenes.recipe import SceneAugmentation, SceneRecipe, Stage, default_stages
from popcloud.learn.tasks import document, load, parse


def complaint(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(None, ["task=scenes", *overrides])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_task_picks_the_kind_of_recipe():
    assert load(None, ["task=scenes"]) == SceneRecipe()
    assert load(None, ["task=classification"]) == load() == parse({})


def test_a_recipe_survives_json():
    overrides = ["task=scenes", "augment.elastic=[[0.1, 0.5]]", "class_weights=[1, 2]", "stages=[{name: a, lr: 0.1}]"]
    recipe = load(None, overrides)
    assert parse(recipe.model_dump(mode="json")) == recipe
    assert recipe.stages == (Stage(name="a", lr=0.1),)


@pytest.mark.parametrize(
    ("variant", "weights", "rates"),
    [
        ("real", ["real"], [1e-3]),
        ("xnor", ["binary"], [1e-3]),
        ("bireal", ["binary"], [1e-3]),
        ("react", ["binary"], [1e-3]),
        ("baseline", ["real", "binary"], [1e-3, 2e-4]),
        ("manual", ["real", "binary"], [1e-3, 2e-4]),
        ("net", ["real", "real", "binary"], [1e-3, 1e-3, 2e-4]),
    ],
)
def test_stages_by_variant(variant, weights, rates):
    plan = SceneRecipe(variant=variant, epochs=5).plan()
    assert [stage.weights for stage in plan] == weights
    assert [stage.lr for stage in plan] == rates
    assert [stage.epochs for stage in plan] == [5] * len(plan)
    assert [stage.search for stage in plan] == [variant == "net"] + [False] * (len(plan) - 1)
    assert not any(stage.weight_decay for stage in plan)


def test_after_the_search_weights_are_fresh_or_inherited():
    assert [stage.fresh for stage in default_stages("net")] == [False, True, False]
    assert not any(stage.fresh for stage in default_stages("net", inherit=True))


def test_stages_of_ones_own_keep_their_epochs():
    recipe = SceneRecipe(variant="real", epochs=7, stages=(Stage(name="a", epochs=3), Stage(name="b")))
    assert [stage.epochs for stage in recipe.plan()] == [3, 7]


@pytest.mark.parametrize(
    ("backbone", "given", "weight"), [("unet_s", None, 0.01), ("fcn_s", None, 0.1), ("fcn_s", 0.3, 0.3)]
)
def test_the_confidence_weight_is_the_papers_unless_given(backbone, given, weight):
    assert SceneRecipe(backbone=backbone, confidence=given).confidence_weight == weight


def test_shift_options_reach_only_networks_with_shifts():
    assert "groups" not in SceneRecipe(variant="baseline").options()
    assert SceneRecipe(variant="manual", groups=8).options()["groups"] == 8
    assert SceneRecipe(variant="net", candidates="faces").options()["candidates"] == "faces"


def test_augmentation_is_that_of_the_data_room():
    assert SceneAugmentation().build() == AugmentScenes()
    assert set(SceneAugmentation.model_fields) == set(AugmentScenes.__dataclass_fields__)
    assert SceneAugmentation(elastic=[(0.1, 0.5)], mirror=True).build().elastic == ((0.1, 0.5),)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("backbone=unet", ["unknown backbone 'unet'", "unet_s"]),
        ("variant=nett", ["unknown variant 'nett'", "did you mean 'net'?", "manual"]),
        ("dataset=roms", ["unknown dataset 'roms'", "did you mean 'rooms'?"]),
        ("binarizer=reakt", ["unknown binarizer 'reakt'", "react"]),
        ("binarizer=dorefa", ["binarizer: 'dorefa' can't", "its inputs are 0 and 1", "choose one of bnn"]),
        ("binarizer=abc3", ["'abc3' can't be used over active sites"]),
        ("binarizer=abc5", ["'abc5' can't be used over active sites"]),
        ("binarizer=r2b", ["'r2b' can't be used over active sites"]),
        ("candidates=twelve", ["unknown candidates", "corners"]),
        ("confidence_kind=surprise", ["unknown confidence_kind", "entropy"]),
        ("edge=0", ["edge", "greater than 0", "found 0"]),
        ("inputs=[]", ["inputs", "one of them at least"]),
        ("inputs=[one, one]", ["inputs", "none twice"]),
        ("milestones=[0.8, 0.4]", ["milestones", "rising"]),
        ("classes=[a]", ["classes", "two class names at least"]),
        ("augment.scale=[2, 1]", ["augment.scale", "low <= high"]),
        ("augment.crp=2", ["unknown recipe field 'crp'", "did you mean 'crop'?"]),
        ("stages=[]", ["stages", "one stage at least"]),
        ("stages=[{name: a}, {name: a}]", ["stages", "different names"]),
        ("stages=[{name: a/b}]", ["stages.0.name", "names a file"]),
        ("stages=[{name: a, leer: 1}]", ["unknown recipe field 'leer'", "did you mean 'lr'?", "weight_decay"]),
        ("stages=[{name: a, search: true}]", ["stages", "searches; add one that trains"]),
        ("stages=[{name: a, fresh: true}]", ["stages", "leave out fresh"]),
        ("pool=max", ["unknown recipe field 'pool'"]),
        ("task=scene", ["unknown task 'scene'", "did you mean 'scenes'?", "classification"]),
    ],
)
def test_a_bad_override_gets_one_clear_line(override, words):
    line = complaint(override)
    for word in words:
        assert word in line


def test_a_search_without_shifts_to_search_is_refused():
    stages = "stages=[{name: a, search: true}, {name: b}]"
    assert "variant net alone has" in complaint("variant=manual", stages)


def test_every_field_is_documented():
    table = document()
    for name, field in SceneRecipe.model_fields.items():
        assert field.description
        assert f"| {name} " in table or f"| {name}." in table
    assert "| stages[].lr | 0.001 | float, > 0, <= 10 |" in table
    assert "| schedule | step | step, cosine, constant |" in table
