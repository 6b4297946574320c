"""Every backbone, one cloud of 1,024 points, one thread: the engine on the binary network against PyTorch in float32.

PyTorch runs the real-valued network of the same architecture in its best mode: batch norm folded, what is linear
computed once per point before it is gathered, inference mode, one thread; with its own operations for searches, and
once more with the engine's searches, so that the networks can be compared without them. In the same run: the engine on
the real-valued program, and which share of the binary network's time the searches take.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cases.networks import clouds, trained
from cases.torch_points import SEARCHES, TorchFloat
from harness import goal, interleave, report
from popcloud import native
from popcloud.learn.backbones import BACKBONES
from popcloud.packed.file import write
from popcloud.packed.program import Op, Program

CLOUDS = 16
STEPS = 4  # of training before: those of networks on neighbourhoods take seconds each
SEARCHING = SEARCHES | {Op.NEAREST_SIGNS, Op.DENSITY}
TIMES = 10  # goal: times PyTorch
AGREEING = 0.8  # of clouds whose class must be PyTorch's: its searches round otherwise, and ties fall otherwise


def run() -> dict[str, Any]:
    """Return the report."""
    torch.set_num_threads(1)
    measured: dict[str, Any] = {}
    for backbone in BACKBONES:
        with tempfile.TemporaryDirectory() as folder:
            measured[backbone] = _backbone(backbone, Path(folder))
    goals = [goal(f"{name}: times torch", _ratio(row, "torch float32"), TIMES) for name, row in measured.items()]
    return report("backbones", measured, goals)


def _ratio(row: dict[str, Any], peer: str) -> float:
    times = row["times"]
    return float(times[peer]["median_ms"] / times["engine"]["median_ms"])


@torch.inference_mode()
def _backbone(backbone: str, folder: Path) -> dict[str, Any]:
    with torch.inference_mode(False):
        binary, real = trained(backbone, "lsr", "ema-max", STEPS), trained(backbone, "real", "max", STEPS)
    write(binary.exported.program, folder / "binary.popc")
    write(real.exported.program, folder / "real.popc")
    engine, floats = (native.engine().Engine(folder / f"{name}.popc", None, 1) for name in ("binary", "real"))
    peers = {
        "torch float32": TorchFloat(real.exported.program),
        "torch float32, the engine's searches": TorchFloat(real.exported.program, own_searches=False),
    }
    test = clouds(CLOUDS)
    _check(engine, floats, binary.model, peers, test)
    calls = {"engine": _over(test.numpy(), lambda x: engine.run([x]))}
    calls["engine float32"] = _over(test.numpy(), lambda x: floats.run([x]))
    calls |= {name: _over(list(test), peer) for name, peer in peers.items()}
    timings = interleave(calls, seconds=10)
    record = {"times": {name: timing.record() for name, timing in timings.items()}}
    record["times_torch"] = round(_ratio(record, "torch float32"), 2)
    record["times_torch_with_our_searches"] = round(_ratio(record, "torch float32, the engine's searches"), 2)
    record["share_of_searches"] = _share(engine, binary.exported.program, test.numpy())
    parameters = 4 * sum(p.numel() for p in real.model.parameters())
    record["times_smaller"] = round(parameters / (folder / "binary.popc").stat().st_size, 2)
    return record


def _over(inputs: Any, call: Any) -> Any:
    """Return a call that takes the next input each time."""
    state = {"at": 0}

    def once(state: dict[str, int] = state) -> object:
        state["at"] = (state["at"] + 1) % len(inputs)
        return call(inputs[state["at"]])

    return once


def _check(engine: Any, floats: Any, model: Any, peers: dict[str, TorchFloat], test: torch.Tensor) -> None:
    """Same answers before any timing: the engine as PyTorch's binary network, the peers as the real-valued program."""
    want = model(test).numpy()
    got = engine.run(list(test.numpy()))
    assert np.array_equal(got.argmax(1), want.argmax(1)), "engine"
    real = floats.run(list(test.numpy()))
    for name, peer in peers.items():
        answers = torch.cat([peer(x) for x in test]).numpy()
        same = np.isclose(answers, real, rtol=1e-2, atol=1e-2 * max(1, np.abs(real).max())).all(axis=1)
        assert same.mean() >= AGREEING, (name, same.mean())


def _share(engine: Any, program: Program, test: Any) -> float:
    """Return the searches' share of the time of a cloud, steps measured one by one."""
    spent = np.sum([engine.profile(cloud) for cloud in test], axis=0)
    searching = np.array([step.op in SEARCHING for step in program.steps])
    return round(float(spent[searching].sum() / spent.sum()), 4)
