"""The commands run and show on a small trained network."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from commands import CLASSES, complaint
from popcloud import Session
from popcloud.packed.file import write
from popcloud.packed.program import Kind, Op, Program, Rows, Sampling, Step, Value

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kernels", ["reference", "portable"])
def test_run_answers_each_file(call, made, kernels):
    done = call("run", made.model, *made.files, "--top", 2, "--json", "--kernels", kernels, "--threads", 1)
    assert done.code == 0
    session = Session(made.model)
    for found, path in zip(json.loads(done.out), made.files, strict=True):
        wanted = session.probabilities(np.load(path))
        best = np.argsort(-wanted, kind="stable")[:2]
        assert (found["file"], found["points"], found["class"]) == (str(path), 200, session.classes[best[0]])
        assert [entry["class"] for entry in found["top"]] == [session.classes[c] for c in best]
        assert [entry["probability"] for entry in found["top"]] == pytest.approx(wanted[best])


def test_run_prints_a_table(call, made):
    done = call("run", made.model, *made.files)
    lines = done.out.splitlines()
    assert (done.code, done.err, len(lines)) == (0, "", 5)
    assert lines[0].split() == ["file", "class", "points", "probability"]
    assert re.match(rf"{re.escape(str(made.files[0]))}  \w+ +200 +\d+\.\d%", lines[2])


def test_run_goes_on_after_a_bad_file(call, made, tmp_path):
    (tmp_path / "bad.xyz").write_text("1 2 three\n")
    done = call("run", made.model, tmp_path / "bad.xyz", made.files[0], "--json")
    complaint(done, 3, r"bad\.xyz, line 1: expected numbers")
    bad, good = json.loads(done.out)
    assert "expected numbers" in bad["error"]
    assert good["class"] in CLASSES


def test_run_answers_others_where_a_cloud_has_fewer_points_than_neighbours(call, tmp_path, rng):
    point = {"kind": Kind.FLOAT, "rows": Rows.POINT, "channels": 3}
    values = [Value("cloud", **point), Value("near", Kind.INDEX, Rows.POINT, 8), Value("rows", **point, each=8)]
    values += [Value("each", **point), Value("answer", Kind.FLOAT, Rows.CLOUD, 3)]
    steps = [Step(Op.NEAREST, (0, 0), 1, blobs={"dilation": np.array([1], np.int32)}), Step(Op.GATHER, (0, 1), 2)]
    steps += [Step(Op.POOL_MAX, (2,), 3), Step(Op.POOL_MAX, (3,), 4)]
    plan = {"plan": Sampling(), "features": ("x", "y", "z")}
    write(Program(tuple(values), tuple(steps), 0, "none", ("a", "b", "c"), **plan), tmp_path / "model.popc")
    for name, points in (("few", 5), ("many", 20)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(points, 3)))
    done = call("run", tmp_path / "model.popc", tmp_path / "few.npy", tmp_path / "many.npy", "--json")
    complaint(done, 3, r"few\.npy: layer 'near': .*needs at least 8 points, found 5; use a smaller k or a larger cloud")
    few, many = json.loads(done.out)
    assert "found 5" in few["error"]
    assert (many["points"], many["class"] in "abc") == (20, True)


def test_run_notes_when_points_are_repeated(call, made, tmp_path):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(5, 3)))
    done = call("run", made.model, tmp_path / "few.npy")
    assert done.code == 0
    assert "few.npy: 5 points, the model takes 64: they are repeated" in done.err


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((0, 3)), "at least one point"),
        (np.full((9, 3), np.inf), "9 of 9 points are not finite"),
        (np.zeros((9, 2)), r"bad\.npy: .*\(9, 2\)"),
    ],
    ids=["empty", "not finite", "narrow"],
)
def test_run_refuses_bad_clouds(call, made, tmp_path, points, words):
    np.save(tmp_path / "bad.npy", points)
    complaint(call("run", made.model, tmp_path / "bad.npy"), 3, words)


def test_files_may_stand_anywhere(call, made, tmp_path):
    done = call("run", made.model, made.files[0], "--json", made.files[1], "--top", 1, made.files[2])
    assert [found["file"] for found in json.loads(done.out)] == [str(path) for path in made.files]
    assert "3 clouds\n" in call("show", made.model, "--out", tmp_path / "a.png", *made.files).out


def test_show_draws_files_and_clouds_of_the_data_set(call, made, tmp_path):
    done = call("show", made.model, *made.files, "--truth", *made.truth, "--out", tmp_path / "a.png", "--columns", 2)
    assert done.code == 0
    assert "3 clouds, " in done.out
    assert "2 clouds\n" in call("show", made.model, *made.files[:2], "--out", tmp_path / "b.png").out
    assert "3 clouds, " in call("show", made.model, "--clouds", 3, "--seed", 9, "--out", tmp_path / "c.png").out
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
