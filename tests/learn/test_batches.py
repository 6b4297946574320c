from __future__ import annotations

import numpy as np
import pytest

from popcloud.cloud import CloudSet
from popcloud.learn.batches import augment_rng, order, split


def numbered(labels: list[int], classes: int) -> CloudSet:
    """Clouds of one point whose x is their number."""
    xyz = np.zeros((len(labels), 1, 3), dtype=np.float32)
    xyz[:, 0, 0] = np.arange(len(labels))
    return CloudSet(xyz, np.array(labels, dtype=np.int64), tuple("abcdefg"[:classes]))


def numbers(clouds: CloudSet) -> list[int]:
    return [int(x) for x in clouds.xyz[:, 0, 0]]


def test_split_takes_a_share_of_each_class():
    clouds = numbered([0] * 40 + [1] * 20 + [2] * 3 + [3], 4)
    training, validation = split(clouds, 0.1, seed=0)
    assert np.bincount(validation.labels, minlength=4).tolist() == [4, 2, 1, 0]
    assert sorted(numbers(training) + numbers(validation)) == list(range(64))
    assert numbers(training) == sorted(numbers(training))


def test_split_is_fixed_by_its_seed():
    clouds = numbered([0, 1] * 50, 2)
    assert numbers(split(clouds, 0.2, 3)[1]) == numbers(split(clouds, 0.2, 3)[1])
    assert numbers(split(clouds, 0.2, 3)[1]) != numbers(split(clouds, 0.2, 4)[1])


def test_no_share_gives_an_empty_validation_set():
    training, validation = split(numbered([0, 1], 2), 0.0, 0)
    assert (len(training), len(validation)) == (2, 0)


def test_no_class_gives_its_last_cloud():
    training, _ = split(numbered([0, 0, 1, 1], 2), 0.5, 0)
    assert np.bincount(training.labels).tolist() == [1, 1]


@pytest.mark.parametrize("clouds", [2, 7, 8, 9, 10, 16])
def test_order_visits_each_cloud_once(clouds):
    seen = np.concatenate(order(clouds, 4, seed=0, epoch=0)).tolist()
    dropped = 1 if clouds % 4 == 1 else 0
    assert len(set(seen)) == len(seen) == clouds - dropped
    assert set(seen) <= set(range(clouds))


def test_order_depends_on_seed_and_epoch():
    def flat(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(np.concatenate(order(64, 8, seed, epoch)))

    assert flat(0, 0) == flat(0, 0)
    assert len({flat(0, 0), flat(0, 1), flat(1, 0), flat(1, 1)}) == 4


def test_each_batch_has_its_own_chance():
    first = [float(augment_rng(0, epoch, batch).random()) for epoch in range(4) for batch in range(4)]
    assert len(set(first)) == 16
    assert first[0] == float(augment_rng(0, 0, 0).random())
