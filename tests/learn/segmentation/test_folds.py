from __future__ import annotations

import json

import numpy as np
import pytest

from popcloud.errors import CheckpointError
from popcloud.learn.segmentation.folds import six_folds


@pytest.fixture
def runs(tmp_path, rng):
    """Six results, and the sum of their confusion matrices."""
    folders, total = [], np.zeros((2, 2), dtype=np.int64)
    for area in (3, 1, 2, 6, 5, 4):
        confusion = rng.integers(0, 50, (2, 2))
        total += confusion
        folder = tmp_path / f"area_{area}"
        folder.mkdir()
        recipe = {"task": "blocks", "area": area, "seed": area, "lr": 0.001}
        result = {"test_confusion": confusion.tolist(), "test_iou": {"floor": 0.5, "wall": 0.5}}
        (folder / "result.json").write_text(json.dumps({"recipe": recipe, "result": result}))
        folders.append(folder)
    return folders, total


def test_counts_are_summed_before_they_are_divided(runs):
    folders, total = runs
    found = six_folds(folders)
    union = total.sum(0) + total.sum(1) - np.diag(total)
    assert found["mean_iou"] == pytest.approx(float(np.mean(np.diag(total) / union)))
    assert found["accuracy"] == pytest.approx(np.trace(total) / total.sum())
    assert found["confusion"] == total.tolist()


def test_an_area_that_is_missing_or_twice_there_is_refused(runs):
    folders, _ = runs
    with pytest.raises(CheckpointError, match=r"expected a run for each area .* found \[1, 2, 3, 5, 6\]"):
        six_folds(folders[:-1])
    with pytest.raises(CheckpointError, match="train the others"):
        six_folds([*folders[:-1], folders[0]])


def test_runs_of_other_recipes_are_refused(runs):
    folders, _ = runs
    path = folders[2] / "result.json"
    text = json.loads(path.read_text())
    text["recipe"]["lr"] = 0.1
    path.write_text(json.dumps(text))
    with pytest.raises(CheckpointError, match="other lr than"):
        six_folds(folders)


def test_a_run_that_is_not_finished_is_refused(runs):
    folders, _ = runs
    (folders[0] / "result.json").unlink()
    with pytest.raises(CheckpointError, match="no result of a finished run"):
        six_folds(folders)
