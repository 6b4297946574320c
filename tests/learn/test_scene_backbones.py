"""UNET and FCN: the published parameter counts, training of every part in every variant, and fx's view of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from popcloud.errors import RecipeError
from popcloud.geometry.pyramid import stack
from popcloud.learn.backbones import SCENE_BACKBONES, build_scene
from popcloud.learn.backbones.unet import UNet
from popcloud.learn.designs import VARIANTS, Conv, DeConv, SscLayer, design_of
from popcloud.learn.layers import Layer, Norm, Weighted, initialise
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.shifted import end_search, start_search
from popcloud.learn.sparse_layers import Add, ChildMean, Join, NormAct, SparseConv, Unpool, set_weights_binary
from surfaces import geometry_of, pyramid_of, room

pytestmark = pytest.mark.usefixtures("one_thread")

# classes, features, and real parameters without the batch norm before UNET's classifier
PUBLISHED = {
    "fcn_s": (40, 4, 2_496_040),
    "fcn_h": (40, 4, 10_024_600),
    "unet_s": (20, 3, 2_689_828),
    "unet_h": (20, 3, 17_138_292),
}
# weights: submanifold, Conv, DeConv, 1-bit projections, real 1x1 of Conv and DeConv
PARTS = {
    "fcn_s": (1_969_920, 491_520, 0, 0, 61_440),
    "fcn_h": (8_864_640, 1_105_920, 0, 0, 138_240),
    "unet_s": (2_225_664, 229_376, 229_376, 46_592, 57_344),
    "unet_h": (15_289_344, 917_504, 917_504, 186_368, 229_376),
}


def published(name: str, variant: str) -> nn.Module:
    classes, features, _ = PUBLISHED[name]
    return build_scene(name, classes=classes, features=features, variant=variant)


def small(name: str, variant: str, **options) -> nn.Module:
    return build_scene(name, classes=4, features=3, variant=variant, **options)


@pytest.fixture
def batch(rng):
    """Return a function from a network to its inputs: features and pyramid."""

    def make(net: nn.Module) -> tuple[torch.Tensor, TensorPyramid]:
        at = pyramid_of(room(rng, 400, 40.0), net.levels, net.size)
        return torch.randn(at.sites(0), 3), at

    return make


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENE_BACKBONES)
def test_real_parameters_are_the_published_ones(name):
    net = published(name, "real")
    norm = sum(one.numel() for one in net.head.parameters()) if name.startswith("unet") else 0
    assert sum(one.numel() for one in net.parameters()) - norm == PUBLISHED[name][2]
    assert norm == (2 * 16 * (1 + name.endswith("h")) if name.startswith("unet") else 0)
    assert net.levels == (9 if name.startswith("fcn") else 7)


@pytest.mark.parametrize("name", SCENE_BACKBONES)
@pytest.mark.parametrize("variant", ["baseline", "manual"])
def test_binary_parts_are_the_published_ones(name, variant):
    net = published(name, variant)
    found = [0, 0, 0, 0, 0]
    for module in net.modules():
        if isinstance(module, SscLayer):
            found[0] += module.conv.weight.numel()
            found[3] += 0 if module.projection is None else module.projection.weight.numel()
        if isinstance(module, (Conv, DeConv)):
            found[1 if isinstance(module, Conv) else 2] += module.conv.weight.numel()
            found[4] += module.point.weight.numel()
    assert tuple(found) == PARTS[name]
    real = {n.split(".")[0] for n, m in net.named_modules() if isinstance(m, Weighted) and m.binarizer is None}
    classifier = "classifiers" if name.startswith("fcn") else "classifier"
    assert real == {"stem", classifier, "down"} | ({"up"} if name.startswith("unet") else set())


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet_s", "fcn_s"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns(name, variant, batch):
    net = small(name, variant)
    x, at = batch(net)
    initialise(net, x, at)
    if variant == "net":
        start_search(net)
    labels = torch.arange(len(x)) % 4
    F.cross_entropy(net(x, at), labels).backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert still == []
    moved = sum(float(p.grad.abs().sum()) > 0 for p in net.parameters())
    assert moved > 0.9 * len(list(net.parameters()))  # at the coarsest level, of few sites, some gradients are zero


@pytest.mark.parametrize("variant", ["real", "baseline", "net"])
def test_loss_falls_in_every_stage(variant, rng):
    torch.manual_seed(0)
    net = UNet(design_of(variant, None), classes=4, features=3, width=4, blocks=1, levels=3)
    at = pyramid_of(room(rng, 300, 12.0), net.levels, net.size)
    x = torch.randn(at.sites(0), 3)
    labels = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    for binary in [True] if variant == "real" else [False, True]:
        set_weights_binary(net, binary)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        losses = []
        for _ in range(8):
            loss = F.cross_entropy(net(x, at), labels)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[-1] < losses[0]


def test_search_hands_its_network_over(batch):
    net = small("unet_s", "net", groups=2)
    x, at = batch(net)
    before = set(net.state_dict())
    start_search(net)
    assert net(x, at).shape == (len(x), 4)
    end_search(net)
    assert set(net.state_dict()) == before
    assert net(x, at).shape == (len(x), 4)


@pytest.mark.parametrize("name", ["unet_s", "fcn_s"])
def test_answers_of_stacked_clouds_are_those_of_each(rng, name):
    net = small(name, "manual")
    for norm in (m for m in net.modules() if isinstance(m, Norm)):
        norm.running_mean.normal_()
    net.eval()
    pyramids = [geometry_of(room(rng, 300, 20.0), net.levels, net.size) for _ in range(2)]
    xs = [torch.randn(len(p.levels[0].sites), 3) for p in pyramids]
    with torch.no_grad():
        each = [net(x, TensorPyramid.of(p)) for x, p in zip(xs, pyramids, strict=True)]
        together = net(torch.cat(xs), TensorPyramid.of(stack(pyramids)))
    torch.testing.assert_close(together, torch.cat(each), rtol=1e-4, atol=1e-4)


# -- form ----------------------------------------------------------------------------------------------------------

LEAVES = (SparseConv, Layer, NormAct, ChildMean, Unpool, Join, Add)


class Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES)


@pytest.mark.parametrize("name", ["unet_s", "fcn_s"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_fx_sees_layers_alone(name, variant):
    net = small(name, variant)
    graph = Tracer().trace(net)
    kinds = {node.op for node in graph.nodes}
    assert kinds == {"placeholder", "call_module", "output"}
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    weighted = {n for n, m in net.named_modules() if isinstance(m, Weighted)}
    assert weighted <= set(called)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: small("unet", "real"), "unknown backbone 'unet'; did you mean 'unet_.'"),
        (lambda: small("unet_s", "manual", groups=5), "groups: expected a divisor of the 16 output channels, found 5"),
        (lambda: small("fcn_s", "net", candidates="edges"), "unknown set of shift candidates 'edges'"),
    ],
)
def test_what_can_t_be_built_is_named(make, line):
    with pytest.raises(RecipeError, match=line):
        make()
