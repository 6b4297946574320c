"""Searches of batches are those of each cloud, whoever does them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from popcloud import native
from popcloud.errors import CloudError
from popcloud.geometry import neighbors
from popcloud.learn import searches

CLOUDS = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0))
FEATURES = torch.randn(2, 20, 70, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[True, False], ids=["engine", "numpy"])
def there(request, monkeypatch):
    if request.param and not native.available():
        pytest.skip("the engine was not built")
    monkeypatch.setattr(native, "available", lambda: request.param)


def each(search, *arrays):
    return np.stack([search(*one) for one in zip(*(array.numpy() for array in arrays), strict=True)])


@pytest.mark.usefixtures("there")
def test_each_cloud_is_searched_by_itself():
    few = CLOUDS[:, :6]
    assert np.array_equal(searches.farthest_points(CLOUDS, 5), each(lambda x: neighbors.farthest_points(x, 5), CLOUDS))
    expected = each(lambda q, x: neighbors.nearest(q, x, 3, 2), few, CLOUDS)
    assert np.array_equal(searches.nearest(few, CLOUDS, 3, 2), expected)
    expected = each(lambda q, x: neighbors.nearest_features(q, x, 4), FEATURES[:, :6], FEATURES)
    assert np.array_equal(searches.nearest_features(FEATURES[:, :6], FEATURES, 4), expected)
    expected = each(lambda q, x: neighbors.ball(q, x, 0.8, 4), few, CLOUDS)
    assert np.array_equal(searches.ball(few, CLOUDS, 0.8, 4), expected)
    expected = each(lambda x: neighbors.density(x, 0.8), CLOUDS)[:, :, None]
    assert np.array_equal(searches.density(CLOUDS, 0.8), expected)


@pytest.mark.usefixtures("there")
def test_nearest_by_signs_counts_those_that_differ():
    signs = FEATURES < 0
    differ = (signs[:, :, None] != signs[:, None]).sum(3)
    expected = np.argsort(differ.numpy(), axis=2, kind="stable")[:, :, :5]
    assert np.array_equal(searches.nearest_signs(FEATURES, FEATURES, 5), expected)


@pytest.mark.usefixtures("there")
def test_rows_are_integers_without_gradient():
    found = searches.nearest(CLOUDS.clone().requires_grad_(), CLOUDS, 2)
    assert found.dtype == torch.int64
    assert not found.requires_grad


@pytest.mark.usefixtures("there")
def test_a_cloud_that_is_too_small_is_an_error_of_the_cloud():
    with pytest.raises(CloudError, match="needs at least 21 points, found 20"):
        searches.nearest(CLOUDS, CLOUDS, 21)
