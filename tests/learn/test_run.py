"""Resume equals uninterrupted, bit for bit, wherever the run was cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn import checkpoint, journal
from popcloud.learn import train as training
from popcloud.learn.binarizers import BINARIZERS
from popcloud.learn.recipe import Recipe
from popcloud.learn.stop import Stopped
from popcloud.learn.train import RECIPE, RESULT, train

VARIED = ["augment.jitter=0.05", "augment.rotate_z=true", "save_every=2"]


class Killed(BaseException):
    """Stands for a kill: nothing in the library catches it."""


def contents(out: Path) -> dict[str, object]:
    """Everything that has to be the same; what depends on the clock is left out."""
    found: dict[str, object] = {}
    for name in (checkpoint.LAST, checkpoint.BEST):
        tensors, record = checkpoint.read(out / name)
        found[name] = {key: (t.dtype, tuple(t.shape), t.numpy().tobytes()) for key, t in tensors.items()}
        place = {k: v for k, v in record.get("place", {}).items() if "seconds" not in k}
        found[name + " record"] = record | {"place": place}
    found["log"] = [{k: v for k, v in line.items() if k != "seconds"} for line in journal.read(out / journal.LOG)]
    result = json.loads((out / RESULT).read_text())["result"]
    found["result"] = {k: v for k, v in result.items() if k != "seconds"}
    return found


def stop_after(count: int):
    """Return a stop function that says True at its `count`-th call and after."""
    calls: list[int] = []
    return lambda: len(calls.append(1) or calls) >= count


@pytest.mark.parametrize("binarizer", [*BINARIZERS, "real"])
def test_stopped_and_resumed_equals_uninterrupted(tiny, tmp_path, binarizer):
    recipe = tiny(*VARIED, binarizer=binarizer)
    train(recipe, tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Stopped, match="saved after 0 epochs and 3 batches"):
        train(recipe, cut, stop=stop_after(3))
    with pytest.raises(Stopped, match="saved after 1 epochs and 2 batches"):  # schedules have moved by now
        train(recipe, cut, resume=True, stop=stop_after(3))
    with pytest.raises(Stopped, match="saved after 1 epochs and 4 batches"):  # all steps done, not yet validated
        train(recipe, cut, resume=True, stop=stop_after(2))
    train(recipe, cut, resume=True)
    assert contents(cut) == contents(tmp_path / "whole")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_other_optimizers_resume_too(tiny, tmp_path, optimizer):
    recipe = tiny(optimizer=optimizer, weight_decay=0.01)
    train(recipe, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "cut", stop=stop_after(6))
    train(recipe, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_any_file_is_survived(tiny, tmp_path, monkeypatch, when):
    recipe = tiny(*VARIED, epochs=2)
    train(recipe, tmp_path / "whole")
    wanted = contents(tmp_path / "whole")
    replace = os.replace
    for number in range(2, 100):  # the first file is recipe.json: before it there is no run
        calls: list[int] = []

        def killing(source, target, number=number, calls=calls):
            calls.append(1)
            if len(calls) == number and when == "before":
                raise Killed
            replace(source, target)
            if len(calls) == number:
                raise Killed

        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killing)
            try:
                train(recipe, out)
            except Killed:
                pass
            else:
                break
        train(recipe, out, resume=True)
        assert contents(out) == wanted, number
    assert number > 8  # start, log, two saves and a best and a last an epoch, result


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize("step", [1, 2, 4, 5, 7])
def test_a_kill_inside_a_step_is_survived(tiny, tmp_path, monkeypatch, error, step):
    recipe = tiny(*VARIED)
    train(recipe, tmp_path / "whole")
    calls: list[int] = []

    def dying(*_):
        calls.append(1)
        if len(calls) == step:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(training, "after_step", dying)
        with pytest.raises(Stopped if error is KeyboardInterrupt else Killed):
            train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_ctrl_c_saves_after_the_batch_and_says_so(tiny, tmp_path, monkeypatch):
    recipe = tiny()
    step, calls = training._step, []

    def pressing(run, rows):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        step(run, rows)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", pressing)
        with pytest.raises(Stopped, match="saved after 1 epochs and 2 batches") as caught:
            train(recipe, tmp_path / "cut")
    assert caught.value.exit_code == 130
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_run_resumes_to_itself(tiny, tmp_path):
    first = train(tiny(), tmp_path / "run")
    before = contents(tmp_path / "run")
    assert train(tiny(), tmp_path / "run", resume=True) == first
    assert contents(tmp_path / "run") == before


def test_a_run_killed_before_its_first_save_starts_again(tiny, tmp_path):
    train(tiny(), tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / RECIPE).write_bytes((tmp_path / "whole" / RECIPE).read_bytes())
    train(tiny(), tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_another_recipe_is_told_by_its_fields(tiny, tmp_path):
    with pytest.raises(Stopped):
        train(tiny(), tmp_path / "run", stop=lambda: True)
    with pytest.raises(RecipeError, match=r"different in augment\.jitter, epochs, lr; "):
        train(tiny("augment.jitter=0.1", epochs=9, lr=0.5), tmp_path / "run", resume=True)


def test_fields_that_leave_the_weights_alone_may_differ(tiny, tmp_path):
    train(tiny(), tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tiny(), tmp_path / "cut", stop=stop_after(2))
    train(tiny(save_every=1, root="elsewhere"), tmp_path / "cut", resume=True)
    a, b = contents(tmp_path / "cut"), contents(tmp_path / "whole")
    assert a[checkpoint.LAST] == b[checkpoint.LAST]
    assert a["log"] == b["log"]


def test_a_resumed_run_keeps_its_number_of_threads(tiny, tmp_path, threads):
    threads(1)
    with pytest.raises(Stopped):
        train(tiny(threads="null"), tmp_path / "run", stop=lambda: True)
    threads(2)
    train(tiny(threads="null"), tmp_path / "run", resume=True)
    assert torch.get_num_threads() == 2
    assert json.loads((tmp_path / "run" / RESULT).read_text())["threads"] == 1


CHILD = """
import sys
from popcloud.learn.recipe import load
from popcloud.learn.train import train
train(load(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_process_resumes_to_the_same_bits(tmp_path):
    recipe = Recipe(
        points=16, classes=("cube", "sphere"), train_size=24, test_size=4, epochs=4, batch=4, save_every=1, threads=1
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    cut, log = tmp_path / "cut", tmp_path / "cut" / journal.LOG
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(cut)], env=environment())
    try:
        deadline = time.monotonic() + 100
        while child.poll() is None and not (log.exists() and log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL, "the child ended before it could be killed"
    train(recipe, cut, resume=True)
    train(recipe, tmp_path / "whole")
    assert contents(cut) == contents(tmp_path / "whole")


def environment() -> dict[str, str]:
    """Return an environment in which a child finds this very package, installed or not."""
    source = str(Path(checkpoint.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
