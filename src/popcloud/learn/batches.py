"""Which clouds a step sees: the validation split, the order of an epoch, the chance of a batch.

Everything here is a function of the recipe's seeds and of (epoch, batch) alone, so a resumed run sees what the
uninterrupted one would have seen, and no generator's state has to be saved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import CloudSet

Rows = NDArray[np.int64]

# First word of each seed: SeedSequence pads with zeros, so without it (seed, epoch) would equal (seed, epoch, 0).
_SPLIT, _ORDER, _AUGMENT = 1, 2, 3


def split(clouds: CloudSet, share: float, seed: int) -> tuple[CloudSet, CloudSet]:
    """Carve a validation set from a training set: (the rest, the validation set), both in the given order.

    Each class gives round(share * its clouds), at least one if it has two; a share of 0 gives an empty set.
    """
    rng = np.random.default_rng([_SPLIT, seed])
    chosen = np.zeros(len(clouds), dtype=bool)
    for label in range(len(clouds.classes)):
        rows = rng.permutation(np.flatnonzero(clouds.labels == label))
        chosen[rows[: _taken(len(rows), share)]] = True
    return clouds.subset(np.flatnonzero(~chosen)), clouds.subset(np.flatnonzero(chosen))


def _taken(count: int, share: float) -> int:
    """Return how many of a class's clouds go to validation: never its last one."""
    if share == 0 or count < 2:
        return 0
    return min(max(round(share * count), 1), count - 1)


def order(clouds: int, batch: int, seed: int, epoch: int) -> list[Rows]:
    """Return the rows of each batch of an epoch: a permutation of 0 .. clouds - 1, cut every `batch`.

    A last batch of a single cloud is left out: batch norm has no variance over one cloud's pooled features.
    """
    rows = np.random.default_rng([_ORDER, seed, epoch]).permutation(clouds)
    cut = [rows[start : start + batch] for start in range(0, clouds, batch)]
    return cut[:-1] if len(cut[-1]) < 2 else cut


def augment_rng(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Return the generator that augments batch `batch` of epoch `epoch`."""
    return np.random.default_rng([_AUGMENT, seed, epoch, batch])
