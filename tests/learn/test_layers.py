"""Layers against PyTorch's own: batch norm, pools, statistics, initialisation, collapse."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popcloud.errors import RecipeError
from popcloud.learn import layers
from popcloud.learn.backbones import build
from popcloud.learn.binarizers import BINARIZERS, REAL, signs
from popcloud.learn.layers import Layer, Norm, PooledLayer, RPReLU, Transform

ALL = [REAL, *BINARIZERS]


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(11)
        yield


def lived_in(layer: layers.Weighted) -> layers.Weighted:
    """Statistics, gains and scales as after some training, in float64; every third gain negative."""
    norm = layer.norm
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 3)
        norm.weight.uniform_(0.5, 2)
        norm.weight[::3] *= -1
        norm.bias.normal_()
    if layer.binarizer is not None:
        layer.binarizer.eval()  # a batch norm of its own goes by its running statistics
    return layer.double()


def plain_products(layer: layers.Weighted, x: torch.Tensor) -> torch.Tensor:
    """linear alone, as the papers write it: (..., outputs)."""
    if layer.binarizer is None:
        return x @ layer.weight.T
    frozen = layer.binarizer.frozen(layer.weight)
    if layer.binarizer.bases > 1:
        seen = torch.where(x < frozen.threshold.view(-1, *[1] * (x.ndim - 1), layer.inputs), -1.0, 1.0).to(x)
        return torch.einsum("nm,n...k,mck->...c", frozen.scale, seen, frozen.weights)
    seen = torch.where(x < frozen.threshold, -1.0, 1.0).to(x)
    if layer.binarizer.scales_rows:
        seen = seen * x.abs().mean(-1, keepdim=True)
    if layer.binarizer.gates:
        mean = x.mean(tuple(range(1, x.ndim - 1)), keepdim=True)
        gate = layer.binarizer.excite(layer.binarizer.squeeze(mean).relu()).sigmoid()
        return seen @ (frozen.weights * frozen.scale[:, None]).T * gate
    return seen @ (frozen.weights * frozen.scale[:, None]).T


def plain_norm(norm: Norm, z: torch.Tensor, training: bool) -> torch.Tensor:
    """PyTorch's batch norm on (..., channels); leaves the running statistics alone."""
    mean, var = (None, None) if training else (norm.running_mean, norm.running_var)
    flat = F.batch_norm(z.flatten(0, -2), mean, var, norm.weight, norm.bias, training, eps=norm.eps)
    return flat.view_as(z)


def plain_pool(z: torch.Tensor, pool: str, points: int) -> torch.Tensor:
    if pool.endswith("mean"):
        return z.mean(1)
    return z.max(1).values + (layers.ema_delta(points) if pool == "ema-max" else 0)


# -- the closed form of delta ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "delta"), [(1, 0.0), (20, -1.8242), (64, -2.2983), (256, -2.7817), (1024, -3.2044), (4096, -3.5840)]
)
def test_delta_is_the_closed_form_s(points, delta):
    assert layers.ema_delta(points) == pytest.approx(delta, abs=5e-5)


@pytest.mark.parametrize("points", [5, 64, 300])
def test_delta_makes_half_of_the_maxima_positive(points, rng):
    largest = rng.standard_normal((8000, points)).max(axis=1)
    assert (largest + layers.ema_delta(points) > 0).mean() == pytest.approx(0.5, abs=0.025)  # 4.5 standard deviations


# -- eval mode ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binarizer", ALL)
@pytest.mark.parametrize("activation", ["none", "relu", "hardtanh", "rprelu"])
def test_layer_in_eval_mode_is_linear_norm_activation(binarizer, activation):
    layer = lived_in(Layer(20, 7, binarizer=binarizer, activation=activation)).eval()
    x = torch.randn(3, 5, 20, dtype=torch.float64)
    expected = layer.activation(plain_norm(layer.norm, plain_products(layer, x), training=False))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("binarizer", ALL)
@pytest.mark.parametrize("pool", layers.POOLS)
def test_pooled_layer_in_eval_mode_is_linear_norm_pool(binarizer, pool):
    layer = lived_in(PooledLayer(20, 7, binarizer=binarizer, pool=pool, points=12)).eval()
    x = torch.randn(3, 12, 20, dtype=torch.float64)
    expected = plain_pool(plain_norm(layer.norm, plain_products(layer, x), training=False), pool, 12)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("binarizer", ["abc3", "abc5"])
@pytest.mark.parametrize("alike", [False, True], ids=["points differ", "points are one"])
def test_largest_sum_of_several_bases_is_the_largest_of_all_rows_bit_for_bit(binarizer, alike):
    layer = PooledLayer(66, 40, binarizer=binarizer, pool="max", points=100).eval()
    with torch.no_grad():
        layer.norm.weight[::2] *= -1
        layer.binarizer.beta.normal_()
        x = torch.randn(3, 100, 66)
        if alike:
            x[:] = x[:, :1]
        up = torch.where(layer.folded()[0] < 0, -1.0, 1.0)
        assert torch.equal(layer.products(x), (layer.sums(x) * up).amax(1) * up)


def test_a_negative_factor_of_a_whole_layer_turns_the_maximum_around():
    layer = lived_in(PooledLayer(20, 7, binarizer="lsr", pool="max", points=12)).eval()
    layer.binarizer.alpha.data.fill_(-0.3)
    x = torch.randn(3, 12, 20, dtype=torch.float64)
    expected = plain_norm(layer.norm, plain_products(layer, x), training=False).max(1).values
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("pool", layers.POOLS)
def test_real_network_answers_in_eval_mode_outside_no_grad(pool):
    layer = PooledLayer(20, 7, binarizer=REAL, pool=pool, points=12).eval()
    assert layer(torch.randn(3, 12, 20)).shape == (3, 7)


# -- training mode -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binarizer", ALL)
def test_layer_in_training_mode_is_linear_norm_activation(binarizer):
    layer = lived_in(Layer(20, 7, binarizer=binarizer, activation="hardtanh"))
    x = torch.randn(4, 5, 20, dtype=torch.float64)
    expected = plain_norm(layer.norm, plain_products(layer, x), training=True).clamp(-1, 1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("binarizer", ALL)
@pytest.mark.parametrize("pool", layers.POOLS)
def test_pooled_layer_in_training_mode_is_linear_norm_pool(binarizer, pool):
    layer = lived_in(PooledLayer(20, 7, binarizer=binarizer, pool=pool, points=12))
    plain = copy.deepcopy(layer.norm)
    x = torch.randn(3, 12, 20, dtype=torch.float64)
    z = plain_products(layer, x)
    expected = plain_pool(plain_norm(plain, z, training=True), pool, 12)
    plain(z.flatten(0, 1))
    torch.testing.assert_close(layer(x), expected)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(layer.norm.get_buffer(name), buffer)


def test_plain_mean_and_its_entropy_maximizing_form_are_one():
    one, other = (PooledLayer(20, 7, binarizer="lsr", pool=pool, points=12) for pool in ("mean", "ema-mean"))
    other.load_state_dict(one.state_dict())
    x = torch.randn(3, 12, 20)
    assert torch.equal(one(x), other(x))
    assert torch.equal(one.eval()(x), other.eval()(x))


def test_activation_in_place_leaves_the_input_and_its_gradient_whole():
    x = torch.randn(6, 5, 20, requires_grad=True)
    kept = x.detach().clone()
    layer = Layer(20, 7, binarizer=REAL, activation="relu")
    layer(x).sum().backward()
    assert torch.equal(x, kept)
    assert (x.grad != 0).any()


@pytest.mark.parametrize("momentum", [0.1, 0.37, 1.0, None])
def test_observed_statistics_are_batch_norm_s_own(momentum):
    ours, theirs = Norm(5, momentum=momentum), nn.BatchNorm1d(5, momentum=momentum)
    for count in (2, 30, 7):
        rows = torch.randn(count, 5) * 3 + 1
        theirs(rows)
        ours.observe(rows.mean(0), rows.var(0, unbiased=False), count)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


def test_rprelu_is_the_paper_s():
    layer = RPReLU(3)
    layer.shift.data, layer.slope.data = torch.tensor([0.5, 0.0, -1.0]), torch.tensor([0.25, 2.0, 0.1])
    layer.offset.data = torch.tensor([1.0, 0.0, -2.0])
    x = torch.tensor([[0.5, 3.0, -2.0], [2.5, -1.0, 4.0]])
    torch.testing.assert_close(layer(x), torch.tensor([[1.0, 3.0, -2.1], [3.0, -2.0, 3.0]]))


def test_transform_multiplies_by_identity_plus_the_matrix():
    x, m = torch.randn(2, 9, 3), torch.randn(2, 9)
    expected = x + torch.einsum("bnk,bkc->bnc", x, m.view(2, 3, 3))
    torch.testing.assert_close(Transform()(x, m), expected)
    assert torch.equal(Transform()(x, torch.zeros(2, 9)), x)


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [layers.activation_of, lambda name: Layer(3, 2, binarizer=name)])
def test_unknown_binarizer_names_the_valid_ones(wrong):
    with pytest.raises(RecipeError, match=r"unknown binarizer 'xnr'; did you mean 'xnor'\?.*real, bnn"):
        wrong("xnr")


def test_unknown_pool_names_the_valid_ones():
    with pytest.raises(RecipeError, match=r"unknown pool 'emamax'.*max, mean, ema-max, ema-mean"):
        PooledLayer(3, 2, binarizer=REAL, pool="emamax", points=4)


@pytest.mark.parametrize("binarizer", ALL)
def test_a_layer_has_a_bias_only_where_no_norm_would_take_it_away(binarizer):
    wants = binarizer == REAL or BINARIZERS[binarizer].bias
    assert Layer(3, 2, binarizer=binarizer).bias is None
    assert (Layer(3, 2, binarizer=binarizer, norm=False).bias is not None) == wants
    assert {name for name in BINARIZERS if BINARIZERS[name].bias} == {"bnn", "xnor"}


# -- what concerns a whole network -------------------------------------------------------------------------------


class Small(nn.Module):
    """Dropout before a binary layer: initialisation must not disturb the chance."""

    def __init__(self, binarizer: str, pool: str = "ema-max"):
        super().__init__()
        self.first = Layer(3, 16, binarizer=REAL, activation="hardtanh")
        self.dropout = nn.Dropout(0.5)
        self.pooled = PooledLayer(16, 32, binarizer=binarizer, pool=pool, points=64)
        self.last = Layer(32, 8, binarizer=binarizer, activation="hardtanh")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.pooled(self.dropout(self.first(x))))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_initialise_leaves_buffers_mode_and_chance_as_they_were(training, deterministic):
    model, x = Small("lsr").train(training), torch.randn(4, 64, 3)
    state = torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        layers.initialise(model, x)
    finally:
        torch.use_deterministic_algorithms(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training == training
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_initialise_sets_each_scale_from_what_the_layers_before_it_give():
    model, x = Small("lsr"), torch.randn(4, 64, 3)
    model.dropout.p = 0.0
    layers.initialise(model, x)
    with torch.no_grad():
        for layer, seen in ((model.pooled, model.first(x)), (model.last, model.pooled(model.first(x)))):
            rows, centred = seen.reshape(-1, layer.inputs).double(), (layer.weight - layer.weight.mean()).double()
            ratio = (rows @ centred.T).std() / (signs(rows) @ signs(centred).T).std()
            assert layer.binarizer.alpha.item() == pytest.approx(ratio.item(), rel=1e-5)


def test_initialise_ends_whole_where_the_network_fails():
    model = Small("lsr")
    with pytest.raises(RuntimeError):
        layers.initialise(model, torch.randn(4, 64, 5))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_progress_and_mending_reach_the_binary_layers_alone():
    model = Small("irnet")
    layers.set_progress(model, 3, 6)
    assert [layer.binarizer.t for _, layer in layers.binary_layers(model)] == pytest.approx([1.0, 1.0])
    model = Small("bnn")
    for layer in (model.first, model.pooled):
        layer.weight.data.fill_(5.0)
    layers.after_step(model, torch.optim.Adam(model.parameters()))
    assert model.first.weight.min().item() == 5
    assert model.pooled.weight.max().item() == 1


@pytest.mark.parametrize("binarizer", BINARIZERS)
def test_weight_signs_are_those_that_eval_mode_uses(binarizer):
    model = Small(binarizer)
    found = layers.weight_signs(model)
    assert list(found) == ["pooled", "last"]
    frozen = model.last.binarizer.frozen(model.last.weight).weights  # a fresh network has no falling batch norm
    assert torch.equal(torch.where(found["last"], 1.0, -1.0), frozen)


@pytest.mark.parametrize(("pool", "low", "high"), [("max", 0.98, 1.0), ("ema-max", 0.4, 0.6), ("ema-mean", 0.4, 0.6)])
def test_maxima_collapse_to_one_sign_unless_they_are_shifted(pool, low, high):
    pooled = PooledLayer(128, 32, binarizer="lsr", pool=pool, points=64)
    pooled.norm.momentum = 1.0
    model, x = nn.Sequential(pooled, Layer(32, 8, binarizer="lsr")), torch.randn(40, 64, 128)
    model(x)  # batch norm alone, as after training: its outputs have mean 0 and spread 1
    shares = layers.positive_shares(model, x)
    assert low <= shares["1"] <= high
    assert shares["0"] == pytest.approx(0.5, abs=0.01)  # before the pool nothing collapses
    assert model.training


def test_share_counts_against_the_learned_threshold_and_nan_as_plus_one():
    model = nn.Sequential(Layer(2, 1, binarizer="react")).eval()
    model[0].binarizer.shift.data = torch.tensor([1.0, -1.0])
    x = torch.tensor([[0.0, 0.0], [1.0, -2.0], [float("nan"), -1.0]])
    assert layers.positive_shares(model, x)["0"] == pytest.approx(4 / 6)
    assert not model.training


@pytest.mark.parametrize("binarizer", ALL)
def test_gradients_reach_every_parameter_of_a_network_with_transforms(binarizer):
    model = build("pointnet", classes=4, binarizer=binarizer, pool="ema-max", points=16)
    x = torch.randn(4, 16, 3)
    layers.initialise(model, x)
    logits, penalty = model.loss_terms(x)
    F.cross_entropy(logits, torch.arange(4)).backward(retain_graph=True)
    for name in ("input_net.fc3.weight", "feature_net.fc3.weight", "input_net.conv1.weight", "conv1.weight"):
        assert float(model.get_parameter(name).grad.abs().max()) > 0, name
    model.zero_grad()
    penalty.backward()
    assert float(model.feature_net.fc3.weight.grad.abs().max()) > 0
    assert model.input_net.fc3.weight.grad is not None  # through the feature net's own inputs
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
