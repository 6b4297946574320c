"""The short examples, one after the other, on tiny settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from popcloud import Session

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TINY = ["points=48", "train_size=42", "test_size=28", "epochs=1", "batch=14", "threads=1"]

pytestmark = pytest.mark.usefixtures("one_thread")


def example(name: str):
    """Return the module of an example; its name is no Python name."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the first two examples write."""
    folder = tmp_path_factory.mktemp("examples")
    found = SimpleNamespace(folder=folder, run=folder / "run", model=folder / "model.popc")
    example("01_train").main([*TINY, "--out", str(found.run)])
    example("02_pack").main([str(found.run), "--model", str(found.model), "--clouds", "3"])
    return found


def test_the_first_trains(made):
    assert {path.name for path in made.run.iterdir()} >= {"best.safetensors", "log.jsonl", "recipe.json", "result.json"}


def test_the_second_packs_and_proves(made, capsys):
    example("02_pack").main([str(made.run), "--model", str(made.model), "--clouds", "3"])
    text = capsys.readouterr().out
    assert f"{made.model.stat().st_size:,} bytes" in text
    assert "answers: 3 of 3 clouds get PyTorch's class" in text
    assert "DIFFERS" not in text


def test_the_third_answers(made, capsys):
    example("03_run").main([str(made.model)])
    assert "of 28 clouds right" in capsys.readouterr().out
    cloud = np.random.default_rng(0).normal(size=(70, 3))
    np.save(made.folder / "cloud.npy", cloud)
    example("03_run").main([str(made.model), "--cloud", str(made.folder / "cloud.npy")])
    session = Session(made.model)
    assert f"cloud.npy: {session.classes[session.labels(cloud)]} (" in capsys.readouterr().out


def test_the_fourth_draws(made, capsys):
    example("04_picture").main([str(made.model), "--out", str(made.folder / "picture.png")])
    assert "picture.png" in capsys.readouterr().out
    assert (made.folder / "picture.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_every_example_is_tested():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    parts_of_the_demo = {"demo_parts", "demo_rooms"}  # tests/test_demo.py runs them
    assert names - parts_of_the_demo == {"demo", "01_train", "02_pack", "03_run", "04_picture"}
