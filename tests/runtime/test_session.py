"""Session: shapes in and out, both readings, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import popcloud
from popcloud import native
from popcloud.cloud import PointCloud, prepare
from popcloud.errors import CloudError, EngineError, FileError
from popcloud.packed.file import write
from popcloud.runtime.session import Session
from programs import random_program

READINGS = ["reference", *native.engine().available()]


@pytest.fixture
def path(tmp_path):
    write(random_program(4, points=50, normalize="unit_sphere"), tmp_path / "model.popc")
    return tmp_path / "model.popc"


@pytest.fixture
def clouds(rng):
    return [rng.normal(size=(n, 3)) for n in (1, 49, 50, 333)]


@pytest.mark.parametrize("kernels", READINGS)
def test_one_many_and_ragged_clouds_agree(path, clouds, kernels):
    session = Session(path, kernels=kernels, threads=2)
    answers = session.run(clouds)
    assert answers.shape == (4, 4)
    assert answers.dtype == np.float32
    for cloud, answer in zip(clouds, answers, strict=True):
        assert session.run(cloud).tobytes() == answer.tobytes()
        assert session.run(PointCloud(cloud.astype(np.float32))).tobytes() == answer.tobytes()
    stacked = np.stack([clouds[0].repeat(50, axis=0), clouds[2]])
    assert session.run(stacked).tobytes() == session.run(list(stacked)).tobytes()
    assert session.run(stacked).shape == (2, 4)
    assert session.run([]).shape == (0, 4)


def test_readings_give_the_same_bits(path, clouds):
    answers = [Session(path, kernels=kernels).run(clouds) for kernels in READINGS]
    for answer in answers[1:]:
        assert answer.tobytes() == answers[0].tobytes()


def test_clouds_are_prepared_as_the_model_says(path, clouds):
    session = Session(path)
    assert (session.points, session.normalize) == (50, "unit_sphere")
    ready = prepare(clouds[3], 50, "unit_sphere")
    assert session.run(clouds[3]).tobytes() == native.engine().Engine(path).run([ready])[0].tobytes()


def test_nested_lists_are_one_cloud(path):
    assert Session(path).run([[0, 0, 0], [1, 2, 3], [0.5, 1, 0]]).shape == (4,)


def test_labels_and_probabilities_follow_the_answer(path, clouds):
    session = Session(path)
    logits = session.run(clouds).astype(np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(session.probabilities(clouds), wanted, rtol=1e-12)
    assert session.labels(clouds).tolist() == logits.argmax(axis=1).tolist()
    assert session.classes[session.labels(clouds[0])] in session.classes
    assert session.probabilities(clouds[0]).shape == (4,)


@pytest.mark.parametrize("kernels", READINGS)
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((0, 3)), "at least one point"),
        (np.full((4, 3), np.nan), "4 of 4 points are not finite"),
        (np.zeros((4, 2)), r"\(4, 2\)"),
        (np.zeros(3), r"\(3,\)"),
        ([np.zeros((4, 3)), np.zeros((4, 6))], r"cloud 1: .*\(4, 6\)"),
        ([[1, 2, 3], [4, 5]], "found something else"),
        ("street.ply", "expected numbers"),
    ],
    ids=["empty", "not finite", "narrow", "flat", "second too wide", "ragged rows", "a path"],
)
def test_bad_clouds_are_refused(path, kernels, points, message):
    with pytest.raises(CloudError, match=message):
        Session(path, kernels=kernels).run(points)


@pytest.mark.parametrize("kernels", READINGS)
def test_a_missing_file_is_refused(tmp_path, kernels):
    with pytest.raises(FileError, match=r"none\.popc"):
        Session(tmp_path / "none.popc", kernels=kernels)


def test_unknown_kernels_are_refused(path):
    with pytest.raises(EngineError, match="unknown kernels 'mmx'"):
        Session(path, kernels="mmx")


def test_a_missing_engine_says_the_way_out(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "popcloud._engine", None)
    monkeypatch.delattr(popcloud, "_engine")
    assert not native.available()
    with pytest.raises(EngineError, match="make build"):
        Session(path)
    assert Session(path, kernels="reference").run(np.ones((2, 3))).shape == (4,)


def test_a_session_may_be_shared_between_threads(path, clouds):
    session = Session(path, threads=2)
    wanted, found = session.run(clouds).tobytes(), []
    workers = [threading.Thread(target=lambda: found.append(session.run(clouds).tobytes())) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [wanted] * 4


def test_the_run_time_never_imports_torch(path):
    code = f"""
import sys
sys.modules["torch"] = None
import popcloud
assert not [m for m in sys.modules if m.startswith("popcloud.")], "import popcloud is not lazy"
import numpy
popcloud.Session({str(path)!r}).labels(numpy.ones((5, 3)))
assert "popcloud.packed" not in sys.modules, "the engine needs no Python reader"
assert not [m for m in sys.modules if m.startswith("popcloud.learn")]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_package_has_no_other_names():
    assert popcloud.Session is Session
    with pytest.raises(AttributeError, match="no attribute 'Sessoin'"):
        popcloud.Sessoin  # noqa: B018


def test_a_forked_child_runs_and_ends(path):
    """Its parent's helper threads are not there: nothing may wait for them."""
    script = f"""
import gc, os, signal, time
import numpy as np
from popcloud import Session
cloud = np.linspace(0, 1, 900).reshape(300, 3)
session = Session({str(path)!r}, threads=3)
answer = session.run([cloud] * 3)
time.sleep(0.2)  # by then the helpers sleep, which a child must not wait for the end of
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = np.array_equal(session.run([cloud] * 3), answer) and np.array_equal(session.run(cloud), answer[0])
    del session
    gc.collect()
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(session.run(cloud), answer[0])
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=180)
