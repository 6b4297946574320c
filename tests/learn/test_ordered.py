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


def test_halved_weights_are_the_nearest_in_float16_ties_to_even():
    torch.manual_seed(0)
    weight = torch.randn(40, 300) * torch.logspace(-3, 4, 40)[:, None]
    weight[0, :2] = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11])  # halfway between two numbers each
    found = ordered.halved(weight)
    assert np.array_equal(found.numpy(), weight.numpy().astype(np.float16).astype(np.float32))
    assert found[0, :2].tolist() == [1.0, 1 + 4 * 2**-11]
    largest = weight.abs().amax(dim=1, keepdim=True)
    assert ((found - weight).abs() <= largest * 2**-11).all()


@pytest.mark.parametrize("largest", [65504.0, 2.0**-14])
def test_weights_out_of_float16_s_range_are_kept(largest):
    weight = torch.tensor([[1.0, 1e-3, 0.0], [0.0, 0.0, 0.0], [largest, 1e-5, -largest]])
    assert torch.equal(ordered.halved(weight), weight.half().float())
    weight[2] *= 1.001 if largest > 1 else 0.999
    assert torch.equal(ordered.halved(weight), weight)
    weight[2, 2] = torch.tensor(1e30)
    assert torch.equal(ordered.halved(weight), weight)


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


def test_halved_layer_rounds_in_eval_mode_alone():
    torch.manual_seed(0)
    plain = Layer(40, 24, binarizer="real", ordered=True)
    layer = Layer(40, 24, binarizer="real", ordered=True, halved=True)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(50, 40)
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
        weight, bias = plain.eval().folded_weight()
        assert torch.equal(layer.eval()(x), ordered.linear(x, weight.half().float(), bias))
        assert not torch.equal(layer(x), plain(x))


def test_only_real_layers_are_halved():
    assert not Layer(4, 4, binarizer="react", ordered=True, halved=True).halved


@pytest.mark.parametrize("shape", [(2, 50, 3), (50, 20, 3)])  # few large groups, many small ones
def test_mean_sums_in_float64(shape):
    torch.manual_seed(1)
    x = torch.randn(shape) * 1000 ** torch.rand(shape)
    expected = (np.add.accumulate(x.double().numpy(), axis=1)[:, -1] / shape[1]).astype(np.float32)
    assert np.array_equal(ordered.mean(x).numpy(), expected)
