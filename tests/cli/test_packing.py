"""The commands pack and verify on a small trained network."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from commands import CLASSES, POINTS, QUICK, TINY, complaint
from popcloud import native
from popcloud.cli import packing
from popcloud.cli.common import Source
from popcloud.data import DATASETS
from popcloud.packed.file import read, write

pytestmark = pytest.mark.usefixtures("one_thread")


def test_pack_keeps_what_one_must_know(call, made, tmp_path):
    done = json.loads(call("pack", made.run, tmp_path / "m.popc", "--json").out)
    program = read(tmp_path / "m.popc")
    assert done["bytes"] == (tmp_path / "m.popc").stat().st_size
    # conv and fc weights, gain and shift of batch norm, the classifier's bias: 4 bytes each
    weights = 3 * 64 + 64 * 128 + 128 * 1024 + 1024 * 512 + 512 * 256 + 256 * 3
    assert done["float32_bytes"] == 4 * (weights + 2 * (64 + 128 + 1024 + 512 + 256) + 3)
    assert done["ratio"] == pytest.approx(done["float32_bytes"] / done["bytes"])
    assert (program.points, program.normalize, program.classes) == (POINTS, "unit_sphere", CLASSES)
    assert json.loads(program.meta["recipe"])["epochs"] == 4
    assert "note" not in program.meta
    assert read(made.model).meta["note"] == "of the tests"
    result = json.loads((made.run / "result.json").read_text())["result"]
    assert json.loads(program.meta["accuracy"])["test"] == result["test"]
    assert "made-up shapes" in program.meta["licence"]


def test_pack_of_the_last_state_claims_no_test_accuracy(call, made, tmp_path):
    assert call("pack", made.run / "last.safetensors", tmp_path / "m.popc").code == 0
    assert "test" not in json.loads(read(tmp_path / "m.popc").meta["accuracy"])


def test_pack_twice_gives_the_same_bytes(call, made, tmp_path):
    for name in ("a.popc", "b.popc"):
        assert "times as many" in call("pack", made.run, tmp_path / name).out
    assert (tmp_path / "a.popc").read_bytes() == (tmp_path / "b.popc").read_bytes()


def test_verify_shows_a_table_per_kernels(call, made):
    done = call("verify", made.run, made.model, "--clouds", 4, "--kernels", "all")
    assert done.code == 0
    assert re.findall("^kernels: (.*)", done.out, re.M) == native.engine().available()
    assert "answers: 4 of 4 clouds" in done.out
    assert "program: the one that the checkpoint exports to" in done.out
    assert "DIFFERS" not in done.out


@pytest.mark.parametrize("kernels", ["reference", "portable"])
def test_verify_gives_json_to_a_script(call, made, kernels):
    done = call("verify", made.run, made.model, "--clouds", 2, "--kernels", kernels, "--threads", 2, "--json")
    found = json.loads(done.out)
    assert found["ok"]
    assert found["same_program"]
    report = found["kernels"][kernels]
    assert (report["clouds"], report["agreeing"], report["first"]) == (2, 2, None)
    assert {line["kind"] for line in report["steps"]} == {"bits", "floats"}


def test_verify_says_when_there_are_fewer_clouds(call, made, monkeypatch):
    shapes = DATASETS["shapes"]
    monkeypatch.setitem(DATASETS, "few", lambda root, split, **how: shapes(None, split, **how | {"clouds": 4}))
    done = call("verify", made.run, made.model, "--dataset", "few", "--clouds", 9)
    assert done.code == 0
    assert "the split has 4 clouds, not 9" in done.err
    assert "answers: 4 of 4 clouds" in done.out


def test_verify_reads_another_data_set(call, made):
    done = call("verify", made.run, made.model, "--dataset", "modelnet40", "--root", made.folder)
    complaint(done, 4, "holds no form of ModelNet40")


def test_verify_finds_the_layer_that_differs(call, made, tmp_path):
    program = read(made.model)
    index = next(i for i, step in enumerate(program.steps) if "limit" in step.blobs)
    limit = program.steps[index].blobs["limit"].copy()
    limit[:] = np.where(limit < 32, 64, -1)  # of 64 signs: what mostly was -1 is always +1, and the other way round
    program.steps[index].blobs["limit"] = limit
    write(program, tmp_path / "wrong.popc")
    done = call("verify", made.run, tmp_path / "wrong.popc", "--clouds", 3)
    name = program.values[program.steps[index].output].name
    complaint(done, 10, rf"not what the checkpoint exports to: step {index}, {re.escape(name)} .*limit differs in")
    assert f"first layer that differs: {name}" in done.out
    found = json.loads(call("verify", made.run, tmp_path / "wrong.popc", "--clouds", 3, "--json").out)
    assert not found["ok"]
    assert [report["first"] for report in found["kernels"].values()] == [name]


def test_verify_needs_the_checkpoint_of_the_model(call, made, tmp_path):
    assert call("train", *TINY, *QUICK, "binarizer=real", "pool=max", "--out", tmp_path / "real").code == 0
    complaint(call("verify", tmp_path / "real", made.model), 10, "not what .* exports to: .*; pack it again")
    assert call("train", *TINY, *QUICK, "points=32", "--out", tmp_path / "fewer").code == 0
    complaint(call("verify", tmp_path / "fewer", made.model), 10, "points: the file has 64, the checkpoint 32")


@pytest.mark.parametrize(
    ("task", "split", "clouds"),
    [("classification", "test", 50), ("parts", "test", 50), ("blocks", "test", 2), ("scenes", None, 2)],
)
def test_verify_looks_at_a_few_clouds_unless_told(task, split, clouds):
    nothing = Source(None, None, None, None)
    assert packing.chosen(nothing, task) == Source(None, None, split, clouds)
    told = Source("shapes", None, "train", 7)
    assert packing.chosen(told, task) == told
