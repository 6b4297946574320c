"""Print the accuracy tables as markdown: `python benchmarks/tables.py`, from benchmarks/results/accuracy.

Of several seeds the mean is printed, with the single figures behind it.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from harness import ROOT

ACCURACY = ROOT / "benchmarks" / "results" / "accuracy"
POOLS = ("max", "ema-mean", "ema-max")
METHODS = {"real": "float32", "xnor": "XNOR-Net, 1 bit", "lsr": "BiPointNet, 1 bit"}

Run = dict[str, Any]


def table(runs: Sequence[Run], row: Callable[[Run], str], column: Callable[[Run], str], columns: Sequence[str]) -> str:
    """Return a table of test accuracies in percent, rows in the order in which they first occur."""
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        cells[row(run["recipe"])][column(run["recipe"])].append(100 * run["result"]["test"])
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_cell(found[c]) for c in columns)} |" for name, found in cells.items()]
    return "\n".join(lines)


def _cell(shares: Sequence[float]) -> str:
    if not shares:
        return ""
    each = f" ({', '.join(f'{share:.1f}' for share in shares)})" if len(shares) > 1 else ""
    return f"{sum(shares) / len(shares):.1f}{each}"


def read(name: str) -> list[Run]:
    """Return the runs of a table."""
    runs: list[Run] = json.loads((ACCURACY / f"{name}.json").read_text(encoding="utf-8"))["runs"]
    return runs


def main() -> int:
    """Print both tables."""
    print(table(read("modelnet10_binarizers"), lambda r: r["binarizer"], lambda r: r["pool"], POOLS), end="\n\n")
    runs = read("modelnet10_backbones")
    print(table(runs, lambda r: r["backbone"], lambda r: METHODS[r["binarizer"]], tuple(METHODS.values())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
