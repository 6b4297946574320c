"""The common loop on both tasks: it learns, logs, chooses, and a resumed run has the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn import checkpoint, journal
from popcloud.learn.stop import Stopped
from popcloud.learn.train import RESULT, TASKS, train

BOTH = ["parts", "blocks"]


def contents(out):
    """Everything that has to be the same; what depends on the clock is left out."""
    found = {}
    for name in (checkpoint.LAST, checkpoint.BEST):
        tensors, record = checkpoint.read(out / name)
        place = {k: v for k, v in record.get("place", {}).items() if "seconds" not in k}
        found[name] = {key: t.numpy().tobytes() for key, t in tensors.items()}, record | {"place": place}
    found["log"] = [{k: v for k, v in line.items() if k != "seconds"} for line in journal.read(out / journal.LOG)]
    result = json.loads((out / RESULT).read_text())["result"]
    found["result"] = {k: v for k, v in result.items() if k != "seconds"}
    return found


def stop_after(count):
    calls = []
    return lambda: len(calls.append(1) or calls) >= count


@pytest.mark.parametrize("task", BOTH)
def test_a_run_learns(tiny, tmp_path, task):
    result = train(tiny(task, epochs=25, lr=0.02), tmp_path / "run")
    chance = {"parts": 0.35, "blocks": 0.35}[task]
    assert result.test > chance + 0.2
    assert result.test == next(iter(result.figures.values()))


@pytest.mark.parametrize("task", BOTH)
def test_stopped_and_resumed_equals_uninterrupted(tiny, tmp_path, task):
    recipe = tiny(task, save_every=2)
    train(recipe, tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Stopped):
        train(recipe, cut, stop=stop_after(2))
    with pytest.raises(Stopped):
        train(recipe, cut, resume=True, stop=stop_after(3))
    train(recipe, cut, resume=True)
    assert contents(cut) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("parts", {"validation", "validation_instance_miou", "validation_accuracy"}),
        ("blocks", {"validation", "validation_accuracy", "validation_mean_class"}),
    ],
)
def test_the_log_has_the_task_s_figures(tiny, tmp_path, task, names):
    train(tiny(task), tmp_path / "run")
    for line in journal.read(tmp_path / "run" / journal.LOG):
        assert {name for name in line if name.startswith("validation")} == names
        assert all(0 <= line[name] <= line["best"] for name in ["validation"])


@pytest.mark.parametrize("task", BOTH)
def test_a_checkpoint_is_the_network_that_was_measured(tiny, tmp_path, task):
    recipe = tiny(task)
    result = train(recipe, tmp_path / "run")
    trained = checkpoint.load(tmp_path / "run")
    data = TASKS[task].load_data(recipe)
    assert TASKS[task].measure(recipe, trained.model, data.test) == result.figures
    assert trained.classes == tuple(TASKS[task].about(data)["classes"])
    assert trained.features == tuple(TASKS[task].about(data)["features"])


@pytest.mark.parametrize("task", BOTH)
def test_a_teacher_of_the_same_task_is_learnt_from(tiny, tmp_path, task):
    train(tiny(task, binarizer="real", epochs=1), tmp_path / "real")
    taught = tiny(task, teacher=tmp_path / "real", epochs=1)
    train(taught, tmp_path / "taught")
    train(tiny(task, epochs=1), tmp_path / "alone")
    one, other = (checkpoint.read(tmp_path / name / checkpoint.LAST)[0] for name in ("taught", "alone"))
    assert not torch.equal(one["model.conv1.weight"], other["model.conv1.weight"])


def test_a_teacher_of_another_task_is_refused(tiny, tmp_path):
    train(tiny("blocks", binarizer="real", epochs=1), tmp_path / "real")
    with pytest.raises(RecipeError, match="expected task parts, found blocks"):
        train(tiny("parts", teacher=tmp_path / "real"), tmp_path / "run")


@pytest.mark.parametrize("task", BOTH)
def test_too_little_to_train_on(tiny, tmp_path, task, monkeypatch):
    module = TASKS[task]
    full = module.load_split
    monkeypatch.setattr(module, "load_split", lambda *args: full(*args).subset(np.zeros(1, dtype=np.int64)))
    with pytest.raises(RecipeError, match="training needs 2"):
        train(tiny(task), tmp_path / "run")
