from __future__ import annotations

import numpy as np
import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn.columns import Concat, Pool, Slice
from popcloud.learn.layers import ema_delta


def test_slice_takes_its_columns():
    x = torch.arange(24.0).view(2, 3, 4)
    assert torch.equal(Slice(1, 2)(x), x[:, :, 1:3])


def test_concat_repeats_the_row_of_a_cloud():
    points, cloud = torch.randn(2, 3, 4), torch.randn(2, 5)
    joined = Concat()(cloud, points, points)
    assert joined.shape == (2, 3, 13)
    assert all(
        torch.equal(joined[:, point], torch.cat([cloud, points[:, point], points[:, point]], 1)) for point in range(3)
    )


@pytest.mark.parametrize("pool", ["max", "ema-max"])
def test_a_maximum_is_that_of_rows_shifted_by_delta(pool):
    x = torch.randn(2, 10, 4)
    expected = x.max(dim=1).values + (ema_delta(10) if pool == "ema-max" else 0)
    assert torch.equal(Pool(pool, 10)(x), expected)


@pytest.mark.parametrize("pool", ["mean", "ema-mean"])
def test_a_mean_in_eval_mode_sums_rows_in_order_in_float64(pool):
    x = torch.randn(2, 1000, 4) * torch.logspace(-6, 6, 1000)[:, None]
    total = np.add.accumulate(x.double().numpy(), axis=1)[:, -1]
    assert np.array_equal(Pool(pool, 10).eval()(x).numpy(), (total / 1000).astype(np.float32))
    torch.testing.assert_close(Pool(pool, 10)(x), Pool(pool, 10).eval()(x), rtol=1e-4, atol=1e-2)


def test_an_unknown_pool_is_refused():
    with pytest.raises(RecipeError, match="unknown pool 'median'"):
        Pool("median", 10)
