"""The commands train and eval on scenes."""

from __future__ import annotations

import json
import signal
from functools import partial

import pytest

from commands import complaint
from popcloud.data import SCENES, rooms
from popcloud.learn import checkpoint, progress
from popcloud.learn.backbones import SCENE_BACKBONES
from popcloud.learn.backbones.unet import UNet

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = [
    "task=scenes",
    "backbone=little",
    "variant=baseline",
    "edge=0.4",
    "epochs=1",
    "batch=1",
    "train_scenes=2",
    "test_scenes=1",
    "threads=1",
]


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setitem(SCENE_BACKBONES, "little", partial(UNet, width=4, blocks=1, levels=2))
    made: dict[tuple, object] = {}  # the same rooms many times in a test: rays cost time

    def load(root, split, **how):
        key = (split, *how.items())
        if key not in made:
            made[key] = rooms.load(root, split, **how)
        return made[key]

    monkeypatch.setitem(SCENES, "rooms", load)


def test_train_and_eval(call, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text("\n".join(field.replace("=", ": ", 1) for field in SMALL))
    done = call("train", recipe, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "real_weights" in done.out
    assert "validation mIoU" in done.out
    assert f"popcloud eval {tmp_path / 'run'}" in done.out
    assert [line.split()[2] for line in done.err.splitlines()] == ["real_weights", "binary"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())["result"]
    found = json.loads(call("eval", tmp_path / "run", "--json").out)
    assert found["split"] == "test"
    assert {key: found[key] for key in result["test"]} == result["test"]
    table = call("eval", tmp_path / "run", "--split", "val", "--views", 2).out
    assert all(name in table for name in rooms.CLASSES)
    assert "points of 1 scenes of the val split" in table
    done = call("eval", tmp_path / "run", "--dataset", "ign_lidarhd_dense", "--root", tmp_path)
    assert done.code == 4


def test_ctrl_c_saves_and_the_command_it_names_goes_on(call, tmp_path, monkeypatch):
    class Pressed(progress.Silent):
        def batch(self, epoch, batch, loss, accuracy):
            if (epoch, batch) == (1, 0):
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(progress, "reporter", lambda stream: Pressed())
        stopped = call("train", *SMALL, "--out", tmp_path / "run")
    complaint(stopped, 130, "saved after 1 epochs and 1 batches.*: popcloud train --resume --out ")
    assert json.loads(call("train", "--resume", "--out", tmp_path / "run", "--json").out)["best_epoch"] == 2
    assert checkpoint.load(tmp_path / "run").recipe.variant == "baseline"


def test_fields_of_both_tasks_are_listed(call):
    out = call("train", "--fields").out
    assert "| binarizer | lsr |" in out
    assert "| variant | net |" in out
    assert "stages[].search" in out


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("edge=0.001", 3, r"scene train_\d+: voxel edge 0.001 m gives \d+ sites, at most 5000 .* fits"),
        ("classes=[floor, sky]", 4, "unknown class 'sky'"),
        ("variant=nett", 2, "unknown variant 'nett'"),
        ("teacher=nowhere", 6, "nowhere: no checkpoint"),
        ("class_weights=[1, 2]", 2, "class_weights: expected 10 numbers"),
    ],
)
def test_a_mistake_gets_one_line(call, tmp_path, change, code, words):
    complaint(call("train", *SMALL, "max_sites=5000", change, "--out", tmp_path / "run"), code, words)
