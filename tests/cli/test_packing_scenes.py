"""The commands pack and verify on a network that answers for each point."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from commands import complaint
from popcloud import native
from popcloud.cloud import PointCloud
from popcloud.data import SCENES
from popcloud.geometry.plan import GridPlan
from popcloud.learn import checkpoint
from popcloud.learn.scenes import network
from popcloud.learn.scenes.batches import Workshop, sample
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.packed.file import read, write
from popcloud.packed.program import Grid, Op
from popcloud.runtime import sites, tiles
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


@pytest.mark.parametrize("kernels", ["reference", native.engine().available()[0]])
def test_verify_compares_every_site_of_scenes(call, run, model, kernels):
    done = call("verify", run, model, "--kernels", kernels, "--clouds", 1, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)["kernels"][kernels]
    assert report["clouds"] == 1
    assert report["agreeing"] >= 0.999 * report["answers"] > 10_000
    assert {line["kind"] for line in report["steps"]} >= {"bits", "floats"}
    assert not [line for line in report["steps"] if not line["ok"]]


@pytest.mark.parametrize(("change", "words"), [("point_to_site", "active sites"), ("first", "features of active")])
def test_verify_refuses_sites_that_are_not_those_of_training(call, run, model, monkeypatch, change, words):
    class Wrong:
        def __init__(self, scene):
            self.scene = scene

        def __getattr__(self, name):
            found = getattr(self.scene, name)
            return found + found.dtype.type(1) if name == change else found

    engines = native.engine().Engine

    class Engine:
        def __init__(self, *args, **how):
            self.engine = engines(*args, **how)

        def scene(self, *args):
            return Wrong(self.engine.scene(*args))

    monkeypatch.setattr(native.engine(), "Engine", Engine)
    complaint(call("verify", run, model, "--kernels", "portable", "--clouds", 1), 10, f"portable: the {words}")


def test_verify_names_the_first_layer_that_differs(call, run, model):
    program = read(model)
    index = next(i for i, step in enumerate(program.steps) if step.op is Op.BINARY_SPARSE_CONV)
    step = program.steps[index]
    changed = replace(step, blobs=step.blobs | {"bias": step.blobs["bias"] + np.float32(0.5)})
    write(replace(program, steps=(*program.steps[:index], changed, *program.steps[index + 1 :])), model)
    name = program.values[step.output].name
    complaint(call("verify", run, model, "--kernels", "reference", "--clouds", 1), 10, f"not what .*{name}")


@pytest.mark.parametrize("kernels", ["reference", native.engine().available()[0]])
def test_eval_of_a_model_measures_points(call, run, model, scenes, kernels):
    done = call("eval", model, "--kernels", kernels, "--clouds", 1, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    labels = Session(model, kernels=kernels).labels(scenes.clouds[0])
    known = scenes.clouds[0].labels >= 0
    assert found["by"] == ("the numpy reference" if kernels == "reference" else f"the engine ({kernels})")
    assert (found["split"], found["scenes"], found["points"]) == ("test", 1, int(known.sum()))
    assert found["accuracy"] == float(np.mean(labels[known] == scenes.clouds[0].labels[known]))
    assert set(found["iou"]) == set(scenes.classes)
    text = call("eval", model, "--kernels", kernels, "--clouds", 1).out
    assert "points of 1 scenes of the test split" in text
    complaint(call("eval", model, "--views", 2), 2, "--views: .* answers for scenes as they are")
    trained = json.loads(call("eval", run, "--clouds", 1, "--views", 1, "--json").out)
    assert found["mean_iou"] == pytest.approx(trained["mean_iou"], abs=0.002)


def test_bench_shows_the_share_of_each_part(call, model, scenes, tmp_path):
    cloud = scenes.clouds[0]
    np.savez(tmp_path / "room.npz", xyz=cloud.xyz, **dict(zip(FEATURES, cloud.features.T, strict=True)))
    kernels = native.engine().available()[0]
    about = ("--repeat", 1, "--threads", 1, "--kernels", kernels)
    found = json.loads(call("bench", model, "--cloud", tmp_path / "room.npz", *about, "--json").out)
    assert (found["points"], found["threads"], len(found["sites"])) == (len(cloud), 1, 7)
    assert list(found["milliseconds"]) == [kernels]
    assert sum(found["share"].values()) == pytest.approx(1)
    assert {"read the file", "kernel maps", "convolutions", "epilogues", "classifier", "points"} <= set(found["share"])
    assert [step["op"] for step in found["steps"]] == [step.op.name for step in read(model).steps]
    assert found["peak_bytes"] > 0
    text = call("bench", model, *about).out
    assert "4 made-up rooms" in text
    assert "read the file" not in text
    assert re.search(r"^active sites +[\d,]+(, [\d,]+){6}, level by level$", text, re.M)
    assert re.search(r"^peak memory +[\d.,]+ MB above points and labels$", text, re.M)
    complaint(call("bench", model, "--points", 9), 2, "--points: .*leave it out")


def test_summary_tells_how_far_a_network_sees_and_what_it_needs(call, model):
    program = read(model)
    found = json.loads(call("summary", model, "--json").out)
    assert found["total"]["bytes"] == model.stat().st_size
    assert found["receptive_radius"] == 0.5 * tiles.receptive_radius(program)
    assert found["exact_halo"] == 0.5 * tiles.exact_halo(program)
    small, large = found["planned_bytes"]["100000"], found["planned_bytes"]["1000000"]
    assert 0 < small < large
    text = call("summary", model, "--sites", 5000).out
    assert "OPs per scene of 5,000 sites on surfaces" in text
    assert f"sees       {found['receptive_radius']:g} m along each axis at most" in text
    assert re.search(
        r"^values     [\d.,]+ MB for 100,000 sites, [\d.,]+ MB for 1,000,000 sites of surfaces", text, re.M
    )
    complaint(call("summary", model, "--points", 9), 2, "--points: choose --sites")


def test_session_reads_what_training_read(model, scenes):
    program, cloud = read(model), scenes.clouds[0]
    shop = Workshop(scenes, GridPlan(0.5, 7, 5), RECIPE.max_sites, RECIPE.inputs, None, 0)
    first, at = sites.ready(program, cloud)
    trained = sample(shop, cloud, "room")
    np.testing.assert_array_equal(first, trained.x)
    np.testing.assert_array_equal(at.point_to_site, trained.pyramid.point_to_site)
    labels = Session(model, kernels="reference").labels(PointCloud(cloud.xyz[:500], cloud.features[:500]))
    assert labels.shape == (500,)
