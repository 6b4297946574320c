from __future__ import annotations

import pytest
import torch

from popcloud.learn import checkpoint
from popcloud.learn.layers import binary_layers
from popcloud.learn.scenes import stages
from popcloud.learn.scenes.network import build, state_of
from popcloud.learn.scenes.recipe import Stage
from popcloud.learn.shifted import best_shifts, search_parameters, shifted_layers

FEATURES = ("red", "other")


def test_epochs_count_through_the_stages(tiny):
    recipe = tiny("stages=[{name: a, epochs: 2}, {name: b}]", variant="baseline", epochs=3)
    found = [(now.number, now.stage.name, now.epoch, now.last_epoch) for now in map(recipe_now(recipe), range(5))]
    assert found == [(0, "a", 0, False), (0, "a", 1, True), (1, "b", 0, False), (1, "b", 1, False), (1, "b", 2, True)]
    assert stages.total_epochs(recipe) == 5
    assert stages.now(recipe, 5) == stages.now(recipe, 4)


def recipe_now(recipe):
    return lambda epoch: stages.now(recipe, epoch)


def test_the_published_steps_are_at_60_and_100_of_128(tiny):
    recipe = tiny(epochs=128, variant="real")
    factors = [stages.rate_factor(recipe, stages.now(recipe, epoch)) for epoch in range(128)]
    assert factors == pytest.approx([1.0] * 60 + [0.1] * 40 + [0.01] * 28)


def test_a_stage_of_one_epoch_has_its_full_rate(tiny):
    recipe = tiny(epochs=1, variant="real")
    assert stages.rate_factor(recipe, stages.now(recipe, 0)) == 1


def test_other_schedules(tiny):
    cosine = tiny(epochs=4, variant="real", schedule="cosine")
    factors = [stages.rate_factor(cosine, stages.now(cosine, epoch)) for epoch in range(4)]
    assert factors == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    assert stages.rate_factor(tiny(schedule="constant"), stages.now(cosine, 3)) == 1


def test_each_stage_begins_its_schedule_anew(tiny):
    recipe = tiny(epochs=4, variant="baseline")
    factors = [stages.rate_factor(recipe, stages.now(recipe, epoch)) for epoch in range(8)]
    assert factors[:4] == factors[4:]


def test_choices_have_a_rate_of_their_own(tiny):
    recipe = tiny(variant="net", logits_lr=0.05)
    stage = recipe.plan()[0].model_copy(update={"weight_decay": 0.1})
    net = build(recipe, 3, FEATURES, state_of(stage))
    optimizer = stages.make_optimizer(recipe, net, stage)
    weights, choices = optimizer.param_groups
    assert {id(one) for one in choices["params"]} == {id(one) for one in search_parameters(net)}
    assert len(weights["params"]) + len(choices["params"]) == len(list(net.parameters()))
    assert (weights["weight_decay"], choices["weight_decay"]) == (0.1, 0)
    stages.set_rates(optimizer, 0.1)
    assert (weights["lr"], choices["lr"]) == pytest.approx((1e-4, 5e-3))


def test_clipping_reaches_latent_weights_alone(tiny):
    net = build(tiny(variant="baseline"), 3, FEATURES)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(3)
    stages.clip_weights(net)
    latent = {id(layer.weight) for _, layer in binary_layers(net)}
    assert latent
    for parameter in net.parameters():
        assert (parameter == (1 if id(parameter) in latent else 3)).all()


@pytest.fixture
def searched(tiny, tmp_path):
    """A recipe of variant net and the file of a network that has searched: every group's second candidate is ahead."""
    recipe = tiny(variant="net", candidates="faces")
    net = build(recipe, 3, FEATURES, state_of(recipe.plan()[0]))
    with torch.no_grad():
        for logits in search_parameters(net):
            logits[:, 1] += 1
    record = {"recipe": recipe.model_dump(mode="json"), "classes": ["a", "b", "c"], "features": list(FEATURES)}
    record |= {"epoch": 1, "metrics": {}, "stage": state_of(recipe.plan()[0])}
    checkpoint.write(tmp_path / "best.safetensors", checkpoint.model_tensors(net), record)
    return recipe, tmp_path / "best.safetensors", net


def handed_over(searched, **change):
    recipe, path, _ = searched
    before, after = recipe.plan()[:2]
    return stages.next_network(recipe, path, before, after.model_copy(update=change), seed=5)


def test_a_search_ends_in_fixed_shifts_and_fresh_weights(searched):
    net = handed_over(searched)
    assert set(map(str, best_shifts(net).values())) == {"[[1, 0, 0], [1, 0, 0]]"}
    assert not search_parameters(net)
    assert not torch.equal(net.stem.weight, searched[2].stem.weight)
    assert torch.equal(net.stem.weight, handed_over(searched).stem.weight)


def test_a_stage_may_inherit_what_was_searched(searched):
    net = handed_over(searched, fresh=False)
    assert set(map(str, best_shifts(net).values())) == {"[[1, 0, 0], [1, 0, 0]]"}
    assert torch.equal(net.stem.weight, searched[2].stem.weight)
    names = [name for name, _ in shifted_layers(net)]
    layers, before = dict(net.named_modules()), dict(searched[2].named_modules())
    assert all(torch.equal(layers[name].weight, before[name].weight) for name in names)


@pytest.mark.parametrize("weights", ["real", "binary"])
def test_a_stage_says_what_weights_are(searched, weights):
    net = handed_over(searched, weights=weights)
    assert {layer.weights_binary for _, layer in binary_layers(net)} == {weights == "binary"}


def test_a_search_may_come_second(tiny, searched):
    recipe, path, _ = searched
    stage = Stage(name="more", weights="real", search=True)
    net = stages.next_network(recipe, path, recipe.plan()[0], stage, seed=0)
    assert len(search_parameters(net)) == len(list(shifted_layers(net))) > 0
