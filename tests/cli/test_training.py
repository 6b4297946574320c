"""The commands train and eval on a small network."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from commands import CLASSES, POINTS, QUICK, TINY, complaint
from popcloud.cli import objects
from popcloud.cloud import PointCloud
from popcloud.learn import checkpoint, progress
from popcloud.runtime.objects import Objects

pytestmark = pytest.mark.usefixtures("one_thread")


def test_train_writes_a_run_and_says_what_is_next(call, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("\n".join(field.replace("=", ": ", 1) for field in TINY))
    done = call("train", recipe, *QUICK[:2], "--out", tmp_path / "run", *QUICK[2:])
    assert done.code == 0
    assert "best epoch" in done.out
    assert f"popcloud pack {tmp_path / 'run'} model.popc" in done.out
    assert len(done.err.splitlines()) == 2  # a line an epoch, as this is no terminal
    made = checkpoint.load(tmp_path / "run")
    assert (made.recipe.epochs, made.recipe.points, made.classes) == (2, POINTS, CLASSES)


def test_train_gives_json_to_a_script(call, tmp_path):
    done = call("train", *TINY, *QUICK, "--out", tmp_path / "run", "--json")
    found = json.loads(done.out)
    assert found["test"] == json.loads((tmp_path / "run" / "result.json").read_text())["result"]["test"]
    assert Path(found["checkpoint"]).is_file()


def test_train_lists_the_fields_of_a_recipe(call):
    done = call("train", "--fields")
    assert done.code == 0
    assert "| binarizer | lsr |" in done.out
    assert "augment.jitter" in done.out


def test_ctrl_c_saves_and_the_command_it_names_goes_on(call, tmp_path, monkeypatch):
    class Pressed(progress.Silent):
        def batch(self, epoch, batch, loss, accuracy):
            if (epoch, batch) == (1, 0):
                signal.raise_signal(signal.SIGINT)

    out = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(progress, "reporter", lambda stream: Pressed())
        stopped = call("train", *TINY, *QUICK, "--out", out)
    complaint(stopped, 130, "saved after 1 epochs and 1 batches.*: popcloud train --resume --out '")
    assert call("train", "--resume", "--out", out).code == 0
    assert call("train", *TINY, *QUICK, "--out", tmp_path / "straight").code == 0
    one, other = (checkpoint.read(folder / "last.safetensors")[0] for folder in (out, tmp_path / "straight"))
    assert one.keys() == other.keys()
    assert all(one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one)


def test_ctrl_c_elsewhere_says_so(call, made, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("popcloud.summary.summarize", interrupted)
    complaint(call("summary", made.model), 130, "stopped")


def test_eval_of_a_model_is_that_of_its_checkpoint(call, made):
    by_torch, by_engine = (json.loads(call("eval", path, "--json").out) for path in (made.run, made.model))
    assert by_torch["by"] == "PyTorch"
    assert by_engine["by"].startswith("the engine")
    assert by_torch["clouds"] == by_engine["clouds"] == 30
    assert by_torch["overall"] == by_engine["overall"] > 0.4  # a third is chance
    assert by_torch["classes"] == by_engine["classes"]
    result = json.loads((made.run / "result.json").read_text())["result"]
    assert by_torch["overall"] == pytest.approx(result["test"])
    assert by_torch["mean_class"] == pytest.approx(result["test_mean_class"])


def test_eval_takes_other_splits_and_fewer_clouds(call, made):
    assert json.loads(call("eval", made.model, "--split", "train", "--json").out)["clouds"] == 90
    done = call("eval", made.run, "--clouds", 2)
    assert "on 2 clouds of the test split" in done.out
    assert "mean-class accuracy" in done.out


def test_eval_chooses_among_the_parts_of_a_category_that_the_network_is_not_told(rng):
    parts, scores = ("chair/seat", "chair/leg", "mug/cup"), np.float32([0, 1, 5])
    network = Objects(
        ("x", "y", "z"), parts, 0, "unit_sphere", True, lambda c: [np.tile(scores, (len(x), 1)) for x in c]
    )
    cloud = PointCloud(rng.standard_normal((4, 3)).astype(np.float32))
    for label, best in ((0, 1), (2, 2)):
        sample = objects.Sample("one", cloud, np.full(4, label, np.int64))
        assert objects.answer(network, sample).tolist() == [best] * 4
