"""The folder of a run: what marks it as one, and what is written at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from popcloud.errors import CheckpointError, FileError
from popcloud.learn import checkpoint

RECIPE, RESULT = "recipe.json", "result.json"


def open_folder(out: Path, recipe: BaseModel, resume: bool) -> None:
    """Make the folder a run's before any time is spent; with `resume` see that it is one.

    Raises FileError if it can't be written or has a run already, CheckpointError if there is nothing to resume.
    """
    marker = out / RECIPE
    try:
        saved, marked = (out / checkpoint.LAST).is_file(), marker.is_file()
        if saved and not resume:
            raise FileError(f"{out}: has a run already; resume it, or choose another folder")
        if resume and not (saved or marked):
            raise CheckpointError(f"{out}: no run to resume; start one, or check the path")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: can't be written ({error.strerror}); choose another folder") from error
    if not saved:  # also for a run that ended before its first save, for want of its data set: nothing is lost
        write_json(marker, recipe.model_dump(mode="json"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON, in one step."""
    checkpoint.write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())
