"""Measure one case: `python benchmarks/run.py gemm [--json] [--save]`. Every case checks its answers, then times.

--json  print one JSON object: machine, measurements, goals (name, value, goal, met)
--save  also append it to benchmarks/results/<processor family>.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from cases import (
    backbones,
    gemm,
    geometry,
    kernel_map,
    neighbours,
    pointnet,
    scale,
    sizes,
    sparse,
    sparse_conv,
    startup,
    training,
    unet,
)
from harness import ROOT, machine, text

CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "gemm": gemm.run,
    "pointnet": pointnet.run,
    "backbones": backbones.run,
    "training": training.run,
    "sparse": sparse.run,
    "sparse-conv": sparse_conv.run,
    "unet": unet.run,
    "scale": scale.run,
    "sizes": sizes.run,
    "geometry": geometry.run,
    "kernel-map": kernel_map.run,
    "neighbours": neighbours.run,
    "startup": startup.run,
}


def main(argv: list[str] | None = None) -> int:
    """Run a case and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--save", action="store_true", help="append the JSON to benchmarks/results/")
    arguments = parser.parse_args(argv)
    result = CASES[arguments.case]()
    print(json.dumps(result) if arguments.json else text(result))
    if arguments.save:
        name = "".join(c if c.isalnum() else "-" for c in machine()["processor"].lower()).strip("-")
        path = ROOT / "benchmarks" / "results" / f"{name}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(f"appended to {path.relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
