"""How long the run-time takes to be ready: a fresh process that imports popcloud and loads a model, without torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cases.networks import binary_pointnet
from harness import goal, report
from popcloud.packed.file import write

PROGRAM = """
import sys, time
began = time.perf_counter()
import popcloud
session = popcloud.Session(sys.argv[1])
taken = time.perf_counter() - began
assert "torch" not in sys.modules
print(taken)
"""


def run() -> dict[str, Any]:
    """Return the report: seconds inside the process, from before the import to a loaded model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pointnet.popc"
        write(binary_pointnet("pointnet").exported.program, path)
        command = [sys.executable, "-c", PROGRAM, str(path)]
        taken = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(16)]
    median = float(np.median(taken[1:]))  # the first one fills the disk cache
    goals = [goal("seconds to import and load PointNet with T-Nets", median, 0.2, at_least=False)]
    return report("startup", {"seconds": {"median": round(median, 4), "runs": len(taken) - 1}}, goals)
