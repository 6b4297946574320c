"""A gated pool against the products of all points."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from popcloud.learn.pooled_gated import linear_norm_gated

CLOUDS, POINTS, INPUTS, OUTPUTS, EPS = 3, 70, 6, 5, 1e-5


@pytest.fixture(params=[False, True], ids=["floats", "signs"])
def operands(request) -> tuple[torch.Tensor, ...]:
    """x, weight, gates, gamma (one negative), beta, all float64, wanting gradients."""
    torch.manual_seed(4)
    x, weight = torch.randn(CLOUDS, POINTS, INPUTS).double(), torch.randn(OUTPUTS, INPUTS).double()
    if request.param:
        x, weight = x.sign(), 0.3 * weight.sign()
    gates, gamma, beta = (
        torch.rand(CLOUDS, OUTPUTS).double(),
        torch.randn(OUTPUTS).double(),
        torch.randn(OUTPUTS).double(),
    )
    gamma[1] = -1
    return tuple(one.requires_grad_() for one in (x, weight, gates, gamma, beta))


def plain(x, weight, gates, gamma, beta, takes_mean: bool) -> tuple[torch.Tensor, ...]:
    z = (x @ weight.T * gates[:, None]).flatten(0, 1)
    y = F.batch_norm(z, None, None, gamma, beta, True, eps=EPS).view(CLOUDS, POINTS, OUTPUTS)
    return y.mean(1) if takes_mean else y.max(1).values, z.mean(0), z.var(0, unbiased=False)


@pytest.mark.parametrize("takes_mean", [False, True])
def test_values_statistics_and_gradients_are_those_of_all_products(operands, takes_mean):
    x, weight, gates, gamma, beta = operands
    expected = plain(*operands, takes_mean)
    bare = bool((x.abs() == 1).all())
    found = linear_norm_gated(x, weight, gates, (gamma, beta, EPS), takes_mean, bare)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    if bare and not takes_mean:
        return  # rows that tie share nothing: which of them gets the gradient is either's choice
    grad = torch.randn(CLOUDS, OUTPUTS).double()
    for one, other in zip(
        torch.autograd.grad(found[0], operands, grad), torch.autograd.grad(expected[0], operands, grad), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_channel_that_hardly_varies_keeps_its_variance():
    x = torch.ones(4, 200, 8)
    x[0, 0, 0] = -1
    weight, gates = torch.full((1, 8), 1.0), torch.full((4, 1), 0.5)
    _, _, var = linear_norm_gated(x, weight, gates, (torch.ones(1), torch.zeros(1), EPS), True, True)
    z = (x.double() @ weight.double().T * 0.5).flatten()
    assert var.item() == pytest.approx(z.var(unbiased=False).item(), rel=1e-3)
