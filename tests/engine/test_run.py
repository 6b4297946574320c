"""popcloud-run, the program without Python, and its twin of popcloud.cloud."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grid_programs import GridBuilder, surface
from point_programs import cloud_of, every_point_op
from popcloud import Session, native
from popcloud.cloud import prepare
from popcloud.errors import CloudError
from popcloud.packed.file import write
from popcloud.packed.program import Grid
from programs import random_program

PROGRAM = Path(__file__).parents[2] / "build" / "engine" / "popcloud-run"
engine = native.engine()
built = pytest.mark.skipif(not PROGRAM.exists(), reason="popcloud-run is not built; make engine-test builds it")


@pytest.mark.parametrize("points", [1, 2, 7, 300, 1025])
@pytest.mark.parametrize("count", [0, 1, 300, 1024])
@pytest.mark.parametrize("how", ["none", "unit_sphere"])
def test_clouds_are_prepared_to_the_same_bits(points, count, how, rng):
    xyz = (rng.normal(size=(points, 3)) * 10 + [5, -3, 1000]).astype(np.float32)
    found, wanted = engine.prepare(xyz, count, how), prepare(xyz, count, how)
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("xyz", "how", "message"),
    [
        (np.zeros((0, 3)), "none", "at least one point"),
        (np.full((2, 3), np.inf), "none", "2 of 2 points"),
        (np.zeros((2, 3)), "box", "unknown normalisation 'box'"),
    ],
    ids=["empty", "infinite", "unknown"],
)
def test_preparing_refuses_as_python_does(xyz, how, message):
    for twin in (prepare, engine.prepare):
        with pytest.raises(CloudError, match=message):
            twin(xyz.astype(np.float32), 4, how)


@pytest.fixture
def model(tmp_path):
    write(random_program(4, points=50, normalize="unit_sphere"), tmp_path / "model.popc")
    return tmp_path / "model.popc"


def call(*words):
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@built
def test_the_program_answers_as_a_session(model, tmp_path, rng):
    clouds = [rng.normal(size=(n, 3)).astype(np.float32) for n in (3, 200)]
    np.save(tmp_path / "a.npy", clouds[0])
    lines = "\n".join(",".join(repr(float(x)) for x in point) for point in clouds[1])
    (tmp_path / "b.xyz").write_text(f"# x, y, z\n\n{lines}\n")
    code, out, _ = call(model, "--threads", 2, tmp_path / "a.npy", tmp_path / "b.xyz")
    assert code == 0
    session = Session(model)
    wanted = [
        f"{tmp_path / name}\t{session.classes[session.labels(cloud)]}\t{session.probabilities(cloud).max():.4f}"
        for name, cloud in zip(("a.npy", "b.xyz"), clouds, strict=True)
    ]
    assert out.splitlines() == wanted


@pytest.fixture
def scene_model(tmp_path):
    build = GridBuilder(np.random.default_rng(2), Grid(0.2, 2, 3), 3)
    below = build.conv(0, 8, kinds="FB", step=1)
    build.conv(below + 1, 8, step=-1)
    program = replace(build.program(4), features=("height", "red", "intensity"))
    write(program, tmp_path / "scenes.popc")
    return tmp_path / "scenes.popc"


@built
def test_the_program_answers_for_points_as_a_session(scene_model, tmp_path, rng):
    clouds = [surface(rng, n, 2) for n in (3, 400)]
    rows = [np.column_stack([cloud.xyz, cloud.features]) for cloud in clouds]
    np.save(tmp_path / "a.npy", rows[0])
    (tmp_path / "b.txt").write_text("".join(" ".join(repr(float(x)) for x in row) + " 9\n" for row in rows[1]))
    code, out, err = call(scene_model, "--out", tmp_path, tmp_path / "a.npy", tmp_path / "b.txt")
    assert (code, err) == (0, "")
    session, wanted = Session(scene_model), []
    for name, cloud in zip(("a.npy", "b.txt"), clouds, strict=True):
        labels = session.labels(cloud)
        found = np.load(tmp_path / f"{name[0]}.labels.npy")
        assert (found.dtype, found.tolist()) == (np.dtype(np.int64), labels.tolist())
        counts = np.bincount(labels, minlength=4)
        wanted += [
            f"{tmp_path / name}\t{session.classes[c]}\t{counts[c]}\t{counts[c] / len(labels):.4f}"
            for c in np.argsort(-counts, kind="stable")
            if counts[c]
        ]
    assert out.splitlines() == wanted


@built
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["SCENES", "a.npy"], 3, "a.npy: expected shape (N, 5), found (4, 3)"),
        (["SCENES", "a.txt"], 3, "a.txt: line 1: expected 5 numbers, found '1 2 3 4'"),
        (["SCENES", "empty.txt"], 3, "empty.txt: "),
        (["SCENES", "nan.txt"], 3, "nan.txt: "),
        (["SCENES", "far.txt"], 3, "far.txt: "),
        (["SCENES", "--out", "FOLDER", "a.txt", "a.npy"], 2, "--out: two files would be written to"),
        (["SCENES", "--out", "MISSING", "good.txt"], 1, "can't be written"),
        (["MODEL", "--out", "FOLDER", "a.npy"], 2, "--out: the model gives a class per cloud"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_program_refuses_scenes_in_one_line(model, scene_model, tmp_path, words, code, message):
    np.save(tmp_path / "a.npy", np.ones((4, 3), np.float32))
    (tmp_path / "a.txt").write_text("1 2 3 4\n")
    (tmp_path / "good.txt").write_text("1 2 3 4 5\n")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "nan.txt").write_text("1 2 3 nan 5\n")
    (tmp_path / "far.txt").write_text("1e9 2 3 4 5\n-1e9 2 3 4 5\n")
    places = {"MODEL": model, "SCENES": scene_model, "FOLDER": tmp_path, "MISSING": tmp_path / "none"}
    words = [places.get(w, tmp_path / w if "." in w else w) for w in words]
    found, _, err = call(*words)
    assert found == code
    assert message in err
    assert err.startswith("popcloud-run: ")
    assert err.count("\n") == 1


@built
def test_the_program_answers_networks_on_points(tmp_path, rng):
    program, path = every_point_op(0, by_point=True), tmp_path / "points.popc"
    write(program, path)
    cloud = cloud_of(rng, 60, program)
    np.save(tmp_path / "a.npy", cloud)
    code, out, err = call(path, "--out", tmp_path, tmp_path / "a.npy")
    assert (code, err) == (0, "")
    labels = engine.Engine(path).run([cloud])[0].argmax(1)
    np.testing.assert_array_equal(np.load(tmp_path / "a.labels.npy"), labels)
    assert len(out.splitlines()) == len(set(labels.tolist()))
    write(replace(every_point_op(0), points=50), path)
    assert call(path, tmp_path / "a.npy")[::2] == (
        3,
        f"popcloud-run: {tmp_path / 'a.npy'}: expected the 50 points that the model takes, found 60; "
        "resample the cloud with its columns first\n",
    )
    write(replace(program, normalize="blocks"), path)
    code, _, err = call(path, tmp_path / "a.npy")
    assert (code, err.count("\n")) == (5, 1)
    assert "blocks" in err


@pytest.fixture
def part_model(tmp_path):
    program = every_point_op(0, by_point=True)
    program = replace(
        program,
        points=100,
        features=("x", "y", "z", "category:cap", "category:mug"),
        classes=("cap/panel", "mug/body", "mug/handle"),
    )
    write(program, tmp_path / "parts.popc")
    return tmp_path / "parts.popc"


@built
@pytest.mark.parametrize(("category", "parts"), [("cap", {0}), ("mug", {1, 2})])
def test_the_program_chooses_among_the_parts_of_the_category(part_model, tmp_path, rng, category, parts):
    xyz = rng.uniform(-1, 1, (170, 3)).astype(np.float32)  # dealt out into two sets
    told = np.tile([category == "cap", category == "mug"], (len(xyz), 1))
    np.save(tmp_path / "a.npy", np.column_stack([xyz, told]).astype(np.float32))
    code, _, err = call(part_model, "--out", tmp_path, tmp_path / "a.npy")
    assert (code, err) == (0, "")
    session = Session(part_model)
    wanted = session.labels(xyz, category=category)
    np.testing.assert_array_equal(np.load(tmp_path / "a.labels.npy"), wanted)
    assert set(wanted.tolist()) == parts
    assert 1 in session.run(xyz, category=category).argmax(1)  # of all parts


@built
@pytest.mark.parametrize(("told", "found"), [([0, 0], 0), ([1, 1], 2), ([0.5, 0], 0)])
def test_the_program_refuses_objects_of_no_single_category(part_model, tmp_path, rng, told, found):
    np.save(tmp_path / "a.npy", np.column_stack([rng.normal(size=(80, 3)), [told] * 80]).astype(np.float32))
    assert call(part_model, tmp_path / "a.npy") == (
        3,
        "",
        f"popcloud-run: {tmp_path / 'a.npy'}: expected 1 in the column of one category, found it in {found} of 2 "
        "in the first row; say what the object is\n",
    )


@built
def test_the_program_says_which_cloud_a_network_refuses(tmp_path, rng):
    program, path = every_point_op(0), tmp_path / "points.popc"
    write(program, path)
    for name, points in (("good", 60), ("few", 2)):
        np.save(tmp_path / f"{name}.npy", cloud_of(rng, points, program))
    code, out, err = call(path, tmp_path / "good.npy", tmp_path / "few.npy")
    assert (code, out) == (3, "")
    assert err.startswith(f"popcloud-run: {tmp_path / 'few.npy'}: layer 'nearest_6': k nearest: k = 4")
    assert err.count("\n") == 1


@built
def test_the_program_explains_itself():
    code, out, _ = call("--help")
    assert code == 0
    assert "Exit codes" in out
    assert ", ".join(engine.available()) in out


@built
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "expected a model"),
        (["MODEL", "a.npy", "--fast"], 2, "unknown option '--fast'"),
        (["MODEL", "a.npy", "--threads", "many"], 2, "found 'many'"),
        (["MODEL", "a.npy", "--threads"], 2, "expected a value"),
        (["MODEL", "wide.npy"], 3, "expected shape (N, 3)"),
        (["MODEL", "double.npy"], 3, "expected float32"),
        (["MODEL", "short.npy"], 3, "truncated"),
        (["MODEL", "words.txt"], 3, "line 2: expected three numbers"),
        (["MODEL", "empty.txt"], 3, "at least one point"),
        (["MODEL", "none.npy"], 3, "No such file"),
        (["MODEL", "cloud.ply"], 3, "unknown kind of file"),
        (["words.txt", "a.npy"], 5, "not a model file"),
        (["none.popc", "a.npy"], 5, "No such file"),
        (["MODEL", "a.npy", "--kernels", "mmx"], 9, "unknown kernels 'mmx'"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_the_program_refuses_in_one_line(model, tmp_path, words, code, message):
    np.save(tmp_path / "a.npy", np.ones((4, 3), np.float32))
    np.save(tmp_path / "wide.npy", np.ones((4, 4), np.float32))
    np.save(tmp_path / "double.npy", np.ones((4, 3)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    (tmp_path / "words.txt").write_text("1 2 3\nx y z\n")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "cloud.ply").write_text("ply\n")
    words = [model if w == "MODEL" else tmp_path / w if "." in w else w for w in words]
    found, out, err = call(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("popcloud-run: ")
    assert err.count("\n") == 1
