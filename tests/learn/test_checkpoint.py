from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from popcloud.errors import CheckpointError, FileError
from popcloud.learn import checkpoint
from popcloud.learn.checkpoint import BEST, LAST, load, load_model, load_optimizer, model_tensors, read, write
from popcloud.learn.recipe import Recipe


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "model.a": torch.randn(3, 5, generator=generator),
        "model.turned": torch.randn(4, 2, generator=generator).t(),
        "optimizer.0.step": torch.tensor(7.0),
        "rng.cpu": generator.get_state(),
        "signs.a": torch.randn(6, generator=generator) > 0,
        "model.count": torch.tensor(3),
        "model.none": torch.zeros(0, 2),
    }


def written(path: Path) -> Path:
    write(path, some_tensors(), {"epoch": 3, "metrics": {"validation": 1 / 3}, "classes": ("a", "b")})
    return path


def saved_run(recipe: Recipe, folder: Path, name: str = BEST, epoch: int = 5) -> nn.Module:
    torch.manual_seed(3)
    model = checkpoint.build(recipe, 3)
    record = {"recipe": recipe.model_dump(mode="json"), "classes": ["a", "b", "c"], "epoch": epoch}
    write(folder / name, model_tensors(model), record | {"metrics": {"validation": 0.5}})
    return model.eval()


def test_read_gives_what_was_written(tmp_path):
    tensors, record = read(written(tmp_path / "x.safetensors"))
    wanted = some_tensors()
    assert tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    assert record["epoch"] == 3
    assert record["metrics"]["validation"] == 1 / 3
    assert record["classes"] == ["a", "b"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_a_flipped_bit_is_noticed(tmp_path, data):
    path = written(tmp_path / "x.safetensors")
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: "):
        read(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_noticed(tmp_path, share):
    path = written(tmp_path / "x.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"x\.safetensors: "):
        read(path)


def test_other_files_are_no_checkpoints(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="not of popcloud"):
        read(other)
    save_file({"a": torch.zeros(2)}, other, metadata={"popcloud": "[1"})
    with pytest.raises(CheckpointError, match="record is damaged"):
        read(other)
    save_file({"a": torch.zeros(2)}, other, metadata={"popcloud": json.dumps({"format": 99, "digest": ""})})
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        read(other)


@pytest.mark.parametrize("content", [b"", b"hello, world, this is text", bytes(100)])
def test_text_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: "):
        read(path)


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="none"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match=f"{BEST} or {LAST}"):
        load(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = written(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        write(path, {"a": torch.ones(1)}, {})
    assert path.read_bytes() == before


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = written(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            write(path, {"a": torch.ones(1)}, {})
    assert path.read_bytes() == before
    write(path, {"a": torch.ones(1)}, {})  # the left-over temporary file is in nobody's way
    assert read(path)[0].keys() == {"a"}


def test_load_gives_the_same_answers(tiny, tmp_path):
    recipe = tiny()
    model = saved_run(recipe, tmp_path)
    trained = load(tmp_path)
    x = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(trained.model(x), model(x))
    assert not trained.model.training
    assert (trained.recipe, trained.classes, trained.epoch) == (recipe, ("a", "b", "c"), 5)
    assert trained.metrics == {"validation": 0.5}


def test_a_folder_means_its_best_and_a_file_itself(tiny, tmp_path):
    saved_run(tiny(), tmp_path, LAST, epoch=9)
    assert load(tmp_path).epoch == 9
    saved_run(tiny(), tmp_path, BEST, epoch=4)
    assert load(tmp_path).epoch == 4
    assert load(tmp_path / LAST).epoch == 9


def test_another_network_is_told_by_its_first_differences(tmp_path):
    small = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    large = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(2, 2))
    with pytest.raises(CheckpointError) as caught:
        load_model(large, model_tensors(small), tmp_path / "x")
    line = str(caught.value)
    assert (
        "1.weight has shape (5, 4), expected (6, 4); 1.bias has shape (5,), expected (6,); 2.weight is missing" in line
    )
    assert "and 3 more" in line
    with pytest.raises(CheckpointError, match=r"2\.weight is unknown"):
        load_model(nn.Sequential(*large[:2]), model_tensors(large), tmp_path / "x")


def test_a_recipe_this_version_does_not_know(tiny, tmp_path):
    recipe = tiny().model_dump(mode="json") | {"backbone": "later"}
    write(tmp_path / BEST, {}, {"recipe": recipe, "classes": ["a"], "epoch": 1, "metrics": {}})
    with pytest.raises(CheckpointError, match="another version of popcloud; its recipe: unknown backbone 'later'"):
        load(tmp_path)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_an_optimiser_goes_on_as_it_would_have(kind, tmp_path):
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, kind(model.parameters(), lr=0.01, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))

    model, optimizer = fresh()
    steps(model, optimizer, 3)
    tensors = model_tensors(model) | checkpoint.optimizer_tensors(optimizer)
    write(tmp_path / "x", tensors, {"optimizer": checkpoint.optimizer_groups(optimizer)})
    steps(model, optimizer, 3)

    other, again = fresh()
    tensors, record = read(tmp_path / "x")
    load_model(other, tensors, tmp_path / "x")
    load_optimizer(again, tensors, record["optimizer"])
    steps(other, again, 3)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)
