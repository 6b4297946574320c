"""Clouds: from files, from data sets, and changed for training."""

from __future__ import annotations

from collections.abc import Callable

from popcloud.cloud import CloudSet
from popcloud.data import modelnet40, shapes
from popcloud.errors import DatasetError, unknown

# Each entry: load(root, split, *, points, seed=0, classes=None, clouds=None) -> CloudSet, see shapes.load.
DATASETS: dict[str, Callable[..., CloudSet]] = {
    "shapes": shapes.load,
    "modelnet40": modelnet40.load,
}


def dataset(name: str) -> Callable[..., CloudSet]:
    """Return the loader called `name`. Raises DatasetError that lists the valid names."""
    if name not in DATASETS:
        raise DatasetError(unknown("dataset", name, DATASETS))
    return DATASETS[name]
