from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from popcloud.cloud import IGNORE
from popcloud.errors import RecipeError
from popcloud.learn.scenes.losses import class_weights, cross_entropy

LABELS = torch.tensor([0, IGNORE, 2, 1, IGNORE])


@pytest.fixture
def logits():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
def test_cross_entropy_is_the_weighted_mean_over_labelled_rows(logits, weights, smoothing):
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    known = LABELS != IGNORE
    expected = F.cross_entropy(logits[known], LABELS[known], weight=w, label_smoothing=smoothing)
    assert cross_entropy(logits, LABELS, w, smoothing).item() == pytest.approx(expected.item())


def test_unlabelled_rows_get_no_gradient(logits):
    cross_entropy(logits, LABELS).backward()
    assert logits.grad[LABELS == IGNORE].abs().max() == 0
    assert logits.grad[LABELS != IGNORE].abs().min() > 0


def test_no_labelled_row_gives_zero_and_not_nan(logits):
    loss = cross_entropy(logits, torch.full((5,), IGNORE), torch.ones(3, dtype=torch.float64), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_rows_without_weight_give_zero_also_where_it_is_smoothed(logits):
    loss = cross_entropy(logits, torch.zeros(5, dtype=torch.int64), torch.tensor([0.0, 1, 1], dtype=torch.float64), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_balanced_weights_make_all_classes_weigh_the_same():
    counts = np.array([60, 30, 10, 0])
    weights = class_weights("balanced", counts)
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights.numpy() * counts, [100 / 3] * 3 + [0], rtol=1e-6)


def test_weights_may_be_given_or_equal():
    assert class_weights("none", np.array([1, 2])) is None
    assert class_weights((0.5, 2.0), np.array([1, 2])).tolist() == [0.5, 2.0]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0), (-1.0, 1.0), (0.0, 0.0)])
def test_weights_that_do_not_fit_the_classes_are_refused(weights):
    with pytest.raises(RecipeError, match="expected 2 numbers >= 0, not all 0"):
        class_weights(weights, np.array([1, 2]))
