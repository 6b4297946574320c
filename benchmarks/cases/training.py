"""A training step of vanilla BiPointNet (batch 32, 1,024 points) beside the plain PyTorch formulation of the same.

Both start from the same weights and take the same batch; their losses and gradients are compared first. Each runs in
a process of its own, in turn, so that one's memory is not counted as the other's. Peak memory is what the process
holds at its largest beyond what is resident before its first step; the goal is held against that. Measured beside it is
how far the steps raise the process's own peak, which preparing the network has raised already.
Ours keeps freed memory as training does (popcloud.learn.memory). The plain one is measured with that setting, which
makes it faster, and without it, which makes it smaller; each goal is held against the better of the two.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import goal, report
from popcloud import native
from popcloud.learn.backbones import build
from popcloud.learn.binarizers import SteSign
from popcloud.learn.layers import initialise

BATCH, POINTS, CLASSES = 32, 1024, 40
ROUNDS, STEPS = 4, 6
THREADS = 2


class PlainBiPointNet(nn.Module):
    """Vanilla BiPointNet (LSR, EMA-max) as one would write it: signs, linear, batch norm, hardtanh, max over points."""

    def __init__(self, ours: nn.Module):
        super().__init__()
        self.layers = nn.ModuleDict(
            {name: getattr(ours, name) for name in ("conv1", "conv2", "conv3", "fc1", "fc2", "classifier")}
        )
        self.norms = nn.ModuleDict(
            {name: nn.BatchNorm1d(layer.outputs) for name, layer in self.layers.items() if layer.norm is not None}
        )

    def _product(self, name: str, x: Tensor) -> Tensor:
        """Return linear and batch norm of x (R, inputs)."""
        layer = self.layers[name]
        if layer.binarizer is None:
            z = nn.functional.linear(x, layer.weight, layer.bias)
        elif name == "conv3":  # scaled after the sum, so that equal sums stay equal and the first row wins a tie
            z = nn.functional.linear(SteSign.apply(x), layer.binarizer.weight_signs(layer.weight))
            z = z * layer.binarizer.alpha
        else:
            weight = layer.binarizer.weight_signs(layer.weight) * layer.binarizer.alpha
            z = nn.functional.linear(SteSign.apply(x), weight)
        return self.norms[name](z) if name in self.norms else z

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, 3) -> logits (B, classes)."""
        clouds, points = x.shape[:2]
        x = nn.functional.hardtanh(self._product("conv1", x.reshape(-1, 3)))
        x = nn.functional.hardtanh(self._product("conv2", x))
        x = self._product("conv3", x).view(clouds, points, -1).max(dim=1).values + self.layers["conv3"].delta
        x = nn.functional.hardtanh(self._product("fc1", x))
        x = nn.functional.hardtanh(self._product("fc2", x))
        return self._product("classifier", x)


def networks(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Return ours, the plain one on the same weights, a batch and its labels."""
    torch.manual_seed(0)
    ours = build("pointnet_vanilla", classes=CLASSES, binarizer="lsr", pool="ema-max", points=POINTS).to(dtype)
    x, y = torch.randn(BATCH, POINTS, 3, dtype=dtype), torch.randint(0, CLASSES, (BATCH,))
    initialise(ours, x)
    return ours.train(), PlainBiPointNet(ours).to(dtype).train(), x, y


def resident() -> int:
    """Return the bytes that this process has in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def worker(which: str) -> None:
    """Take the steps of one formulation; print seconds per step and bytes of peak memory as JSON."""
    import time

    from popcloud.learn.memory import keep_freed_memory

    torch.set_num_threads(THREADS)
    ours, plain, x, y = networks()
    model = ours if which == "popcloud" else plain
    if which != "plain":
        keep_freed_memory()
    native.engine()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    start = resident()
    step(x[:4, :32], y[:4])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        step(x, y)
        seconds.append(time.perf_counter() - began)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = {"peak_bytes": 1024 * most - start, "peak_rise_bytes": 1024 * (most - before)}
    print(json.dumps({"seconds": seconds[1:], **answer}))


def run() -> dict[str, Any]:
    """Return the report."""
    difference = _gradients_differ()
    assert difference < 1e-9, difference
    seconds: dict[str, list[float]] = {"plain": [], "plain, keeping memory": [], "popcloud": []}
    peak: dict[str, int] = {}
    later: dict[str, int] = {}
    for _ in range(ROUNDS):
        for which, spent in seconds.items():
            command = [sys.executable, str(Path(__file__)), which]
            environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
            answer = json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
            spent += answer["seconds"]
            peak[which] = max(peak.get(which, 0), answer["peak_bytes"])
            later[which] = max(later.get(which, 0), answer["peak_rise_bytes"])
    ms = {which: round(1e3 * float(np.median(spent)), 2) for which, spent in seconds.items()}
    fastest, smallest = (min(row[w] for w in ms if w != "popcloud") for row in (ms, peak))
    goals = [
        goal("times faster than plain", fastest / ms["popcloud"], 3),
        goal("share of plain's peak memory", peak["popcloud"] / smallest, 0.2, at_least=False),
    ]
    measured = {
        "step_median_ms": ms,
        "peak_bytes": peak,
        "peak_rise_bytes": later,
        "threads": THREADS,
        "largest_gradient_difference_float64": difference,
    }
    return report("training", measured, goals)


def _gradients_differ() -> float:
    """Return the largest difference of any gradient, relative to the largest gradient of that tensor, in float64."""
    ours, plain, x, y = networks(torch.float64)
    gradients = []
    for model in (ours, plain):
        loss = nn.functional.cross_entropy(model(x[:4, :128]), y[:4])
        weights = [layer.weight for layer in plain.layers.values()]
        gradients.append(torch.autograd.grad(loss, weights))
    pairs = zip(*gradients, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs)


if __name__ == "__main__":
    worker(sys.argv[1])
