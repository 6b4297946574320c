"""Checkpoints of BiPointNet's release: the imported network answers what the release's formulas give.

Both sides compute in float64, where no last place can turn a sign.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popcloud.errors import CheckpointError, ExportError, RecipeError
from popcloud.learn import checkpoint, official
from popcloud.learn.backbones import OFFICIAL, build
from popcloud.learn.columns import Slice
from popcloud.learn.export import export
from popcloud.learn.point_layers import TernaryLayer
from popcloud.runtime import reference
from release import clouds, release

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = ("real", "bnn", "xnor", "bireal", "irnet", "lsr")


def saved(state, path: Path, **options) -> Path:
    torch.save(state, path, **options)
    return path


def pools(backbone: str, kind: str) -> list[str]:
    """A mean over neighbours in the binary DGCNN is left out: whether two are equal hangs on rounding, there too."""
    mean = backbone != "pointnet2" and (backbone, kind == "real") != ("dgcnn", False)
    return ["max"] + ["mean"] * mean + ["ema-max"] * (kind != "real")


def kinds(backbone: str) -> tuple[str, ...]:
    """Others than these the release has in PointNet alone."""
    return ALL if backbone.startswith("pointnet") and backbone != "pointnet2" else ("real", "bnn", "xnor", "lsr")


CASES = [(b, kind, pool) for b in OFFICIAL for kind in kinds(b) for pool in pools(b, kind)]


@pytest.mark.parametrize(("backbone", "kind", "pool"), CASES)
def test_imported_network_answers_what_the_release_s_does(backbone, kind, pool, tmp_path):
    there, x, expected = release(kind, pool, backbone)
    model = official.load(saved(there.state, tmp_path / "best.pth"), backbone, kind, pool).double()
    with torch.no_grad():
        found = model(x)
    assert float(expected.std()) > 0.1
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_bad_wiring_would_be_seen(tmp_path):
    there, x, expected = release("lsr", "ema-max", "pointnet")
    for one, other in (("feat.stn.fc1", "fc1"), ("feat.bn3", "feat.fstn.bn3")):
        for name in [name for name in there.state if name.startswith(f"{one}.")]:
            twin = other + name.removeprefix(one)
            there.state[name], there.state[twin] = there.state[twin], there.state[name]
    model = official.load(saved(there.state, tmp_path / "x.pth"), "pointnet", "lsr", "ema-max").double()
    with torch.no_grad():
        assert float((model(x) - expected).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("backbone", "kind", "pool"),
    [
        ("pointnet", "bireal", "mean"),
        ("pointnet", "xnor", "max"),
        ("pointnet2", "real", "max"),
        ("pointnet2", "lsr", "ema-max"),
        ("dgcnn", "xnor", "ema-max"),
        ("dgcnn", "lsr", "mean"),
    ],
)
def test_program_answers_what_the_network_does(backbone, kind, pool, tmp_path):
    there, x, _ = release(kind, pool, backbone)
    model = official.load(saved(there.state, tmp_path / "x.pth"), backbone, kind, pool)
    program = export(model, classes=official.CLASSES, points=x.shape[1]).program
    with torch.no_grad():
        expected = model(x.float())[0].numpy()
    np.testing.assert_allclose(reference.run(program, x[0].float().numpy()), expected, rtol=1e-5, atol=1e-5)


def test_layer_with_zeros_in_training_and_after_it():
    torch.manual_seed(0)
    layer = TernaryLayer(12, 5, binarizer="bireal", norm=False)
    x = torch.randn(40, 12) * (torch.rand(40, 12) < 0.6)
    expected = torch.sign(x) @ (layer.weight.sign() * layer.weight.abs().mean(1, keepdim=True)).T
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.eval()(x), expected)


def test_layer_with_zeros_wants_plain_signs():
    model = nn.Sequential(Slice(0, 3), TernaryLayer(3, 2, binarizer="react"))
    model[1].binarizer.shift.data.fill_(0.1)
    with pytest.raises(ExportError, match="1: ReAct has more than signs around 0"):
        export(model, classes=("a", "b"))


@pytest.fixture(scope="module")
def small() -> OrderedDict:
    """The tensors of a vanilla network."""
    return release("lsr", "ema-max", "pointnet_vanilla")[0].state


def vanilla(path: Path):
    return official.load(path, "pointnet_vanilla", "lsr", "ema-max")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "model": state},
        lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}, "lr": 0.1},
        lambda state: OrderedDict((f"module.{name}", t) for name, t in state.items()),
        lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
        lambda state: {name: t.double() if t.is_floating_point() else t for name, t in state.items()},
    ],
    ids=["nested", "nested-parallel", "parallel", "old", "float64"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_forms_of_a_checkpoint(small, wrap, zipped, tmp_path):
    found = vanilla(saved(wrap(small), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)).state_dict()
    expected = vanilla(saved(small, tmp_path / "plain.pth")).state_dict()
    same = {name: torch.equal(t, expected[name]) for name, t in found.items() if "num_batches" not in name}
    assert len(same) == len(expected) - 5
    assert all(same.values())


def test_differences_are_listed(small, tmp_path):
    state = dict(small)
    del state["fc1.scale"]
    state["fc2.weight"] = torch.zeros(256, 500)
    state["fc2.bias"] = torch.zeros(256)
    with pytest.raises(CheckpointError) as caught:
        vanilla(saved(state, tmp_path / "x.pth"))
    words = "missing fc1.scale; fc2.weight: expected shape [256, 512], found [256, 500]; unexpected fc2.bias; check"
    assert words in str(caught.value)
    with pytest.raises(CheckpointError, match=r"missing .*; missing .*; missing .* and [0-9]+ more; check backbone"):
        official.load(saved(small, tmp_path / "y.pth"), "pointnet", "lsr", "ema-max")


class Harmless:
    """Something that is no tensor."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": Harmless()}, r"a pickle with more than tensors \(.*Harmless\), which could run code, is not read"),
        ({"a": 1, "b": 2}, "expected a state dict, names with tensors; found a dictionary of a, b"),
        (torch.zeros(3), "found a Tensor"),
        ({}, "found an empty dictionary"),
    ],
    ids=["unsafe", "numbers", "tensor", "empty"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_other_contents_are_refused(content, words, zipped, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        official.read(saved(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped))


def test_other_files_are_refused(small, tmp_path):
    whole = saved(small, tmp_path / "x.pth").read_bytes()
    for content in (b"", b"text\n" * 9, whole[: len(whole) // 2], b"\x80\x02}q\x00."):
        (tmp_path / "y.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"y.pth: "):
            official.read(tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match=r"can't be read"):
        official.read(tmp_path / "absent.pth")
    small = small | {"fc1.weight": small["fc1.weight"] * torch.nan}
    with pytest.raises(CheckpointError, match=r"fc1.weight: expected finite numbers"):
        vanilla(saved(small, tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("backbone", "binarizer", "pool", "words"),
    [
        ("pointcnn", "lsr", "mean", "pointcnn: the release's X-Conv"),
        ("pointnett", "lsr", "max", "did you mean 'pointnet'"),
        ("pointnet", "react", "max", "unknown binarizer of the release 'react'"),
        ("pointnet", "lsr", "ema-mean", "unknown pool of the release 'ema-mean'"),
        ("pointnet", "real", "ema-max", "valid: max, mean"),
        ("pointnet2", "lsr", "mean", "pointnet2 has max and ema-max alone"),
    ],
)
def test_networks_that_can_t_be_had(backbone, binarizer, pool, words, tmp_path):
    with pytest.raises(RecipeError, match=words):
        official.load(tmp_path / "x.pth", backbone, binarizer, pool)


def test_layout_is_checked():
    with pytest.raises(RecipeError, match=r"unknown backbone 'pointconv'.*in layout 'official'"):
        build("pointconv", classes=2, binarizer="lsr", pool="max", points=8, layout="official")
    with pytest.raises(RecipeError, match=r"unknown pool of layout 'official' 'ema-mean'"):
        build("dgcnn", classes=2, binarizer="lsr", pool="ema-mean", points=8, layout="official")


def test_scales_of_0_are_found_from_clouds(small, tmp_path):
    bare = small | {name: torch.zeros(()) for name in small if name.endswith("scale")}
    path = saved(bare, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"4 layers have scale 0 \(conv2, ...\).*--root"):
        vanilla(path)
    torch.manual_seed(1)
    x = clouds(4)
    model = official.load(path, "pointnet_vanilla", "lsr", "ema-max", clouds=lambda: x.float().numpy())
    with torch.no_grad():
        rows = model.conv1(x.float())
    weight = small["feat.conv2.lin.weight"]
    weight = weight - weight.mean()
    expected = F.linear(rows, weight).std() / F.linear(torch.sign(rows), torch.sign(weight)).std()
    torch.testing.assert_close(model.conv2.binarizer.alpha.detach(), expected[None], rtol=1e-5, atol=0)
    assert official.unsettled(model) == []


def test_folder_is_a_run_s(small, tmp_path):
    model = vanilla(saved(small, tmp_path / "x.pth"))
    about = {"backbone": "pointnet_vanilla", "binarizer": "lsr", "pool": "ema-max"}
    official.write(model, tmp_path / "run", **about)
    trained = checkpoint.load(tmp_path / "run")
    assert (trained.classes[0], trained.classes[39], len(trained.classes)) == ("airplane", "xbox", 40)
    assert (trained.epoch, trained.metrics, trained.recipe.layout) == (0, {}, "official")
    x = clouds().float()
    with torch.no_grad():
        assert torch.equal(trained.model(x), model(x))
    with pytest.raises(CheckpointError, match=r"holds a checkpoint already, best.safetensors"):
        official.write(model, tmp_path / "run", **about)
