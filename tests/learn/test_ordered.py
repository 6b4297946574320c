"""Eval mode has the bits of the program's steps where it says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from popcloud.learn import ordered
from popcloud.learn.layers import Layer
from popcloud.runtime.arithmetic import fma


def in_order(x, weight, bias):
    total = np.repeat(bias.numpy()[None], len(x), axis=0)
    for k in range(x.shape[1]):
        total = fma(x.numpy()[:, k, None], weight.numpy()[:, k], total)
    return total


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (37, 48, 17), (300, 112, 96)])
def test_linear_takes_one_fma_per_input_in_order(rows, inputs, outputs):
    torch.manual_seed(rows)
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    found = ordered.linear(x, weight, bias)
    assert np.array_equal(found.numpy(), in_order(x, weight, bias))
    torch.testing.assert_close(found, torch.nn.functional.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def test_linear_in_float64_is_pytorch_s():
    x, weight, bias = torch.randn(5, 4).double(), torch.randn(3, 4).double(), torch.randn(3).double()
    assert torch.equal(ordered.linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))


def test_fma_rounds_once():
    a, b, c = (torch.randn(10_000) for _ in range(3))
    assert np.array_equal(ordered.fma(a, b, c).numpy(), fma(a.numpy(), b.numpy(), c.numpy()))
    assert not torch.equal(ordered.fma(a, b, c), a * b + c)


def test_layer_uses_the_order_where_no_gradient_is_wanted():
    torch.manual_seed(0)
    layer = Layer(40, 24, binarizer="real", ordered=True)
    layer(torch.randn(50, 40))  # so that batch norm has something to fold
    layer.eval()
    x = torch.randn(9, 40)
    wanted = in_order(x, *(part.detach() for part in layer.folded_weight()))
    with torch.no_grad():
        assert np.array_equal(layer(x).numpy(), wanted)
    assert layer(x).requires_grad
    np.testing.assert_allclose(layer(x).detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
