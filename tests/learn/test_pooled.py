"""The pooled layer's formulas against the plain formulation (linear, batch norm, pool) by autograd, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from popcloud import native
from popcloud.errors import EngineError
from popcloud.learn.pooled import LinearNormMax, _add_winners, _largest_by_engine, largest_products, linear_norm_mean

EPS = 1e-5
B, N, K, C = 3, 10, 13, 8


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def operands(random: torch.Generator, kind: str, scale: float = 1.0) -> list[torch.Tensor]:
    """x, weight, gamma, beta in float64, ready for gradients; every third gain falls, one is 0.

    Signs are scaled by a power of two, so that equal products stay equal.
    """
    x = torch.randn(B, N, K, generator=random, dtype=torch.float64)
    weight = torch.randn(C, K, generator=random, dtype=torch.float64)
    if kind == "signs":
        x, weight = torch.where(x < 0, -1.0, 1.0).double(), torch.where(weight < 0, -1.0, 1.0).double() * scale
    gamma, beta = (torch.randn(C, generator=random, dtype=torch.float64) for _ in range(2))
    gamma[::3], gamma[1] = -gamma[::3].abs(), 0
    return [t.requires_grad_() for t in (x, weight, gamma, beta)]


def plain_max(x, weight, gamma, beta):
    """linear -> batch norm -> max over the points, all (B, n, C) in memory.

    Which of several equal points wins is chosen among the bare sums, the first of them: rounding inside batch norm
    must not decide.
    """
    z = x @ weight.T
    up = torch.where(gamma < 0, -1.0, 1.0)
    rows = torch.zeros(len(x), len(weight), dtype=torch.int64)
    best = (z.detach() * up).max(1).values
    for row in range(z.shape[1] - 1, -1, -1):
        rows[(z.detach() * up)[:, row] == best] = row
    y = F.batch_norm(z.flatten(0, 1), None, None, gamma, beta, training=True, eps=EPS).view_as(z)
    return y.gather(1, rows[:, None]).squeeze(1)


def plain_mean(x, weight, gamma, beta):
    z = x @ weight.T
    return F.batch_norm(z.flatten(0, 1), None, None, gamma, beta, training=True, eps=EPS).view_as(z).mean(1)


def ours_max(x, weight, gamma, beta):
    return LinearNormMax.apply(x, weight, gamma, beta, EPS, False)[0]


def ours_mean(x, weight, gamma, beta):
    return linear_norm_mean(x, weight, gamma, beta, EPS)[0]


@pytest.mark.parametrize(("ours", "plain"), [(ours_max, plain_max), (ours_mean, plain_mean)])
@pytest.mark.parametrize("kind", ["real", "signs"])
@pytest.mark.parametrize("scale", [1.0, -0.25])
def test_output_and_gradients_are_those_of_the_plain_formulation(random, ours, plain, kind, scale):
    inputs = operands(random, kind, scale)
    found, expected = ours(*inputs), plain(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn(B, C, generator=random, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ours", [ours_max, ours_mean])
def test_gradients_are_those_of_small_differences(random, ours):
    x, weight, gamma, beta = operands(random, "real")
    gamma.data[1] = 0.5  # at 0 the winning row changes: no derivative there
    assert torch.autograd.gradcheck(ours, (x, weight, gamma, beta))


def test_signs_do_tie():
    """The tests with signs say something about ties only if there are some."""
    x, weight, *_ = operands(torch.Generator().manual_seed(7), "signs")
    z = (x @ weight.T).detach()
    assert ((z == z.max(1, keepdim=True).values).sum(1) > 1).any()


@pytest.mark.parametrize("kind", ["real", "signs"])
def test_statistics_are_the_batch_s(random, kind):
    x, weight, gamma, beta = operands(random, kind)
    z = (x @ weight.T).flatten(0, 1)
    found = LinearNormMax.apply(x, weight, gamma, beta, EPS, False), linear_norm_mean(x, weight, gamma, beta, EPS)
    for _, mean, var in found:
        torch.testing.assert_close(mean, z.mean(0).detach())
        torch.testing.assert_close(var, z.var(0, unbiased=False).detach())
        assert not mean.requires_grad
        assert not var.requires_grad


@pytest.mark.parametrize("pooled", [ours_max, ours_mean])
def test_a_channel_that_never_varies_gives_beta(random, pooled):
    _, weight, gamma, beta = operands(random, "signs")
    x = torch.ones(B, N, K, dtype=torch.float64)
    torch.testing.assert_close(pooled(x, weight, gamma, beta), beta.expand(B, C))


def test_variance_stays_exact_where_inputs_have_nearly_one_sign(random):
    x = torch.ones(8, 256, 128)
    x[0, 0, :3] = -1
    weight = torch.where(torch.randn(64, 128, generator=random) < 0, -0.07, 0.07)
    one, zero = torch.ones(64), torch.zeros(64)
    expected = (x.double() @ weight.double().T).flatten(0, 1).var(0, unbiased=False)
    for found in (LinearNormMax.apply(x, weight, one, zero, EPS, False), linear_norm_mean(x, weight, one, zero, EPS)):
        torch.testing.assert_close(found[2].double(), expected, rtol=1e-3, atol=1e-9)


def test_second_derivative_is_refused(random):
    inputs = operands(random, "real")
    first = torch.autograd.grad(ours_max(*inputs).square().sum(), inputs[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("points", [1, 2, 17])
def test_first_of_equal_rows_wins(random, points):
    x = torch.randint(-3, 4, (2, 1, K), generator=random).float().expand(2, points, K).contiguous()
    won = largest_products(x, torch.randint(-3, 4, (C, K), generator=random).float(), False)
    assert (won.rows == 0).all()
    assert won.values.shape == (2, C)


@pytest.mark.skipif(not native.available(), reason="the engine was not built")
@pytest.mark.parametrize("inputs", [1, 63, 64, 65, 128, 129])
@pytest.mark.parametrize("points", [1, 3, 100])
@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_engine_finds_the_same_values_and_rows(random, inputs, points, scale, dtype):
    x = torch.where(torch.randn(3, points, inputs, generator=random) < 0, -1.0, 1.0).to(dtype)
    weight = torch.where(torch.randn(70, inputs, generator=random) < 0, -scale, scale).to(dtype)
    x.requires_grad_(), weight.requires_grad_()
    found, expected = _largest_by_engine(x, weight), largest_products(x, weight, False)
    assert found.values.dtype == dtype
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.rows, expected.rows)


@pytest.mark.skipif(not native.available(), reason="the engine was not built")
def test_training_is_the_same_with_and_without_the_engine(random):
    inputs = [tensor.detach().float().requires_grad_() for tensor in operands(random, "signs", 0.5)]
    found, expected = (LinearNormMax.apply(*inputs, EPS, signs) for signs in (True, False))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    one, other = (torch.autograd.grad(y[0].square().sum(), inputs) for y in (found, expected))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.skipif(not native.available(), reason="the engine was not built")
@pytest.mark.parametrize(("groups", "points"), [(5, 3), (2, 100)])
def test_engine_passes_back_what_pytorch_does(random, monkeypatch, groups, points):
    x, weight = torch.randn(groups, points, K, generator=random), torch.randn(C, K, generator=random)
    rows, won = torch.randint(0, points, (groups, C), generator=random), torch.randn(groups, C, generator=random)
    found = []
    for there in (True, False):
        monkeypatch.setattr(native, "available", lambda there=there: there)
        found.append((torch.zeros_like(x), torch.zeros_like(weight)))
        _add_winners(x, weight, rows, won, *found[-1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(not native.available(), reason="the engine was not built")
def test_engine_refuses_rows_that_are_not_there(random):
    x, weight, won = np.zeros((2, 3, K), np.float32), np.zeros((C, K), np.float32), np.zeros((2, C), np.float32)
    with pytest.raises(EngineError, match="a row that won is 3, the last one is 2"):
        native.engine().add_winners(x, weight, np.full((2, C), 3), won, x.copy(), weight.copy())
