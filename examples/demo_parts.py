"""What both parts of the demo share: networks that are trained once, a proof in one line, a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from popcloud.cli import packing
from popcloud.cli.common import Source
from popcloud.errors import VerifyError
from popcloud.learn import checkpoint
from popcloud.learn.folder import RECIPE, RESULT
from popcloud.learn.progress import reporter
from popcloud.learn.tasks import AnyRecipe


def trained(
    title: str, recipe: AnyRecipe, epochs: int, folder: Path, again: bool, train: Callable[..., object]
) -> dict[str, Any]:
    """Train a network in a folder, or find it trained there; return its result as result.json has it.

    epochs  of the whole run, to be printed
    again   whether what is trained is thrown away
    train   of popcloud.learn, for recipes of this kind
    """
    state = found(folder, recipe)
    if state == "other" or (again and state != "none"):
        discard(folder)
        state = "none"
    if state == "done":
        print(f"{title}: trained already, in {folder}; --again trains it again")
    else:
        print(f"{title}: {'goes on' if state == 'begun' else 'training'}, {epochs} epochs", flush=True)
        train(recipe, folder, resume=state == "begun", progress=reporter(sys.stderr))
    result: dict[str, Any] = json.loads((folder / RESULT).read_text())["result"]
    if state != "done":
        print(f"{title}: trained in {result['seconds']:.0f} s", flush=True)
    return result


def found(folder: Path, recipe: AnyRecipe) -> str:
    """Return what is in a run's folder: "none", "other" (another recipe's), "begun", or "done"."""
    if not (folder / RECIPE).is_file():
        return "none"
    if json.loads((folder / RECIPE).read_text()) != recipe.model_dump(mode="json"):
        return "other"
    return "done" if (folder / RESULT).is_file() else "begun"


def discard(folder: Path) -> None:
    """Remove the files of a run, and nothing else."""
    stages = [path.name for path in folder.glob("best_*.safetensors")]
    for name in (RESULT, checkpoint.BEST, checkpoint.LAST, *stages, "log.jsonl", RECIPE):
        (folder / name).unlink(missing_ok=True)


def exactness(folder: Path, model: Path, clouds: int, what: str, kernels: str | None = None) -> str:
    """Return the proof that a model file answers what PyTorch answers, in one line; VerifyError if it does not.

    clouds   how many are compared; `what` they are called
    kernels  None for the engine's fastest, or as `popcloud verify --kernels` has them
    """
    proof = packing.verify(folder, model, Source(split=None, clouds=clouds), kernels)
    if proof.difference is not None:
        raise VerifyError(f"{model}: {proof.difference}")
    report = next(iter(proof.reports.values()))
    signs = sum(line.compared for line in report.lines if line.kind == "bits")
    error = max(line.error for line in report.lines)
    return (
        f"exactness: over {report.clouds} {what} all {signs:,} signs are PyTorch's, floats within {error:.0e}, "
        f"and {report.agreeing:,} of {report.answers:,} answers agree"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
