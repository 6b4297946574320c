"""The functions of benchmarks/quantisation_error.py."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from popcloud.learn.shifted import ALL
from sites import dense
from surfaces import pyramid_of, scattered

CENTRE = ALL.index((0, 0, 0))


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield importlib.import_module("quantisation_error")
        torch.set_num_threads(threads)


def test_the_error_is_that_of_the_best_multiple(script, rng):
    y, d = torch.from_numpy(rng.standard_normal((2, 50, 3)))
    alpha = torch.cat([torch.linalg.lstsq(d[:, [c]], y[:, [c]]).solution for c in range(3)]).T
    torch.testing.assert_close(script.relative_error(y, d), (y - alpha * d).square().sum(0) / y.square().sum(0))


def test_the_error_of_a_multiple_is_zero(script, rng):
    y = torch.from_numpy(rng.standard_normal((50, 3)))
    torch.testing.assert_close(script.relative_error(y, -2 * y), torch.zeros(3, dtype=torch.float64))


def test_independent_normal_terms_lose_the_known_share(script, rng):
    # cos of the angle between a sum of products and that of their signs: E|x| E|w| = 2 / pi, for any number of terms.
    x, w = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((4000, 300), (300, 20)))
    error = script.relative_error(x @ w, x.sign() @ w.sign()).mean()
    assert float(error) == pytest.approx(1 - (2 / math.pi) ** 2, abs=0.02)


@pytest.mark.parametrize("pattern", ["scattered", "blobs", "surfaces"])
def test_patterns_occupy_the_share(script, rng, pattern):
    assert script.occupied(rng, pattern, 0.2, 12).mean() == pytest.approx(0.2, abs=0.01)


def test_surfaces_touch_more_than_scattered_cells(script, rng):
    grids = [script.occupied(rng, pattern, 0.1, 20) for pattern in ("scattered", "surfaces")]
    alone, together = ((grid & np.roll(grid, 1, 0)).sum() for grid in grids)
    assert together > 2 * alone


def test_smoothed_features_are_alike_side_by_side(script, rng):
    field = script.smooth(rng, 16, 4, 1.0)
    np.testing.assert_allclose(field.std((0, 1, 2)), 1)
    assert np.mean(field * np.roll(field, 1, 0)) > 0.5


def test_common_weights_are_those_of_all_offsets(script, rng):
    weight = script.kernels(rng, 3, 5, 1.0)
    assert torch.equal(weight[0], weight[26])


def products(script, rng, groups=2):
    at = pyramid_of(scattered(rng), levels=1, size=5)
    x = torch.from_numpy(rng.standard_normal((at.sites(0), 4))).float()
    weight = torch.from_numpy(rng.standard_normal((27, 4, 2 * groups))).float()
    return x, weight, at, script.Products.of(x, weight, at, 0)


def test_products_give_the_error_of_every_shift(script, rng):
    x, weight, at, found = products(script, rng)
    for row in (0, CENTRE, 26):
        y, d = script.both(x, weight, at.window(0, ALL[row]))
        torch.testing.assert_close(found.errors()[:, row], script.relative_error(y, d), rtol=1e-4, atol=1e-5)


def test_no_shift_beats_the_best(script, rng):
    *_, found = products(script, rng)
    assert found.at(found.best(2)) <= min(found.at([s, t]) for s in range(27) for t in range(27)) + 1e-12


@pytest.mark.parametrize("choose", ["best", "searched"])
def test_a_planted_shift_is_found(script, choose):
    # Every shift's two sums are at right angles, and so lose all, but for one shift in each group, which loses nothing.
    own = torch.eye(27, dtype=torch.float64).repeat(2, 1, 1)
    yd = torch.zeros_like(own)
    yd[0, 3, 3] = yd[1, 20, 20] = 1
    assert getattr(script.Products(own, yd, own), choose)(2) == [3, 20]


def test_empty_cells_take_the_nearest_site(script):
    sites = np.array([[0, 0, 0], [5, 0, 0]], np.int32)
    cells, values, own = script.filled(sites, torch.tensor([[1.0], [2.0]]))
    assert len(cells) == 2 * 27
    assert cells[own.numpy()].tolist() == sites.tolist()
    assert torch.equal(values[:, 0], torch.from_numpy(np.where(cells[:, 0] < 3, 1.0, 2.0)).float())


def test_filling_what_is_dense_changes_nothing_inside(script, rng):
    sites = dense(4)
    cells, values, own = script.filled(sites, torch.arange(64.0)[:, None])
    assert len(cells) == 6**3
    assert torch.equal(values[own, 0], torch.arange(64.0))
