"""Layers on neighbourhoods against plain formulations, and eval mode's bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from popcloud.learn.columns import Concat
from popcloud.learn.layers import POOLS, PooledLayer
from popcloud.learn.point_layers import (
    FarthestPoints,
    GroupedLayer,
    GroupPooled,
    Negated,
    Product,
    Reshape,
    RowNorm,
    real,
)

B, P, K, C = 2, 5, 4, 6


@pytest.fixture
def random() -> torch.Generator:
    torch.manual_seed(5)
    return torch.Generator().manual_seed(5)


def rows(random: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=random)


@pytest.mark.parametrize("binarizer", ["real", "lsr", "xnor", "abc3"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("training", [True, False])
def test_groups_are_pooled_as_if_each_were_a_cloud(random, binarizer, pool, training):
    groups = GroupPooled(C, 8, binarizer=binarizer, pool=pool, points=K).train(training)
    clouds = PooledLayer(C, 8, binarizer=binarizer, pool=pool, points=K).train(training)
    clouds.load_state_dict(groups.state_dict())
    x = rows(random, 1, P, K, C)
    torch.testing.assert_close(groups(x)[0], clouds(x[0]), rtol=1e-5, atol=1e-5)


def test_gates_are_those_of_the_whole_cloud(random):
    layer = GroupPooled(C, 8, binarizer="r2b", pool="max", points=K).eval()
    x = rows(random, B, P, K, C)
    gates = layer.binarizer.gate(x.flatten(1, 2))
    one = layer.tail(layer.products(x[1, 2][None]) * gates[1])
    torch.testing.assert_close(layer(x)[1, 2], one[0])


@pytest.mark.parametrize("pool", POOLS)
def test_a_real_pool_of_groups_without_gradient_is_the_one_with(random, pool):
    layer = GroupPooled(C, 8, binarizer="real", pool=pool, points=K).eval()
    x = rows(random, B, P, K, C)
    with torch.no_grad():
        found = layer(x)
    torch.testing.assert_close(found, layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("binarizer", ["real", "lsr", "react", "abc3"])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_in_groups_is_a_layer_per_group(random, binarizer, training):
    layer = GroupedLayer(3 * C, 6, groups=3, binarizer=binarizer).train(training)
    x = rows(random, 9, 3 * C)
    if binarizer == "real":
        z = torch.cat([F.linear(x[:, g * C : g * C + C], layer.weight[2 * g : 2 * g + 2]) for g in range(3)], dim=1)
    else:
        seen = layer.binarizer.trained_inputs(x.view(9, 3, C))
        weight = layer.trained_weight().view(3, 2, C)
        z = torch.einsum("rgk,gck->rgc", seen, weight).flatten(1)
    norm = layer.norm
    expected = F.batch_norm(
        z, norm.running_mean.clone(), norm.running_var.clone(), norm.weight, norm.bias, training, 0.0, norm.eps
    )
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_a_layer_in_groups_keeps_what_rows_belong_to(random):
    layer = GroupedLayer(2 * C, 4, groups=2, binarizer="real", ordered=True).eval()
    x = rows(random, B, P, K, 2 * C)
    with torch.no_grad():
        found = layer(x)
    torch.testing.assert_close(found, layer(x))
    torch.testing.assert_close(found[1, 2, 3], layer(x[1, 2, 3][None])[0])


def test_products_sum_over_the_neighbours(random):
    x, m = rows(random, B, P, K, C), rows(random, B, P, K, 3)
    expected = torch.einsum("bpkc,bpkm->bpcm", x, m).flatten(2)
    torch.testing.assert_close(Product()(x, m), expected)
    with torch.no_grad():
        torch.testing.assert_close(Product()(x, m), expected)


@pytest.mark.parametrize("each", [1, 2, 4, 8])
def test_reshape_keeps_the_order_of_numbers(each):
    x = torch.arange(B * P * K * C).view(B, P, K, C)
    y = Reshape(each)(x)
    assert y.shape == ((B, P, K * C) if each == 1 else (B, P, each, K * C // each))
    assert torch.equal(y.flatten(), x.flatten())
    assert torch.equal(Reshape(each)(Reshape(1)(x)), y)


def test_rows_of_points_and_clouds_are_repeated_side_by_side(random):
    x, centre, cloud = rows(random, B, P, K, 2), rows(random, B, P, 3), rows(random, B, 4)
    y = Concat()(centre, x, cloud)
    assert y.shape == (B, P, K, 9)
    assert torch.equal(y[1, 2, 3], torch.cat([centre[1, 2], x[1, 2, 3], cloud[1]]))


@pytest.mark.parametrize("grad", [True, False])
def test_negated_shares_its_weights(random, grad):
    layer = real(C, 3, norm=False, bias=False).eval()
    negated, x = Negated(layer).eval(), rows(random, B, P, C)
    assert list(negated.parameters()) == []
    with torch.set_grad_enabled(grad):
        assert torch.equal(negated(x), -layer(x))


@pytest.mark.parametrize("activation", ["none", "relu", "hardtanh"])
def test_norm_of_rows_is_batch_norm_of_all_of_them(random, activation):
    norm, x = RowNorm(C, activation=activation), rows(random, B, P, K, C)
    y = F.batch_norm(x.flatten(0, 2), None, None, training=True)
    act = {"none": lambda z: z, "relu": F.relu, "hardtanh": F.hardtanh}[activation]
    torch.testing.assert_close(norm(x), act(y).view(x.shape), rtol=1e-4, atol=1e-5)
    norm.eval()
    torch.testing.assert_close(norm(x), act(x * norm.norm.folded()[0] + norm.norm.folded()[1]))


def test_so_many_points_are_sampled(random):
    assert FarthestPoints(0.334)(rows(random, B, 10, 3)).shape == (B, 4)  # rounded up
