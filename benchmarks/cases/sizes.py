"""Packed sizes of BSC-Net's four scene networks, without shifts and with, beside float32 parameters.

Each goal is the estimate that counts a bit for each weight of binary convolutions and 1x1 projections, and float32 for
the first layer, the classifiers, the real-valued 1x1 layers and batch norms, but no scales, no RPReLU, no thresholds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cases.scene_networks import SHAPES, network
from harness import goal, report
from popcloud.learn.backbones import build_scene
from popcloud.packed.file import data_offset, encode
from popcloud.packed.program import Program

ESTIMATES = {"unet_s": 18.2, "unet_h": 21.9, "fcn_s": 14.4, "fcn_h": 19.9}
VARIANTS = ("baseline", "net")
EDGE = 0.02


def run() -> dict[str, Any]:
    """Return the report; each goal is held against the larger of a network's two files."""
    measured = {name: measure(name) for name in ESTIMATES}
    goals = []
    for name, row in measured.items():
        largest = max(row[variant]["file_bytes"] for variant in VARIANTS)
        goals.append(goal(f"{name}: times smaller", row["float32_parameter_bytes"] / largest, ESTIMATES[name]))
    return report("sizes", measured, goals)


def measure(name: str) -> dict[str, Any]:
    """Return the bytes of one network's files, and of the real-valued twin's parameters."""
    classes, features = SHAPES[name]
    twin = build_scene(name, classes=classes, features=len(features), variant="real")
    floats = 4 * sum(parameter.numel() for parameter in twin.parameters())
    packed = {variant: spent(network(name, variant, EDGE).exported.program) for variant in VARIANTS}
    return {"float32_parameter_bytes": floats, **packed}


def spent(program: Program) -> dict[str, Any]:
    """Return a file's bytes, and what takes them: header, tables and text, and blobs by op and name."""
    blobs: Counter[str] = Counter()
    for step in program.steps:
        for name, blob in step.blobs.items():
            blobs[f"{step.op.name} {name}"] += blob.nbytes
    return {"file_bytes": len(encode(program)), "tables": data_offset(program), "blobs": dict(blobs.most_common())}
