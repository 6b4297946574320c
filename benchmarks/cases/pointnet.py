"""Whole PointNets, one cloud of 1,024 points, one thread: the engine against torch and ONNX Runtime in float32.

The peers run the real-valued network of the same architecture in their best mode: batch norm folded into the linear
layers, ReLU, max pool, inference mode, one thread. The engine runs the binary network. In the same run: torch with
batch norm as it was trained, which is what evaluating a PyTorch checkpoint costs; the engine on the real-valued
program (the honest baseline on the same engine); and the engine without its two exact shortcuts.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from cases.networks import POINTS, FoldedFloat, Network, Unfolded, binary_pointnet, clouds, float_pointnet
from harness import goal, interleave, report
from popcloud import native
from popcloud.packed.file import write
from popcloud.packed.program import Kind, Op, Program, Rows

CLOUDS = 16  # timed in turn: the shortcuts depend on the cloud
GOALS = {  # backbone: (times ONNX Runtime, times torch, times smaller than float32 parameters)
    "pointnet": (20, 40, 24),
    "pointnet_vanilla": (15, None, 19),
}


def run() -> dict[str, Any]:
    """Return the report."""
    torch.set_num_threads(1)
    measured: dict[str, Any] = {}
    goals: list[dict[str, Any]] = []
    for backbone, targets in GOALS.items():
        with tempfile.TemporaryDirectory() as folder:
            measured[backbone] = _backbone(backbone, Path(folder))
        goals += _goals(backbone, measured[backbone], targets)
    return report("pointnet", measured, goals)


def _backbone(backbone: str, folder: Path) -> dict[str, Any]:
    binary, real = binary_pointnet(backbone), float_pointnet(backbone)
    write(binary.exported.program, folder / "binary.popc")
    write(real.exported.program, folder / "real.popc")
    make = native.engine().Engine
    engines = {
        "engine": make(folder / "binary.popc", None, 1),
        "engine without shortcuts": make(folder / "binary.popc", None, 1, unique_rows=False, early_exit=False),
        "engine float32": make(folder / "real.popc", None, 1),
    }
    plain = FoldedFloat(real.exported.program).eval()
    session, feed = _onnx(plain)
    test = clouds(CLOUDS)
    _check(engines, binary, real, plain, session, test)
    calls = {name: _over(test.numpy(), lambda x, e=engine: e.run([x])) for name, engine in engines.items()}
    calls["torch float32"] = _over(list(test), plain)
    calls["torch float32, batch norm not folded"] = _over(list(test), Unfolded(real.model))
    calls["onnxruntime float32"] = _over(test.numpy(), lambda x: session.run(None, {feed: x}))
    with torch.inference_mode():
        timings = interleave(calls, seconds=12)
    parameters = 4 * sum(p.numel() for p in real.model.parameters())
    size = (folder / "binary.popc").stat().st_size
    return {
        "times": {name: timing.record() for name, timing in timings.items()},
        "share_of_time": _shares(engines["engine"], binary.exported.program, test[0].numpy()),
        "float32_parameter_bytes": parameters,
        "file_bytes": size,
    }


def _over(inputs: Any, call: Any) -> Any:
    """Return a call that takes the next input each time."""
    state = {"at": 0}

    def once() -> object:
        state["at"] = (state["at"] + 1) % len(inputs)
        return call(inputs[state["at"]])

    return once


def _onnx(plain: FoldedFloat) -> tuple[onnxruntime.InferenceSession, str]:
    """Return ONNX Runtime on the same network, one thread, all graph optimisations."""
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(plain, (torch.zeros(POINTS, 3),), file, input_names=["cloud"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"]), "cloud"


@torch.inference_mode()
def _check(engines: Any, binary: Network, real: Network, plain: Any, session: Any, test: torch.Tensor) -> None:
    """Same answers before any timing: the engine as PyTorch's binary network, the peers as its real-valued one."""
    want, want_real = binary.model(test).numpy(), real.model(test).numpy()
    for name in ("engine", "engine without shortcuts"):
        got = np.concatenate([engines[name].run([x]) for x in test.numpy()])
        assert np.array_equal(got.argmax(1), want.argmax(1)), name
        assert np.abs(got - want).max() < 1e-4 * max(1, np.abs(want).max()), name
    for index, x in enumerate(test):
        answers = {
            "torch": plain(x).numpy()[0],
            "torch, not folded": Unfolded(real.model)(x).numpy()[0],
            "onnxruntime": session.run(None, {"cloud": x.numpy()})[0][0],
            "engine float32": engines["engine float32"].run([x.numpy()])[0],
        }
        for name, answer in answers.items():
            assert np.abs(answer - want_real[index]).max() < 1e-3 * max(1, np.abs(want_real).max()), name


def _shares(engine: Any, program: Program, cloud: Any) -> dict[str, float]:
    """Return each layer kind's share of the time of one cloud, steps measured one by one."""
    seconds: dict[str, float] = defaultdict(float)
    for step, spent in zip(program.steps, engine.profile(cloud), strict=True):
        source = program.values[step.inputs[0]]
        where = "per point" if source.rows is Rows.POINT else "per cloud"
        kind = "binary" if source.kind is Kind.BITS else "float"
        if step.op is Op.TRANSFORM:
            kind = "transform"
        seconds[f"{kind}, {where}"] += spent
    return {kind: round(spent / sum(seconds.values()), 4) for kind, spent in seconds.items()}


def _goals(backbone: str, row: dict[str, Any], targets: tuple[float, float | None, float]) -> list[dict[str, Any]]:
    ms = {name: timing["median_ms"] for name, timing in row["times"].items()}
    over_onnx, over_torch, smaller = targets
    goals = [goal(f"{backbone}: times ONNX Runtime", ms["onnxruntime float32"] / ms["engine"], over_onnx)]
    if over_torch is not None:
        goals.append(goal(f"{backbone}: times torch", ms["torch float32"] / ms["engine"], over_torch))
    goals.append(goal(f"{backbone}: times smaller", row["float32_parameter_bytes"] / row["file_bytes"], smaller))
    return goals
