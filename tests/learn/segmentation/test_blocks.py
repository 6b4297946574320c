from __future__ import annotations

import numpy as np
import pytest
import torch

from popcloud.cloud import IGNORE, BlockSet
from popcloud.geometry.blocks import FEATURES
from popcloud.learn.confusion import Metrics
from popcloud.learn.segmentation import blocks
from popcloud.learn.segmentation.recipe import BlockRecipe


def block_set(labels: list[list[int]], rooms: tuple[str, ...]) -> BlockSet:
    known = np.array(labels, dtype=np.int64)
    return BlockSet(np.zeros((*known.shape, 9), np.float32), known, rooms, ("floor", "wall", "door"), FEATURES)


def test_batches_are_blocks_as_they_are(tiny):
    recipe = tiny("blocks")
    data = blocks.load_data(recipe)
    x, labels = blocks.make_batch(recipe, data.training, np.array([2, 0]), 0, 0)
    assert np.array_equal(x.numpy(), data.training.blocks[[2, 0]])
    assert np.array_equal(labels.numpy(), data.training.labels[[2, 0]])
    assert blocks.about(data) == {"classes": ("floor", "top", "never"), "features": FEATURES}


def test_validation_rooms_are_kept_whole():
    one = block_set([[0, 1]] * 9, tuple("aabbbccde"))
    training, validation = blocks.split_rooms(one, 0.4, 0)
    assert len(set(validation.rooms)) == 2
    assert not set(training.rooms) & set(validation.rooms)
    assert len(training) + len(validation) == 9
    assert blocks.split_rooms(one, 0.4, 0)[1].rooms == validation.rooms


@pytest.mark.parametrize(("rooms", "share", "count"), [("aaa", 0.5, 0), ("ab", 0.01, 1), ("abc", 0.0, 0)])
def test_shares_of_few_rooms(rooms, share, count):
    one = block_set([[0]] * len(rooms), tuple(rooms))
    assert len(set(blocks.split_rooms(one, share, 3)[1].rooms)) == count


def test_weights_are_third_roots_of_rarity():
    one = block_set([[0] * 8 + [1], [0] * 8 + [IGNORE]], ("a", "b"))
    torch.testing.assert_close(blocks.rarity(one), torch.tensor([1.0, 16 ** (1 / 3), 0.0]))


def test_weights_are_those_of_the_loss(tiny):
    assert blocks.load_data(tiny("blocks")).weights is not None
    assert blocks.load_data(tiny("blocks", class_weights="none")).weights is None


def test_figures_by_hand_and_classes_that_never_occur_are_said():
    found = blocks.block_figures(Metrics(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])), ("floor", "wall", "door"))
    assert found["mean_iou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found["accuracy"] == pytest.approx(7 / 8)
    assert found["absent"] == ["door"]
    assert found["iou"]["door"] is None


def test_the_area_is_held_out(monkeypatch):
    asked = []

    def load(root, split, *, test_area, seed, classes, blocks):
        asked.append((split, test_area, blocks))
        return block_set([[0, 1]] * 4, tuple("abcd"))

    monkeypatch.setitem(blocks.BLOCKS, "s3dis_blocks", load)
    recipe = BlockRecipe(dataset="s3dis_blocks", area=3, train_size=7)
    blocks.load_data(recipe)
    assert asked == [("train", "Area_3", 7), ("test", "Area_3", None)]


def test_blocks_without_a_labelled_point_are_not_trained_on(monkeypatch):
    known = [[IGNORE, IGNORE], [0, IGNORE], [IGNORE, IGNORE], [1, 1]]
    monkeypatch.setitem(blocks.BLOCKS, "s3dis_blocks", lambda *_, **__: block_set(known, tuple("aabb")))
    data = blocks.load_data(BlockRecipe(dataset="s3dis_blocks", validation=0))
    assert data.training.labels.tolist() == [[0, IGNORE], [1, 1]]
    assert len(data.test) == 4  # where they change no figure
