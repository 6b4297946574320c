"""Binary matrix products: each kernel table against float32 torch.nn.functional.linear, one thread, one run.

Shapes are those of our own networks. `threshold` is the product with threshold and packing of the next layer's input
fused in, `pooled` the product with the maximum over points fused in. GMAC/s counts binary multiply-adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness import goal, interleave, report, unmeasured
from popcloud import native

SHAPES = {64: 128, 128: 1024, 256: 512, 1024: 512}  # inputs K -> output channels
ROWS = 1024


def run() -> dict[str, Any]:
    """Return the report."""
    torch.set_num_threads(1)
    measured = {f"K={inputs}": _shape(inputs, channels) for inputs, channels in SHAPES.items()}
    return report("gemm", measured, _goals(measured))


def _shape(inputs: int, channels: int) -> dict[str, Any]:
    engine, rng = native.engine(), np.random.default_rng(inputs)
    x = rng.choice(np.float32([-1, 1]), (ROWS, inputs))
    w = rng.choice(np.float32([-1, 1]), (channels, inputs))
    zeros = np.zeros(inputs, np.float32)
    x_bits, w_bits = engine.pack(x, zeros), np.ascontiguousarray(engine.pack(w, zeros).T)
    limit = np.full(channels, inputs // 2, np.int32)
    cloud = x_bits[None]
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    calls = {"torch float32": lambda: torch.nn.functional.linear(tx, tw)}
    for name in engine.available():
        matrix = engine.Matrix(w_bits, inputs, name)
        _check(matrix, x_bits, x, w, limit)
        calls[f"{name} threshold"] = lambda matrix=matrix: matrix.threshold(x_bits, limit)
        calls[f"{name} pooled"] = lambda matrix=matrix: matrix.pooled_minimum(cloud)
    with torch.inference_mode():
        timings = interleave(calls)
    work = ROWS * inputs * channels
    shape = {"rows": ROWS, "inputs": inputs, "channels": channels}
    rates = {name: {**t.record(), "gmac_per_s": round(work / t.median / 1e6, 1)} for name, t in timings.items()}
    return {"shape": shape, **rates}


def _check(matrix: Any, x_bits: Any, x: Any, w: Any, limit: Any) -> None:
    """Compare a table's answers with the float product, which is exact for signs."""
    mismatches = ((x.shape[1] - x @ w.T) / 2).astype(np.int32)
    below = np.packbits(mismatches > limit, axis=1, bitorder="little")
    assert np.array_equal(matrix.mismatches(x_bits), mismatches)
    assert np.array_equal(matrix.threshold(x_bits, limit).view(np.uint8)[:, : below.shape[1]], below)
    least, where = matrix.pooled_minimum(x_bits[None])
    assert np.array_equal(least[0], mismatches.min(0))
    assert np.array_equal(where[0], mismatches.argmin(0))


def _goals(measured: dict[str, Any]) -> list[dict[str, Any]]:
    available, goals = native.engine().available(), []
    for label, row in measured.items():
        if "avx2" in available:
            goals.append(goal(f"avx2 GMAC/s, {label}", row["avx2 threshold"]["gmac_per_s"], 250))
        if row["shape"]["inputs"] < 128:
            continue
        if "avx512" not in available:
            goals.append(unmeasured(f"avx512 GMAC/s, {label}", 1000, "this processor has no AVX-512 VPOPCNTDQ"))
            continue
        fast, slow = row["avx512 threshold"], row["torch float32"]
        goals.append(goal(f"avx512 GMAC/s, {label}", fast["gmac_per_s"], 1000))
        goals.append(goal(f"avx512 times float32, {label}", slow["median_ms"] / fast["median_ms"], 20))
    return goals
