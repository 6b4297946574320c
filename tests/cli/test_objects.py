"""All commands on networks on points: parts of objects, rooms in blocks, clouds by neighbourhoods."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from commands import CLASSES, complaint
from popcloud import Session, native
from popcloud.cli import main
from popcloud.cloud import PointCloud
from popcloud.data import PARTS, SCENES, rooms
from popcloud.packed.file import read

pytestmark = pytest.mark.usefixtures("one_thread")

COMMON = ["epochs=1", "threads=1", "batch=6"]
CATEGORIES = ("chair", "mug")
RUNS = {
    "parts": ["task=parts", f"categories=[{', '.join(CATEGORIES)}]", "train_size=12", "validation_size=2", "points=64"],
    "blocks": ["task=blocks", "train_size=2", "validation=0", "points=64"],
    "clouds": ["backbone=pointnet2", f"classes=[{', '.join(CLASSES)}]", "train_size=18", "points=70"],
}
SIZES = {"parts": 4, "blocks": 1, "clouds": 6}
FIGURES = {
    "parts": ("category_miou", "instance_miou", "accuracy", "categories"),
    "blocks": ("mean_iou", "accuracy", "iou"),
    "clouds": ("overall", "mean_class", "classes"),
}
NORMALS, COLOURS = ("normal_x", "normal_y", "normal_z"), ("red", "green", "blue")


def middles(root, split, **how):
    """Return made-up rooms cut down to 1.5 m about their middle, which is a few blocks."""
    whole = rooms.load(root, split, **how)
    cut = []
    for cloud in whole.clouds:
        near = (np.abs(cloud.xyz[:, :2] - np.median(cloud.xyz[:, :2], axis=0)) < 0.75).all(axis=1)
        cut.append(PointCloud(cloud.xyz[near], cloud.features[near], cloud.labels[near]))
    return replace(whole, clouds=tuple(cut))


@pytest.fixture(scope="module", autouse=True)
def small_rooms():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCENES, "rooms", middles)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_rooms):
    """Trained runs and their packed models by name; and files of a chair, a mug, and a part of a room."""
    folder = tmp_path_factory.mktemp("objects")
    for name, recipe in RUNS.items():
        assert main(["train", *recipe, f"test_size={SIZES[name]}", *COMMON, "--out", str(folder / name)]) == 0
        assert main(["pack", str(folder / name), str(folder / f"{name}.popc")]) == 0
    objects = PARTS["parts"](None, "test", points=60, seed=3, categories=CATEGORIES, clouds=2)
    for cloud, category in zip(objects.clouds, objects.category, strict=True):
        save(folder / f"{CATEGORIES[category]}.npz", cloud, NORMALS)
    room = SCENES["rooms"](None, "test", seed=3, scenes=1).clouds[0]
    save(folder / "room.npz", PointCloud(room.xyz[:900], room.features[:900], room.labels[:900]), COLOURS)
    np.savez(folder / "bare.npz", xyz=room.xyz[:90])
    return folder


@pytest.fixture(params=RUNS)
def made(request, folder):
    return SimpleNamespace(name=request.param, run=folder / request.param, model=folder / f"{request.param}.popc")


def save(path, cloud: PointCloud, names) -> None:
    columns = dict(zip(names, cloud.features.T, strict=True))
    np.savez(path, xyz=cloud.xyz, labels=cloud.labels, **columns)


def cloud_of(path, names) -> PointCloud:
    with np.load(path) as found:
        return PointCloud(found["xyz"], np.stack([found[name] for name in names], axis=1).astype(np.float32))


def test_verify_finds_every_sign_equal(call, made):
    done = call("verify", made.run, made.model, "--clouds", 1, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    (report,) = found["kernels"].values()
    assert found["same_program"]
    assert report["agreeing"] == report["answers"] >= report["clouds"] == 1
    assert (report["answers"] > report["clouds"]) == (made.name != "clouds")
    assert sum(line["compared"] for line in report["steps"] if line["kind"] == "bits") > 0
    assert not any(line["differing"] for line in report["steps"])


def test_a_model_has_the_figures_of_its_checkpoint(call, made):
    ours, trained = (json.loads(call("eval", thing, "--json").out) for thing in (made.model, made.run))
    assert ours["by"] == f"the engine ({native.engine().available()[0]})"
    assert trained["by"] == "PyTorch"
    for name in FIGURES[made.name]:
        assert ours[name] == trained[name]


def test_show_draws_the_data_set(call, made, tmp_path):
    done = call("show", made.model, "--clouds", 1, "--out", tmp_path / "a.png")
    assert done.code == 0, done.err
    assert " right" in done.out
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    complaint(call("show", made.model, "--category", "mug", "--out", tmp_path / "b.png"), 2, "--category belongs to")
    complaint(call("show", made.model, "--truth", "label", "--out", tmp_path / "b.png"), 2, "--truth belongs to files")


def test_bench_times_ready_rows(call, made):
    kernels = native.engine().available()[0]
    about = ("--repeat", 1, "--threads", 1, "--kernels", kernels, "--points", 50)
    done = call("bench", made.model, *about, "--json")
    assert done.code == 0, done.err
    found, program = json.loads(done.out), read(made.model)
    points = program.points if made.name == "clouds" else 50
    assert (found["points"], list(found["milliseconds"])) == (points, [kernels])
    assert sum(found["share"].values()) == pytest.approx(1)
    assert [step["op"] for step in found["steps"]] == [step.op.name for step in program.steps]
    assert ("neighbour search" in found["share"]) == (made.name == "clouds")
    assert {"gather and join", "binary product"} <= set(found["share"])
    unit = {"parts": "object", "blocks": "block", "clouds": "cloud"}[made.name]
    assert f"one {unit} of {points} points, 1 thread\n" in call("bench", made.model, *about).out


def test_summary_says_what_a_network_reads(call, made):
    found = json.loads(call("summary", made.model, "--json").out)
    text = call("summary", made.model).out
    assert found["total"]["bytes"] == made.model.stat().st_size
    assert found["per_point"] == (made.name != "clouds")
    wanted = {"parts": NORMALS, "blocks": (*COLOURS, "room_x", "room_y", "room_z"), "clouds": ()}[made.name]
    assert found["features"] == ["x", "y", "z", *wanted]
    assert found["categories"] == (list(CATEGORIES) if made.name == "parts" else [])
    assert f"reads      {', '.join(found['features'])}\n" in text
    assert ("told       the category of an object: chair, mug\n" in text) == (made.name == "parts")
    sampled = "samples    35, 9 of 70 points: shares 0.5, 0.25, each of those before\n"
    assert (sampled in text) == (made.name == "clouds")
    answers = "one class per cloud" if made.name == "clouds" else "a class per point"
    assert f"answers    {answers}\n" in text
    takes = {
        "parts": "all points, 64 at a time at most, normalised: unit_sphere",
        "blocks": "rooms, cut into columns of 1 m and blocks of 64 points at most",
        "clouds": "70 points, normalised: unit_sphere",
    }
    assert f"takes      {takes[made.name]}\n" in text


def test_run_chooses_from_the_parts_of_the_category(call, folder, tmp_path):
    done = call(
        "run", folder / "parts.popc", folder / "mug.npz", "--category", "mug", "--out", tmp_path / "out", "--json"
    )
    assert (done.code, done.err) == (0, "")
    (record,) = json.loads(done.out)
    labels = np.load(tmp_path / "out" / "mug.labels.npy")
    classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    cloud, session = cloud_of(folder / "mug.npz", NORMALS), Session(folder / "parts.popc", kernels="reference")
    np.testing.assert_array_equal(labels, session.labels(cloud, category="mug"))
    assert {classes[c].partition("/")[0] for c in labels} == {"mug"}
    assert record["points"] == len(labels) == 60
    assert record["shares"] == {name: float(np.mean(labels == c)) for c, name in enumerate(classes)}
    text = call("run", folder / "parts.popc", folder / "mug.npz", "--category", "mug", "--threads", 1).out
    assert "peak memory" not in text
    assert "points to labels" in text


def test_run_cuts_rooms_into_blocks(call, folder, tmp_path):
    done = call("run", folder / "blocks.popc", folder / "room.npz", "--out", tmp_path)
    assert (done.code, done.err) == (0, "")
    wanted = Session(folder / "blocks.popc").labels(cloud_of(folder / "room.npz", COLOURS))
    np.testing.assert_array_equal(np.load(tmp_path / "room.labels.npy"), wanted)
    assert wanted.shape == (900,)


def test_run_says_the_class_of_clouds(call, folder):
    done = call("run", folder / "clouds.popc", folder / "mug.npz", folder / "room.npz", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    session = Session(folder / "clouds.popc")
    for record, name in zip(found, ("mug", "room"), strict=True):
        with np.load(folder / f"{name}.npz") as arrays:
            assert record["class"] == session.classes[session.labels(arrays["xyz"])]
    assert [record["points"] for record in found] == [60, 900]
    assert "60 points, the model takes 70: they are repeated" in done.err


def test_run_reads_normals_as_ply_names_them(call, folder, tmp_path):
    cloud = cloud_of(folder / "chair.npz", NORMALS)
    np.savez(tmp_path / "chair.npz", xyz=cloud.xyz, **dict(zip(("nx", "ny", "nz"), cloud.features.T, strict=True)))
    files = (folder / "chair.npz", tmp_path / "chair.npz")
    one, other = json.loads(call("run", folder / "parts.popc", *files, "--category", "chair", "--json").out)
    assert one["shares"] == other["shares"]


def test_show_draws_files_beside_their_own_labels(call, folder, tmp_path):
    for name, file, more in (("parts", "chair", ("--category", "chair")), ("blocks", "room", ())):
        done = call(
            "show", folder / f"{name}.popc", folder / f"{file}.npz", "--truth", "label", *more, "--out", tmp_path / name
        )
        assert done.code == 0, done.err
        assert "% of the points right" in done.out
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_category_must_be_one_that_the_network_was_trained_for(call, folder, tmp_path):
    chair, parts = folder / "chair.npz", folder / "parts.popc"
    for command in (("run", parts, chair), ("show", parts, chair, "--out", tmp_path / "a.png")):
        complaint(call(*command), 2, "--category NAME is missing: what are the objects[?] valid: chair, mug$")
        complaint(call(*command, "--category", "chiar"), 2, "unknown category 'chiar'; did you mean 'chair'")
        complaint(call(*command, "--category", "lamp"), 2, "unknown category 'lamp'; valid: chair, mug$")
    for other in ("blocks", "clouds"):
        done = call("run", folder / f"{other}.popc", folder / "room.npz", "--category", "chair")
        complaint(done, 2, "--category: this model is not told what an object is")


def test_a_file_without_features_is_named_and_the_others_answered(call, folder):
    done = call("run", folder / "blocks.popc", folder / "bare.npz", folder / "room.npz", "--json")
    complaint(done, 3, r"bare\.npz: expected the columns red, green, blue, found x, y, z without")
    assert json.loads(done.out)[1]["points"] == 900
    done = call("run", folder / "parts.popc", folder / "bare.npz", "--category", "mug")
    complaint(done, 3, r"bare\.npz: expected the columns normal_x, normal_y, normal_z")


def test_arguments_of_other_models_are_refused(call, folder, tmp_path):
    room = (folder / "blocks.popc", folder / "room.npz")
    for option in ("--tile", "--halo", "--memory"):
        complaint(call("run", *room, option, 2), 2, f"{option} is for models for scenes; leave it out")
    complaint(
        call("run", folder / "clouds.popc", folder / "room.npz", "--out", tmp_path), 2, "--out is for models that"
    )
    complaint(call("bench", folder / "blocks.popc", "--cloud", folder / "room.npz"), 2, "--cloud: ")
    complaint(call("summary", folder / "parts.popc", "--sites", 9), 2, "--sites: ")


def test_a_data_set_of_other_parts_is_refused(call, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    complaint(call("eval", folder / "parts.popc", "--dataset", "prats"), 4, "unknown data set of parts 'prats'")
    done = call("eval", folder / "parts.popc", "--dataset", "shapenet_part", "--root", tmp_path / "empty")
    complaint(done, 4, "'chair'.*valid: Airplane")


def test_eval_counts_six_folds_as_one(call, tmp_path, rng):
    counts = rng.integers(1, 50, (6, 2, 2))
    runs = [tmp_path / f"area_{area}" for area in range(1, 7)]
    for area, (run, confusion) in enumerate(zip(runs, counts, strict=True), start=1):
        run.mkdir()
        result = {"test_confusion": confusion.tolist(), "test_iou": {"floor": 0.5, "wall": 0.5}}
        (run / "result.json").write_text(json.dumps({"recipe": {"task": "blocks", "area": area}, "result": result}))
    found = json.loads(call("eval", runs[0], "--folds", *runs[1:], "--json").out)
    assert found["confusion"] == counts.sum(0).tolist()
    assert f"accuracy       {found['accuracy']:.1%}" in call("eval", runs[0], "--folds", *runs[1:]).out
    done = call("eval", runs[0], "--folds", *runs[2:])
    assert (done.code, done.err.count("\n")) == (6, 1)
    assert "found [1, 3, 4, 5, 6]" in done.err
