"""Checkpoints of BiPointNet's release: the imported network answers what the release's formulas give.

The release is written down once more here, in plain PyTorch, with its own names. Both sides compute in float64, where
no last place can turn a sign.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from popcloud.errors import CheckpointError, RecipeError
from popcloud.learn import checkpoint, official
from popcloud.learn.backbones import OFFICIAL, build

pytestmark = pytest.mark.usefixtures("one_thread")
OFFSETS = {20: -1.8268, 64: -2.2983, 1024: -3.2041}
SHIFTS = {"max": -1.2, "mean": 0.0, "ema-max": 0.8}  # so that pools of few rows have both signs
ALL = ("real", "bnn", "xnor", "bireal", "irnet", "lsr")
N = 96


class Release:
    """The release's layers; each makes its tensors, float32 with chance in all of them, when it is first used."""

    def __init__(self, kind: str, pool: str):
        self.kind, self.pool, self.state = kind, pool, OrderedDict()
        self.activation = F.relu if kind == "real" else F.hardtanh

    def tensor(self, name: str, make) -> Tensor:
        if name not in self.state:
            made = make().float()
            exact = name.endswith((".bias", ".running_mean"))  # their difference must be: T-Nets make much of little
            self.state[name] = ((made * 512).floor() * 2 + 1) / 1024 if exact else made  # and no bias is 0
        return self.state[name].double()

    def real(self, at: str, x: Tensor, outputs: int) -> Tensor:
        weight = self.tensor(f"{at}.weight", lambda: torch.randn(outputs, x.shape[-1]) / math.sqrt(x.shape[-1]))
        return F.linear(x, weight, self.tensor(f"{at}.bias", lambda: 0.3 * torch.randn(outputs)))

    def linear(self, at: str, x: Tensor, outputs: int) -> Tensor:
        if self.kind == "real":
            return self.real(at, x, outputs)
        inputs = x.shape[-1]
        weight = self.tensor(f"{at}.weight", lambda: (torch.randn(outputs, inputs) + 0.2) / math.sqrt(inputs))
        if self.kind == "lsr":
            scale = self.tensor(f"{at}.scale", lambda: 0.5 + torch.rand(()))
            return F.linear(torch.sign(x), scale * torch.sign(weight - weight.mean()))
        bias = self.tensor(f"{at}.bias", lambda: 0.3 * torch.randn(outputs))
        if self.kind == "bnn":
            return F.linear(torch.sign(x), torch.sign(weight), bias)
        if self.kind == "xnor":
            weight = weight - weight.mean(-1, keepdim=True)
            weight = torch.sign(weight) * weight.abs().mean(-1, keepdim=True)
            return F.linear(torch.sign(x) * x.abs().mean(-1, keepdim=True), weight, bias)
        if self.kind == "bireal":
            return F.linear(torch.sign(x), torch.sign(weight) * weight.abs().mean(-1, keepdim=True))
        self.tensor(f"{at}.k", lambda: torch.tensor([10.0]))
        self.tensor(f"{at}.t", lambda: torch.tensor([0.1]))
        weight = weight - weight.mean(-1, keepdim=True)
        weight = weight / weight.std(-1, keepdim=True)
        return F.linear(
            torch.sign(x), torch.sign(weight) * 2 ** weight.abs().mean(-1, keepdim=True).log2().round(), bias
        )

    def norm(self, at: str, z: Tensor) -> Tensor:
        rows, width = z.flatten(0, -2), z.shape[-1]
        gain = self.tensor(f"{at}.weight", lambda: 0.5 + torch.rand(width) - 1.2 * (torch.rand(width) < 0.2))
        shift = self.tensor(f"{at}.bias", lambda: 0.5 * torch.randn(width) + SHIFTS[self.pool])
        mean = self.tensor(f"{at}.running_mean", lambda: rows.mean(0) + 0.1 * torch.randn(width))
        var = self.tensor(f"{at}.running_var", lambda: (rows.var(0) + 0.01) * (0.5 + torch.rand(width)))
        self.state.setdefault(f"{at}.num_batches_tracked", torch.tensor(7))
        return F.batch_norm(rows, mean, var, gain, shift).view(z.shape)

    def conv(self, at: str, number: int, x: Tensor, outputs: int, *, real: bool = False) -> Tensor:
        layer = self.real if real else self.linear
        return self.norm(f"{at}bn{number}", layer(f"{at}conv{number}.lin", x, outputs))

    def head(self, at: str, number: int, bn: int, x: Tensor, outputs: int) -> Tensor:
        return self.activation(self.norm(f"{at}bn{bn}", self.linear(f"{at}fc{number}", x, outputs)))

    def mlp(self, at: str, x: Tensor, *widths: int) -> Tensor:
        for i, width in enumerate(widths):
            x = self.norm(f"{at}.{i}.2", F.relu(self.linear(f"{at}.{i}.0", x, width)))
        return x

    def lifted(self, at: str, x: Tensor, *widths: int) -> Tensor:
        if self.kind == "real":
            return self.mlp(at, x, *widths)
        return self.mlp(f"{at}.1", self.real(f"{at}.0", x, widths[0]), *widths[1:])

    def pooled(self, x: Tensor, rows: int) -> Tensor:
        if self.pool == "mean":
            return x.mean(-2)
        return x.amax(-2) + (OFFSETS[rows] if self.pool == "ema-max" else 0)

    def t_net(self, at: str, x: Tensor, *, real: bool) -> Tensor:
        width = x.shape[-1]
        x = self.activation(self.conv(at, 1, x, 64, real=real))
        x = self.conv(at, 3, self.activation(self.conv(at, 2, x, 128)), 1024)
        x = self.pooled(x if self.pool == "ema-max" else self.activation(x), 1024)
        x = self.head(at, 2, 5, self.head(at, 1, 4, x, 512), 256)
        return self.linear(f"{at}fc3", x, width * width).view(-1, width, width) + torch.eye(width)

    def pointnet(self, x: Tensor, *, transforms: bool) -> Tensor:
        if transforms:
            x = x @ self.t_net("feat.stn.", x, real=True)
        x = self.activation(self.conv("feat.", 1, x, 64, real=True))
        if transforms:
            x = x @ self.t_net("feat.fstn.", x, real=False)
        x = self.pooled(self.conv("feat.", 3, self.activation(self.conv("feat.", 2, x, 128)), 1024), 1024)
        return self.real("fc3", self.head("", 2, 2, self.head("", 1, 1, x, 512), 256), 40)

    def edges(self, x: Tensor) -> Tensor:
        near = torch.cdist(x, x).topk(20, largest=False).indices
        rows = torch.stack([one[index] for one, index in zip(x, near, strict=True)])
        own = x[:, :, None].expand_as(rows)
        rows = rows - own
        return torch.cat([own, rows.where(rows.abs() > 1e-9, 0.0)], -1)  # its rounding makes signs out of nothing

    def dgcnn(self, x: Tensor) -> Tensor:
        x = self.pooled(self.lifted("conv1.nn", self.edges(x), 64, 64, 64), 20)
        y = self.pooled(self.mlp("conv2.nn", self.edges(x), 128), 20)
        x = self.pooled(self.mlp("lin1", torch.cat([x, y], -1), 1024), 1024)
        at = ("mlp.0", "mlp.2", "mlp.4") if self.kind == "real" else ("mlp.0", "mlp.1", "mlp.2")
        return self.real(at[2], self.mlp(at[1], self.mlp(at[0], x, 512), 256), 40)

    def pointnet2(self, xyz: Tensor) -> Tensor:
        return torch.stack([self.one_cloud(one) for one in xyz])

    def level(self, at: str, x: Tensor | None, xyz: Tensor, ratio: float, radius: float, *widths: int):
        chosen = [0]
        while len(chosen) < math.ceil(ratio * len(xyz)):
            chosen.append(int(torch.cdist(xyz, xyz[chosen]).amin(1).argmax()))
        found = []
        for centre in xyz[chosen]:  # a group has as many rows as there are points near it, 64 at most
            near = ((xyz - centre).norm(dim=1) <= radius).nonzero()[:64, 0]
            found.append((near, xyz[near] - centre))
        rows = torch.cat([offset for _, offset in found])
        if x is None:
            rows = self.lifted(at, rows, *widths)
        else:
            rows = self.mlp(at, torch.cat([torch.cat([x[near] for near, _ in found]), rows], -1), *widths)
        groups = rows.split([len(near) for near, _ in found])
        return torch.stack([self.pooled(group, 64) for group in groups]), xyz[chosen]

    def one_cloud(self, xyz: Tensor) -> Tensor:
        x, xyz = self.level("sa1_module.conv.local_nn", None, xyz, 0.5, 0.2, 64, 64, 128)
        x, xyz = self.level("sa2_module.conv.local_nn", x, xyz, 0.25, 0.4, 128, 128, 256)
        x = self.pooled(self.mlp("sa3_module.nn", torch.cat([x, xyz], -1), 256, 512, 1024), 1024)
        x = self.activation(self.linear("lin1", x, 512))
        return self.real("lin3", self.activation(self.linear("lin2", x, 256)), 40)

    def run(self, backbone: str, x: Tensor) -> Tensor:
        if backbone.startswith("pointnet") and backbone != "pointnet2":
            return self.pointnet(x, transforms=backbone == "pointnet")
        return self.dgcnn(x) if backbone == "dgcnn" else self.pointnet2(x)


def clouds(count: int = 3) -> Tensor:
    """Ellipsoids of different shapes (count, N, 3)."""
    return (F.normalize(torch.randn(count, N, 3), dim=-1) * (0.1 + 0.4 * torch.rand(count, 1, 3))).double()


def release(kind: str, pool: str, backbone: str) -> tuple[Release, Tensor, Tensor]:
    torch.manual_seed(sum(map(ord, kind + pool + backbone)))
    there, x = Release(kind, pool), clouds()
    return there, x, there.run(backbone, x)


def saved(state, path: Path, **options) -> Path:
    torch.save(state, path, **options)
    return path


def pools(backbone: str, kind: str) -> list[str]:
    """A mean over neighbours in the binary DGCNN is left out: whether two are equal hangs on rounding, there too."""
    mean = backbone != "pointnet2" and (backbone, kind == "real") != ("dgcnn", False)
    return ["max"] + ["mean"] * mean + ["ema-max"] * (kind != "real")


CASES = [(b, kind, pool) for b in OFFICIAL for kind in ALL for pool in pools(b, kind)]


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
    model = official.load(path, "pointnet_vanilla", "lsr", "ema-max", clouds=lambda: x.float())
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
