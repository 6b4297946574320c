"""The commands bench and summary on a small trained network."""

from __future__ import annotations

import json

import pytest

from commands import CLASSES, POINTS, complaint
from popcloud import native
from popcloud.packed.file import read

pytestmark = pytest.mark.usefixtures("one_thread")


def test_bench_measures_each_instruction_set(call, made):
    done = call("bench", made.model, "--repeat", 1, "--threads", 1, "--json")
    found = json.loads(done.out)
    assert (found["points"], found["threads"]) == (POINTS, 1)
    assert list(found["milliseconds"]) == native.engine().available()
    for timing in found["milliseconds"].values():
        assert 0 < timing["first"] <= timing["median"] <= timing["third"]
    assert sum(found["share"].values()) == pytest.approx(1)
    assert [step["op"] for step in found["steps"]] == [step.op.name for step in read(made.model).steps]


def test_bench_prints_tables(call, made):
    done = call("bench", made.model, "--repeat", 1, "--points", 100, "--kernels", "portable")
    assert done.code == 0
    assert "portable" in done.out
    assert "binary product and pool" in done.out
    assert not any(name in done.out for name in native.engine().available() if name != "portable")


def test_summary_adds_up_to_the_file(call, made):
    found = json.loads(call("summary", made.model, "--json").out)
    assert found["total"]["bytes"] == made.model.stat().st_size == sum(step["bytes"] for step in found["steps"])
    assert found["classes"] == list(CLASSES)
    text = call("summary", made.model).out
    assert "OPs per cloud" in text
    assert "note       of the tests" in text


def test_arguments_of_scenes_are_refused_for_whole_clouds(call, made):
    complaint(call("bench", made.model, "--cloud", made.files[0]), 2, "--cloud: whole clouds are timed on made-up")
    complaint(call("summary", made.model, "--sites", 9), 2, "--sites: the model takes whole clouds")
