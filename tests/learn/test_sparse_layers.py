"""Layers over active sites: what eval mode computes, orders, stages, and what is asked for in vain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from popcloud.errors import RecipeError
from popcloud.learn import layers
from popcloud.learn.binarizers import BINARIZERS, REAL
from popcloud.learn.layers import Layer, Norm
from popcloud.learn.sparse import sparse_conv
from popcloud.learn.sparse_layers import OFFSETS, Add, ChildMean, Join, NormAct, SparseConv, Unpool, set_weights_binary
from surfaces import pyramid_of, scattered

pytestmark = pytest.mark.usefixtures("one_thread")
FIT = [name for name, binarizer in BINARIZERS.items() if not binarizer.not_sparse]


@pytest.fixture
def at(rng):
    return pyramid_of(scattered(rng))


def rows_of(kind, at):
    """How many rows a convolution at level 0 takes and gives."""
    fine, coarse = at.sites(0), at.sites(1)
    return {"same": (fine, fine), "down": (fine, coarse), "up": (coarse, fine)}[kind]


def disturb(net: nn.Module) -> None:
    """Parameters and statistics as after a training, gammas of both signs."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for norm in (m for m in net.modules() if isinstance(m, Norm)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight[::3] *= -1


# -- meaning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OFFSETS)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("binarizer", [REAL, *FIT])
def test_eval_is_an_exact_sum_of_signs_and_a_tail(at, kind, norm, binarizer):
    layer = SparseConv(5, 6, kind=kind, level=0, binarizer=binarizer, norm=norm, activation="rprelu")
    disturb(layer)
    x = torch.randn(rows_of(kind, at)[0], 5)
    shortcut = torch.randn(rows_of(kind, at)[1], 6)
    d = layer.eval().products(x, at)
    assert d.shape == shortcut.shape
    if binarizer != REAL:
        frozen = layer.binarizer.frozen(layer.weight)
        seen = torch.where(x < frozen.threshold, -1.0, 1.0)
        exact = sparse_conv(seen.double(), layer.kernel(frozen.weights.double()), layer.map(at))
        assert torch.equal(d.double(), exact)
        assert torch.equal(d, d.round())
    a, b = layer.folded()
    z = d * a + b
    expected = layer.activation(z + shortcut) if norm else layer.activation(z) + shortcut
    assert torch.equal(layer(x, shortcut, at), expected)
    assert torch.equal(layer(x, at), layer.activation(z))


@pytest.mark.parametrize("binarizer", [REAL, *FIT])
@pytest.mark.parametrize("weights_binary", [True, False])
def test_training_computes_what_eval_does(at, binarizer, weights_binary):
    layer = SparseConv(5, 6, kind="same", level=0, binarizer=binarizer, norm=True, activation="rprelu")
    disturb(layer)
    layer.norm.momentum = 1.0  # the running statistics become the batch's
    set_weights_binary(layer, weights_binary)
    if binarizer != REAL:
        layer.binarizer.eval()  # a batch norm of its own goes by its running statistics
    x, shortcut = torch.randn(at.sites(0), 5), torch.randn(at.sites(0), 6)
    expected = layer(x, shortcut, at)
    count = at.sites(0)
    layer.norm.running_var.mul_((count - 1) / count)  # batch norm divides by the count, its running variance does not
    torch.testing.assert_close(layer.eval()(x, shortcut, at), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("binarizer", [REAL, *FIT])
def test_training_reaches_every_parameter(at, binarizer):
    layer = SparseConv(5, 6, kind="down", level=0, binarizer=binarizer, norm=True, activation="rprelu")
    layer(torch.randn(at.sites(0), 5), at).square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in layer.parameters())


def test_weight_columns_are_one_offset_after_the_other(at):
    layer = SparseConv(2, 3, kind="down", level=0)
    assert layer.weight.shape == (3, 16)
    kernel = layer.kernel(layer.weight)
    assert torch.equal(kernel[5], layer.weight[:, 10:12].T)


def test_xnor_leaves_the_factor_per_row_out(at):
    layer = SparseConv(5, 6, kind="same", level=0, binarizer="xnor")
    x = torch.randn(at.sites(0), 5)
    torch.testing.assert_close(layer(x, at), layer(3 * x, at))


def test_norm_act_in_training_and_eval(at):
    layer = NormAct(4, activation="relu")
    disturb(layer)
    x = torch.randn(50, 4)
    plain = nn.BatchNorm1d(4)
    plain.load_state_dict(layer.norm.state_dict())
    torch.testing.assert_close(layer(x), plain(x).relu())
    torch.testing.assert_close(layer.eval()(x), plain.eval()(x).relu())


def test_norm_of_one_row_goes_by_the_running_statistics():
    norm = Norm(3)
    norm.running_mean.normal_()
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x = torch.randn(1, 3)
    found = norm(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    torch.testing.assert_close(found, norm.eval()(x))


def test_small_layers(at):
    x, y = torch.randn(at.sites(0), 3), torch.randn(at.sites(0), 2)
    assert torch.equal(Join()(x, y), torch.cat([x, y], 1))
    assert torch.equal(Add()(x, x), 2 * x)
    coarse = ChildMean(0)(x, at)
    assert torch.equal(Unpool(0)(coarse, at), coarse[at.parents[0]])


# -- stages --------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A sparse and a linear binary layer."""

    def __init__(self, binarizer: str):
        super().__init__()
        self.conv = SparseConv(4, 5, kind="same", level=0, binarizer=binarizer, norm=True)
        self.point = Layer(5, 3, binarizer=binarizer)

    def forward(self, x, at):
        return self.point(self.conv(x, at))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_real_weights_enter_as_they_are(at, mode):
    net = Net("react").train(mode == "train")
    x = torch.randn(at.sites(0), 4)
    binary = net(x, at)
    set_weights_binary(net, False)
    real = net(x, at)
    signs = torch.where(x < 0, -1.0, 1.0)
    z = net.conv.norm(sparse_conv(signs, net.conv.kernel(net.conv.weight), at.window(0)))
    expected = net.point.norm(torch.where(z < 0, -1.0, 1.0) @ net.point.weight.T)
    torch.testing.assert_close(real, expected)
    assert not torch.allclose(real, binary)
    set_weights_binary(net, True)
    torch.testing.assert_close(net(x, at), binary)


@pytest.mark.parametrize("binarizer", FIT)
def test_what_binarizers_do_over_a_run_works_with_maps(at, binarizer):
    net, x = Net(binarizer), torch.randn(at.sites(0), 4)
    before = net.state_dict()["conv.norm.running_mean"].clone()
    layers.initialise(net, x, at)
    assert torch.equal(net.state_dict()["conv.norm.running_mean"], before)
    layers.set_progress(net, 3, 10)
    optimizer = torch.optim.Adam(net.parameters())
    net(x, at).square().sum().backward()
    optimizer.step()
    layers.after_step(net, optimizer)
    assert set(layers.positive_shares(net, x, at)) == {"conv", "point"}
    assert layers.weight_signs(net)["conv"].shape == (5, 27 * 4)


def test_lsr_starts_with_the_ratio_of_stds(at):
    net, x = Net("lsr"), torch.randn(at.sites(0), 4)
    layers.initialise(net, x, at)
    centred = net.conv.weight - net.conv.weight.mean()
    real = sparse_conv(x, net.conv.kernel(centred), at.window(0)).std()
    binary = sparse_conv(x.sign(), net.conv.kernel(centred.sign()), at.window(0)).std()
    assert net.conv.binarizer.alpha.item() == pytest.approx((real / binary).item(), rel=0.2)


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binarizer", ["dorefa", "abc3", "abc5", "r2b"])
def test_binarizers_that_need_more_than_signs_are_refused_with_the_reason(binarizer):
    with pytest.raises(
        RecipeError, match=f"binarizer '{binarizer}' can't be used over active sites: .*; choose one of bnn"
    ):
        SparseConv(3, 4, kind="same", level=0, binarizer=binarizer)


def test_unknown_kind_names_the_valid_ones():
    with pytest.raises(RecipeError, match="unknown kind of convolution 'dwn'; did you mean 'down'"):
        SparseConv(3, 4, kind="dwn", level=0)


@pytest.mark.parametrize("kind", OFFSETS)
def test_pyramid_that_is_too_low_is_named(at, kind):
    layer = SparseConv(3, 4, kind=kind, level=3 if kind == "same" else 2)
    with pytest.raises(RecipeError, match="level 3, the pyramid 3 levels"):
        layer(torch.randn(9, 3), at)
