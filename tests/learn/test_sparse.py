"""Sparse convolution: dense convolution on active sites, exact gradients, the same bits on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from popcloud import native
from popcloud.learn.maps import TensorMap, TensorPyramid
from popcloud.learn.sparse import child_mean, sparse_conv, unpool
from surfaces import geometry_of, pyramid_of, scattered, sphere

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("same", "wide", "down", "up", "groups")
SIDE = 8
needs_engine = pytest.mark.skipif(not native.available(), reason="the engine was not built")


def maps_of(kind: str, at: TensorPyramid) -> list[TensorMap]:
    """The maps of a kind of convolution on a pyramid of 5^3."""
    if kind == "groups":
        return [at.window(0), at.window(0, (1, -1, 0))]
    one = {"same": at.window(0), "wide": at.neighbours(0), "down": at.down[0], "up": at.down[0].transposed}[kind]
    return [one]


def operands(
    kind: str, at: TensorPyramid, inputs: int, outputs: int, dtype: torch.dtype
) -> tuple[list, Tensor, Tensor]:
    """Maps, inputs and weights, from a seed."""
    maps = maps_of(kind, at)
    made = torch.Generator().manual_seed(5)
    x = torch.randn(maps[0].input_sites, inputs, generator=made, dtype=dtype)
    return maps, x, torch.randn(len(maps[0].ranges), inputs, outputs, generator=made, dtype=dtype)


def results(kind: str, at: TensorPyramid, dtype: torch.dtype, outputs: int = 6) -> list[Tensor]:
    """The convolution, and the gradients of inputs and weights for some gradient of the output."""
    maps, x, weight = operands(kind, at, 5, outputs, dtype)
    x.requires_grad_()
    weight.requires_grad_()
    y = sparse_conv(x, weight, *maps)
    grad = torch.linspace(-1, 1, y.numel(), dtype=dtype).sin().view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [x, weight], grad)]


# -- meaning -------------------------------------------------------------------------------------------------------


def dense(x: Tensor, sites: np.ndarray, side: int) -> Tensor:
    """Rows at their places of a cube, zero elsewhere: (1, channels, side, side, side)."""
    cube = x.new_zeros(side, side, side, x.shape[1])
    cube[tuple(torch.from_numpy(sites.astype(np.int64)).T)] = x
    return cube.permute(3, 0, 1, 2)[None]


def rows(cube: Tensor, sites: np.ndarray) -> Tensor:
    """The cube's values at the sites."""
    return cube[0].permute(1, 2, 3, 0)[tuple(torch.from_numpy(sites.astype(np.int64)).T)]


@pytest.mark.parametrize("kind", ["same", "wide", "down", "up"])
def test_equals_dense_convolution_on_active_sites(rng, kind):
    geometry = geometry_of(scattered(rng, side=SIDE), size=5)
    fine, coarse = geometry.levels[0].sites, geometry.levels[1].sites
    maps, x, weight = operands(kind, TensorPyramid.of(geometry), 3, 4, torch.float64)
    size = round(len(weight) ** (1 / 3))
    kernel = weight.permute(2, 1, 0).unflatten(2, (size, size, size))
    if kind == "down":
        expected = rows(F.conv3d(dense(x, fine, SIDE), kernel, stride=2), coarse)
    elif kind == "up":
        expected = rows(F.conv_transpose3d(dense(x, coarse, SIDE // 2), kernel.transpose(0, 1), stride=2), fine)
    else:
        expected = rows(F.conv3d(dense(x, fine, SIDE), kernel, padding=size // 2), fine)
    torch.testing.assert_close(sparse_conv(x, weight, *maps), expected)


def test_groups_are_convolutions_of_their_own(rng):
    at = pyramid_of(scattered(rng), size=5)
    maps, x, weight = operands("groups", at, 3, 8, torch.float64)
    each = [sparse_conv(x, weight[:, :, 4 * i : 4 * i + 4], one) for i, one in enumerate(maps)]
    torch.testing.assert_close(sparse_conv(x, weight, *maps), torch.cat(each, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_exact(rng, kind):
    at = pyramid_of(scattered(rng, 20, 4), levels=2, size=5)
    maps, x, weight = operands(kind, at, 2, 2, torch.float64)
    x.requires_grad_()
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: sparse_conv(x, w, *maps), (x, weight), fast_mode=len(weight) > 8)


def test_site_without_neighbours_is_zero():
    at = pyramid_of(np.array([[0.5, 0.5, 0.5], [9.5, 0.5, 0.5]], np.float32), levels=1)
    weight = torch.ones(27, 1, 1)
    weight[13] = 0  # the centre
    assert sparse_conv(torch.ones(2, 1), weight, at.window(0)).tolist() == [[0.0], [0.0]]


def test_inputs_without_gradient_cost_none(rng):
    maps, x, weight = operands("same", pyramid_of(scattered(rng), size=5), 3, 4, torch.float32)
    weight.requires_grad_()
    sparse_conv(x, weight, *maps).sum().backward()  # a gradient of ones, not laid out in memory
    assert x.grad is None
    assert weight.grad is not None


# -- the engine ----------------------------------------------------------------------------------------------------


@needs_engine
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [2, 6, 32])
def test_engine_computes_what_pytorch_computes(rng, monkeypatch, kind, outputs):
    at = pyramid_of(scattered(rng), size=5)
    fast = results(kind, at, torch.float32, outputs)
    monkeypatch.setattr(native, "available", lambda: False)
    for found, expected in zip(fast, results(kind, at, torch.float32, outputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@needs_engine
@pytest.mark.parametrize("kind", KINDS)
def test_engine_s_bits_do_not_depend_on_threads(rng, kind, threads):
    at = pyramid_of(sphere(rng, 6_000), size=5)
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(results(kind, at, torch.float32))
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others, strict=True))


@needs_engine
def test_sums_of_signs_are_exact(rng):
    at = pyramid_of(scattered(rng), size=5)
    maps, x, weight = operands("same", at, 40, 24, torch.float64)
    x, weight = x.sign(), weight.sign()
    found = sparse_conv(x.float(), weight.float(), *maps)
    assert torch.equal(found.double(), sparse_conv(x, weight, *maps))


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor of floats has that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.is_floating_point():
            self.elements = max(self.elements, made.numel())
        return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_of_all_offsets_are_never_gathered(rng, dtype):
    at = pyramid_of(sphere(rng, 6_000), levels=2, size=5)
    maps, x, weight = operands("wide", at, 8, 8, dtype)
    x.requires_grad_()
    with Largest() as seen:
        sparse_conv(x, weight, *maps).sum().backward()
    assert seen.elements <= max(x.numel(), weight.numel())
    assert at.neighbours(0).pairs * 8 > 20 * x.numel()


# -- pooling -------------------------------------------------------------------------------------------------------


def test_child_mean_is_the_mean_of_active_children(rng):
    at = pyramid_of(scattered(rng))
    x = torch.randn(at.sites(0), 3)
    expected = torch.stack([x[at.parents[0] == row].mean(0) for row in range(at.sites(1))])
    torch.testing.assert_close(child_mean(x, at, 0), expected)


def test_unpool_copies_the_parent(rng):
    at = pyramid_of(scattered(rng))
    x = torch.randn(at.sites(2), 3)
    assert torch.equal(unpool(x, at, 1), x[at.parents[1]])


@pytest.mark.parametrize(("layer", "level"), [(child_mean, 0), (unpool, 1)])
def test_gradients_of_pooling_are_exact(rng, layer, level):
    at = pyramid_of(scattered(rng, 20, 4), levels=2)
    x = torch.randn(at.sites(level), 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, at, 0), (x,))


def test_mean_of_what_was_copied_is_the_same_again(rng):
    at = pyramid_of(scattered(rng))
    x = torch.randn(at.sites(1), 4)
    torch.testing.assert_close(child_mean(unpool(x, at, 0), at, 0), x)
