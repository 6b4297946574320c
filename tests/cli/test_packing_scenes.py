"""The commands pack and verify on a network that answers for each point."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from commands import complaint
from popcloud.cloud import PointCloud
from popcloud.data import SCENES
from popcloud.geometry.plan import GridPlan
from popcloud.learn import checkpoint
from popcloud.learn.scenes import network
from popcloud.learn.scenes.batches import Workshop, sample
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.packed.file import read, write
from popcloud.packed.program import Grid, Op
from popcloud.runtime import sites
from popcloud.runtime.session import Session

pytestmark = pytest.mark.usefixtures("one_thread")
FEATURES = ("red", "green", "blue")
RECIPE = SceneRecipe(backbone="unet_s", variant="manual", edge=0.5, inputs=("one", "features", "height"), test_scenes=1)


@pytest.fixture(scope="module")
def scenes():
    return SCENES["rooms"](None, "test", seed=0, scenes=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, scenes):
    """A checkpoint with fresh weights, as a run's folder, and its packed model."""
    folder = tmp_path_factory.mktemp("scenes")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network.build(RECIPE, len(scenes.classes), FEATURES)
    record = {
        "recipe": RECIPE.model_dump(mode="json"),
        "classes": list(scenes.classes),
        "features": list(FEATURES),
        "stage": network.state_of(RECIPE.plan()[-1]),
        "epoch": 1,
        "metrics": {"validation": 0.1},
    }
    checkpoint.write(folder / checkpoint.BEST, checkpoint.model_tensors(model), record)
    return folder


@pytest.fixture
def model(call, run, tmp_path):
    assert call("pack", run, tmp_path / "m.popc").code == 0
    return tmp_path / "m.popc"


def test_pack_keeps_the_grid_and_what_the_network_reads(call, run, scenes, tmp_path):
    done = json.loads(call("pack", run, tmp_path / "m.popc", "--json").out)
    program = read(tmp_path / "m.popc")
    assert program.plan == Grid(0.5, 7, 5)
    assert program.features == ("one", *FEATURES, "height")
    assert program.classes == scenes.classes
    assert "made-up rooms" in program.meta["licence"]
    assert done["ratio"] > 14


def test_verify_compares_scenes_by_the_reference(call, run, model):
    done = call("verify", run, model, "--kernels", "reference", "--clouds", 1, "--json")
    assert done.code == 0
    report = json.loads(done.out)["kernels"]["reference"]
    assert report["clouds"] == 1
    assert report["agreeing"] >= 0.999 * report["answers"] > 10_000


def test_verify_names_the_first_layer_that_differs(call, run, model):
    program = read(model)
    index = next(i for i, step in enumerate(program.steps) if step.op is Op.BINARY_SPARSE_CONV)
    step = program.steps[index]
    changed = replace(step, blobs=step.blobs | {"bias": step.blobs["bias"] + np.float32(0.5)})
    write(replace(program, steps=(*program.steps[:index], changed, *program.steps[index + 1 :])), model)
    name = program.values[step.output].name
    complaint(call("verify", run, model, "--kernels", "reference", "--clouds", 1), 10, f"not what .*{name}")


def test_engine_s_refusal_says_the_way_out(call, run, model):
    complaint(call("verify", run, model), 9, "choose kernels 'reference'")


def test_eval_of_a_model_says_the_way_out(call, model):
    complaint(call("eval", model, "--kernels", "reference"), 2, "answers for each point.*pass its checkpoint")


def test_session_reads_what_training_read(model, scenes):
    program, cloud = read(model), scenes.clouds[0]
    shop = Workshop(scenes, GridPlan(0.5, 7, 5), RECIPE.max_sites, RECIPE.inputs, None, 0)
    first, at = sites.ready(program, cloud)
    trained = sample(shop, cloud, "room")
    np.testing.assert_array_equal(first, trained.x)
    np.testing.assert_array_equal(at.point_to_site, trained.pyramid.point_to_site)
    labels = Session(model, kernels="reference").labels(PointCloud(cloud.xyz[:500], cloud.features[:500]))
    assert labels.shape == (500,)
