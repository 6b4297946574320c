"""Variants: what each puts where, and what does not go together."""

from __future__ import annotations

import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn.binarizers import REAL
from popcloud.learn.designs import VARIANTS, Conv, DeConv, Design, SscBlocks, SscLayer, design_of
from popcloud.learn.layers import RPReLU, Weighted
from popcloud.learn.shifted import ShiftedConv
from popcloud.learn.sparse import child_mean, unpool
from surfaces import pyramid_of, scattered

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def at(rng):
    return pyramid_of(scattered(rng), size=5)


def binary_parts(module):
    """The names of the parts with weights, and whether they are binary."""
    return {name: m.binarizer is not None for name, m in module.named_modules() if isinstance(m, Weighted)}


def test_binary_blocks_keep_the_real_parts_of_the_paper():
    baseline = VARIANTS["baseline"]
    assert binary_parts(SscLayer(baseline, 4, 4, 0)) == {"conv": True}
    assert binary_parts(SscLayer(baseline, 8, 4, 0)) == {"conv": True, "projection": True}
    assert binary_parts(Conv(baseline, 4, 8, 0)) == {"conv": True, "point": False}
    assert binary_parts(DeConv(baseline, 8, 4, 0)) == {"conv": True, "point": False}
    assert binary_parts(Conv(VARIANTS["xnor"], 4, 8, 0)) == {"conv": True}
    assert not any(binary_parts(DeConv(VARIANTS["real"], 8, 4, 0)).values())


def test_ssc_layer_is_rsign_conv_norm_add_rprelu(at):
    layer = SscLayer(VARIANTS["baseline"], 4, 4, 0)
    x = torch.randn(at.sites(0), 4)
    conv = layer.conv
    z = conv.norm(conv.convolve(torch.where(x < 0, -1.0, 1.0), conv.trained_weight(), at))
    torch.testing.assert_close(layer(x, at), conv.activation(z + x))
    assert isinstance(conv.activation, RPReLU)


def test_bi_real_layer_is_sign_conv_norm_add(at):
    layer = SscLayer(VARIANTS["bireal"], 4, 4, 0)
    x = 3 * torch.randn(at.sites(0), 4)
    conv = layer.conv
    z = conv.norm(conv.convolve(torch.where(x < 0, -1.0, 1.0), conv.trained_weight(), at))
    torch.testing.assert_close(layer(x, at), z + x)


def test_norm_first_layer_is_norm_sign_conv_activation_add(at):
    layer = SscLayer(Design(order="norm-first"), 4, 4, 0)
    x = torch.randn(at.sites(0), 4) + 1
    seen = torch.where(layer.before.norm(x) < 0, -1.0, 1.0)
    conv = layer.conv
    z = conv.activation(conv.convolve(seen, conv.trained_weight(), at))
    torch.testing.assert_close(layer(x, at), z + x)
    assert conv.norm is None


def test_host_layer_is_norm_relu_conv(at):
    layer = SscLayer(VARIANTS["real"], 4, 4, 0)
    x = torch.randn(at.sites(0), 4)
    torch.testing.assert_close(layer(x, at), layer.conv(layer.before.norm(x).relu(), at))


def test_xnor_layer_is_norm_sign_conv(at):
    layer = SscLayer(VARIANTS["xnor"], 4, 4, 0)
    x = torch.randn(at.sites(0), 4)
    torch.testing.assert_close(layer(x, at), layer.conv(layer.before.norm(x).sign(), at))
    assert layer.conv.activation(x) is x


def test_shortcuts_of_conv_and_deconv(at):
    down, up = Conv(VARIANTS["baseline"], 4, 6, 0).eval(), DeConv(VARIANTS["baseline"], 6, 4, 0).eval()
    x, y = torch.randn(at.sites(0), 4), torch.randn(at.sites(1), 6)
    torch.testing.assert_close(down(x, at), down.conv(x, down.point(child_mean(x, at, 0)), at))
    torch.testing.assert_close(up(y, at), up.conv(y, up.point(unpool(y, at, 0)), at))


def test_blocks_stack_layers_and_change_channels_once(at):
    blocks = SscBlocks(Design(block_layers=2), 8, 4, 0, blocks=2)
    assert [(layer.conv.inputs, layer.projection is None) for layer in blocks.layers] == [
        (8, False),
        (4, True),
        (4, True),
        (4, True),
    ]
    assert blocks(torch.randn(at.sites(0), 8), at).shape == (at.sites(0), 4)


def test_shifts_are_in_ssc_blocks_alone():
    manual = design_of("manual", None, groups=2, hand_rule="corners")
    layer, down = SscLayer(manual, 4, 4, 0), Conv(manual, 4, 8, 0)
    assert layer.conv.shifts.tolist() == [[1, 1, 1], [-1, -1, -1]]
    assert not isinstance(down.conv, ShiftedConv)
    assert not isinstance(manual.stem(3, 4), ShiftedConv)
    searched = SscLayer(design_of("net", None, candidates="faces", separate_kernels=True), 4, 4, 0).conv
    assert (len(searched.candidates), searched.separate, searched.shifts.abs().sum().item()) == (7, True, 0)


def test_variants_and_their_binarizers():
    assert {name: design.binarizer for name, design in VARIANTS.items()} == {
        "real": REAL,
        "xnor": "xnor",
        "bireal": "bireal",
        "react": "react",
        "baseline": "react",
        "manual": "react",
        "net": "react",
    }
    assert [name for name, design in VARIANTS.items() if design.size == 5] == ["manual", "net"]
    assert design_of("net", "lsr").binarizer == "lsr"


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: design_of("manuel", None), "unknown variant 'manuel'; did you mean 'manual'"),
        (lambda: design_of("real", "react"), "variant 'real' goes with the binarizer 'real', found 'react'"),
        (lambda: design_of("net", "real"), "variant 'net' goes with the binarizer 'react', found 'real'"),
        (lambda: Design(order="norm"), "unknown order 'norm'"),
        (lambda: Design(shifts="manual"), "unknown kind of shifts 'manual'"),
        (lambda: Design(block_layers=0), "block_layers: expected at least 1, found 0"),
        (lambda: SscLayer(design_of("net", None, groups=3), 4, 4, 0), "groups: expected a divisor of the 4"),
    ],
)
def test_what_does_not_go_together_is_named(make, line):
    with pytest.raises(RecipeError, match=line):
        make()
