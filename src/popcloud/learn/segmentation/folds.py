"""The six-fold protocol of S3DIS: each area is held out once, and the counts of all six are one confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from popcloud.errors import CheckpointError
from popcloud.learn.confusion import Metrics
from popcloud.learn.folder import RESULT
from popcloud.learn.segmentation.blocks import block_figures

AREAS = (1, 2, 3, 4, 5, 6)


def six_folds(runs: Sequence[str | Path]) -> dict[str, Any]:
    """Return the figures over the test points of six finished runs together, as blocks.block_figures has them.

    runs  folders, one for each area held out, in any order, of recipes that differ in `area` and `seed` alone
    Intersections and unions are summed, then divided. Raises CheckpointError for runs that make no six folds.
    """
    results = [_read(Path(run) / RESULT) for run in runs]
    areas = sorted(result["recipe"]["area"] for result in results)
    if areas != list(AREAS):
        raise CheckpointError(f"six folds: expected a run for each area {list(AREAS)}, found {areas}; train the others")
    for run, result in zip(runs, results, strict=True):
        changed = [n for n, v in result["recipe"].items() if n not in ("area", "seed") and v != results[0]["recipe"][n]]
        if changed:
            raise CheckpointError(f"{run}: other {', '.join(changed)} than {runs[0]}; six folds are of one recipe")
    total = np.sum([result["result"]["test_confusion"] for result in results], axis=0)
    return block_figures(Metrics(total.astype(np.int64)), tuple(results[0]["result"]["test_iou"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no result of a finished run; train it, or check the path") from error
    if result["recipe"].get("task") != "blocks":
        raise CheckpointError(f"{path}: expected a run of task blocks, found {result['recipe'].get('task')}")
    return result
