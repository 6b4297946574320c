"""The demo's main function on a tiny setting: from nothing to the table and the picture, and again."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from popcloud.data import SCENES, rooms
from popcloud.learn.backbones import SCENE_BACKBONES
from popcloud.learn.backbones.unet import UNet
from popcloud.packed.file import read

TINY = ["points=48", "train_size=42", "test_size=28", "epochs=1", "batch=14", "threads=1"]
TINY += ["--clouds", "14", "--verify", "3", "--repeat", "1", "--only", "shapes"]
ROOMS = ["--only", "rooms", "--verify-scenes", "1", "--rooms", "backbone=little", "edge=0.4", "train_scenes=1"]
ROOMS += ["test_scenes=1", "threads=1"]
ROOMS += ["stages=[{name: first, weights: real, epochs: 1}, {name: second, epochs: 1}]"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def demo():
    path = Path(__file__).resolve().parent.parent / "examples" / "demo.py"
    sys.path.insert(0, str(path.parent))  # as when it is run as a script
    spec = importlib.util.spec_from_file_location("demo", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(path.parent))
    for name in ("demo", "demo_parts", "demo_rooms"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


def test_it_trains_packs_proves_and_draws(demo, out, capsys):
    assert demo.main([*TINY, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    accuracies = re.search(r"^test accuracy +([\d.]+)% +([\d.]+)% +([\d.]+)%$", text, re.M)
    for folder, shown in zip(("float", "bipointnet", "bnn"), accuracies.groups(), strict=True):
        test = json.loads((out / folder / "result.json").read_text())["result"]["test"]
        assert shown == f"{100 * test:.1f}"
    model = out / "bipointnet.popc"
    assert f"{model.stat().st_size:,}" in text
    assert read(model).points == 48
    assert re.search(r"exactness: over 3 clouds all [\d,]+ signs are PyTorch's, .* 3 of 3 answers agree", text)
    assert re.search(r"^ms per cloud, one thread +\d+\.\d\d +\d+\.\d{3} \(\d+ x\)$", text, re.M)
    assert (out / "answers.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_it_does_not_train_twice(demo, out, capsys):
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/best.safetensors")}
    assert len(before) == 3
    assert demo.main([*TINY, "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("trained already") == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_it_goes_on_where_it_was_stopped(demo, out, capsys):
    (out / "bnn" / "result.json").unlink()
    assert demo.main([*TINY, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "plain BNN, 1 bit: goes on" in text
    assert text.count("trained already") == 2


def test_other_settings_and_again_train_anew(demo, out, capsys):
    assert demo.main([*TINY, "--out", str(out), "--again"]) == 0
    assert "trained already" not in capsys.readouterr().out
    assert demo.main([*TINY, "--out", str(out), "train_size=56"]) == 0
    assert "trained already" not in capsys.readouterr().out


def test_a_mistake_is_one_line(demo, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert demo.main([*TINY, "--out", str(tmp_path / "file")]) == 5
    assert re.fullmatch("demo: .*can't be written.*\n", capsys.readouterr().err)


def test_ctrl_c_says_how_to_go_on(demo, tmp_path, capsys, monkeypatch):
    def stopped(*_, **__):
        raise demo.Stopped("stopped; saved after 1 epochs")

    monkeypatch.setattr(demo, "train", stopped)
    assert demo.main([*TINY, "--out", str(tmp_path)]) == 130
    assert "saved after 1 epochs: start the demo once more" in capsys.readouterr().err


@pytest.fixture
def little(demo, monkeypatch):
    monkeypatch.setitem(SCENE_BACKBONES, "little", partial(UNet, width=4, blocks=1, levels=2))
    one = {split: rooms.load(None, split, scenes=1) for split in ("train", "val", "test")}
    monkeypatch.setitem(SCENES, "rooms", lambda root, split, **_: one[split])  # rays cost time
    monkeypatch.setattr(demo.demo_rooms, "rooms", lambda root, split, **_: one[split])


def test_rooms_are_learnt_packed_proved_and_drawn_once(demo, tmp_path, capsys, little):
    assert demo.main([*ROOMS, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    shown = re.search(r"^test mean IoU +([\d.]+)% +([\d.]+)%$", text, re.M)
    for folder, share in zip(("rooms_float", "rooms_baseline"), shown.groups(), strict=True):
        test = json.loads((tmp_path / folder / "result.json").read_text())["result"]["test"]
        assert share == f"{100 * test['mean_iou']:.1f}"
    model = tmp_path / "rooms.popc"
    assert f"{model.stat().st_size:,}" in text
    assert read(model).features == ("one", "red", "green", "blue", "height")
    assert re.search(
        r"exactness: over 1 scenes all [\d,]+ signs are PyTorch's, .* [\d,]+ of [\d,]+ answers agree", text
    )
    assert (tmp_path / "rooms.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert demo.main([*ROOMS, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("trained already") == 2
    demo.parts.discard(tmp_path / "rooms_baseline")
    assert not list((tmp_path / "rooms_baseline").iterdir())


@pytest.mark.parametrize("network", ["FLOAT", "BINARY"])
def test_the_recipes_of_rooms_are_of_what_the_table_says(demo, network):
    recipe = demo.demo_rooms.recipe_of(getattr(demo.demo_rooms, network), [])
    assert (recipe.variant, recipe.plan()[-1].weights) == ({"FLOAT": "real", "BINARY": "baseline"}[network], "binary")
    assert (recipe.edge, recipe.augment.rotate_z) == (0.1, True)


def test_both_parts_run_unless_one_is_chosen(demo, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(demo, "PARTS", {name: lambda _, name=name: ran.append(name) for name in demo.PARTS})
    assert demo.main(["--out", str(tmp_path)]) == 0
    assert demo.main(["--only", "rooms"]) == 0
    assert ran == ["shapes", "rooms", "rooms"]
