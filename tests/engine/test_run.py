"""popcloud-run, the program without Python, and its twin of popcloud.cloud."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from popcloud import Session, native
from popcloud.cloud import prepare
from popcloud.errors import CloudError
from popcloud.packed.file import write
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
