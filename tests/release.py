"""BiPointNet's release, written down once more in plain PyTorch with its own names, to compare imports with.

The formulas are the paper's and the public code's (Qin et al. 2021); signs of 0 are 0, as there.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

OFFSETS = {20: -1.8268, 64: -2.2983, 1024: -3.2041}
SHIFTS = {"max": -1.2, "mean": 0.0, "ema-max": 0.8}  # so that pools of few rows have both signs
N = 64


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


def clouds(count: int = 2) -> Tensor:
    """Ellipsoids of different shapes (count, N, 3)."""
    return (F.normalize(torch.randn(count, N, 3), dim=-1) * (0.1 + 0.4 * torch.rand(count, 1, 3))).double()


def release(kind: str, pool: str, backbone: str) -> tuple[Release, Tensor, Tensor]:
    torch.manual_seed(sum(map(ord, kind + pool + backbone)))
    there, x = Release(kind, pool), clouds()
    return there, x, there.run(backbone, x)
