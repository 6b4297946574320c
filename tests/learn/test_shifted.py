"""Shifted convolution: its formula, its price, the composite kernel, and a search that finds what was planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from popcloud.errors import RecipeError
from popcloud.learn import shifted
from popcloud.learn.maps import TensorPyramid
from popcloud.learn.shifted import ALL, CANDIDATES, CONFIDENCES, CORNERS, FACES, ShiftedConv, hand_shifts
from popcloud.learn.sparse import sparse_conv
from popcloud.learn.sparse_layers import SparseConv, set_weights_binary
from surfaces import geometry_of, pyramid_of, room, scattered, sphere

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def at(rng):
    return pyramid_of(scattered(rng), size=5)


def shifted_conv(groups: int = 2, inputs: int = 3, outputs: int = 4, **how) -> ShiftedConv:
    """A shifted convolution at level 0."""
    return ShiftedConv(inputs, outputs, level=0, groups=groups, **how)


def by_formula(x: Tensor, kernel: Tensor, sites: np.ndarray, shift: tuple[int, int, int]) -> Tensor:
    """y_u = sum over o, u + s + o active, of W_o^T x_(u + s + o), site by site."""
    row_of = {tuple(site): row for row, site in enumerate(sites.tolist())}
    y = x.new_zeros(len(sites), kernel.shape[2])
    for row, site in enumerate(sites.tolist()):
        for k, offset in enumerate(ALL):
            near = row_of.get(tuple(u + s + o for u, s, o in zip(site, shift, offset, strict=True)))
            if near is not None:
                y[row] += x[near] @ kernel[k]
    return y


# -- the operator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 0, 0), (-1, 1, -1), (0, 1, 1)])
def test_is_the_paper_s_formula(rng, shift):
    geometry = geometry_of(scattered(rng, 40, 5), levels=1, size=5)
    layer = shifted_conv(shifts=[(0, 0, 1), shift]).double()
    x = torch.randn(len(geometry.levels[0].sites), 3, dtype=torch.float64)
    found = layer(x, TensorPyramid.of(geometry))
    kernel = layer.kernel(layer.weight)
    for group, one in enumerate([(0, 0, 1), shift]):
        columns = slice(2 * group, 2 * group + 2)
        expected = by_formula(x, kernel[:, :, columns], geometry.levels[0].sites, one)
        torch.testing.assert_close(found[:, columns], expected)


@pytest.mark.parametrize("binarizer", ["real", "react"])
def test_without_shift_is_the_plain_convolution(at, binarizer):
    layer = shifted_conv(binarizer=binarizer, norm=True, activation="rprelu")
    plain = SparseConv(3, 4, kind="same", level=0, binarizer=binarizer, norm=True, activation="rprelu")
    plain.load_state_dict({name: one for name, one in layer.state_dict().items() if name != "shifts"})
    x, shortcut = torch.randn(at.sites(0), 3), torch.randn(at.sites(0), 4)
    assert torch.equal(layer(x, shortcut, at), plain(x, shortcut, at))
    assert torch.equal(layer.eval()(x, shortcut, at), plain.eval()(x, shortcut, at))


def test_binary_form_sums_signs_exactly(at):
    layer = shifted_conv(2, 9, 8, binarizer="react", shifts=[(1, 1, 0), (-1, 0, 0)]).eval()
    x = torch.randn(at.sites(0), 9)
    d = layer.products(x, at)
    signs, weights = torch.where(x < 0, -1.0, 1.0).double(), layer.weight.sign().double()
    maps = [at.window(0, (1, 1, 0)), at.window(0, (-1, 0, 0))]
    assert torch.equal(d.double(), sparse_conv(signs, layer.kernel(weights), *maps))


def test_lonely_site_gives_zero_where_its_group_looks_beside_it():
    at = pyramid_of(np.array([[0.5, 0.5, 0.5], [99.5, 0.5, 0.5]], np.float32), levels=1, size=5)
    layer = shifted_conv(4, 1, 4, binarizer="react", shifts=hand_shifts("faces", 4)).eval()
    d = layer.products(torch.ones(2, 1), at)
    assert (d.abs() == 1).all()  # the window of every group still holds the site itself, and nothing else


@pytest.mark.parametrize("scene", [sphere, room])
def test_costs_no_more_than_the_plain_convolution_on_surfaces(rng, scene):
    at = pyramid_of(scene(rng), levels=2, size=5)
    for level in range(2):
        plain = at.window(level).pairs
        assert max(at.window(level, shift).pairs for shift in ALL) <= plain
        assert sum(at.window(level, shift).pairs for shift in ALL) < 27 * plain


def test_cost_is_a_property_of_surfaces_not_a_law():
    """Sites two apart have no neighbour in 3^3, one in the shifted window: no bound holds for all sets of sites."""
    at = pyramid_of(np.array([[0.5, 0.5, 0.5], [2.5, 0.5, 0.5]], np.float32), levels=1, size=5)
    assert (at.window(0).pairs, at.window(0, (1, 0, 0)).pairs) == (2, 3)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_cost_on_random_sites_is_the_plain_one_s_but_for_chance(rng, share):
    at = pyramid_of(scattered(rng, int(share * 20**3), 20), levels=1, size=5)
    plain = at.window(0).pairs
    assert all(0.9 * plain < at.window(0, shift).pairs < 1.1 * plain for shift in ALL)


def test_gradient_is_exact(rng):
    at = pyramid_of(scattered(rng, 15, 4), levels=1, size=5)
    layer = shifted_conv(2, 2, 2, shifts=[(1, 0, -1), (0, 0, 0)]).double()
    x = torch.randn(at.sites(0), 2, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: layer.convolve(x, w, at), (x, weight), fast_mode=True)


# -- hand rules and candidates ---------------------------------------------------------------------------------------


def test_hand_rules():
    assert hand_shifts("faces", 4) == [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0)]
    assert hand_shifts("faces", 8)[1:] == [*FACES, FACES[0]]
    assert sorted(hand_shifts("corners", 8)) == sorted(shift for shift in ALL if 0 not in shift)
    assert hand_shifts("faces", 1) == [(0, 0, 0)]
    assert [sum(axis) for axis in zip(*hand_shifts("faces", 7), strict=True)] == [0, 0, 0]
    assert [sum(axis) for axis in zip(*hand_shifts("corners", 4), strict=True)] == [0, 0, 0]


def test_candidates():
    assert [len(CANDIDATES[name]) for name in ("all", "corners", "faces")] == [27, 9, 7]
    assert set(CANDIDATES["corners"]) == {(0, 0, 0), *CORNERS}
    assert all(len(set(one)) == len(one) for one in CANDIDATES.values())


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: shifted_conv(3), "groups: expected a divisor of the 4 output channels, found 3"),
        (lambda: shifted_conv(0), "found 0"),
        (lambda: shifted_conv(candidates="edges"), "unknown set of shift candidates 'edges'"),
        (lambda: shifted_conv(shifts=[(0, 0, 0), (2, 0, 0)]), r"each of 27 candidates, found the shift \(2, 0, 0\)"),
        (lambda: shifted_conv(candidates="faces", shifts=[(0, 0, 0), (1, 1, 1)]), "of 7 candidates"),
        (lambda: shifted_conv(shifts=[(0, 0, 0)]), "expected 2.*found 1 shifts"),
        (lambda: hand_shifts("edges", 4), "unknown hand rule 'edges'"),
        (lambda: shifted.start_search(nn.Linear(2, 2)), "found none; use variant net"),
        (lambda: shifted.confidence(shifted_conv()), "expected a search"),
        (lambda: shifted_conv().end_search(), "found none to end"),
        (lambda: shifted.copy_shifts(nn.Linear(2, 2), nn.Sequential(shifted_conv())), "for 0, found none at all"),
    ],
)
def test_what_does_not_fit_is_named(make, line):
    with pytest.raises(RecipeError, match=line):
        make()


def test_unknown_confidence_names_the_valid_ones():
    layer = shifted_conv()
    layer.start_search()
    with pytest.raises(RecipeError, match="unknown confidence loss 'entrop'; did you mean 'entropy'"):
        shifted.confidence(layer, "entrop")


def test_narrow_pyramid_is_named(rng):
    at, layer = pyramid_of(scattered(rng), size=3), shifted_conv()
    with pytest.raises(RecipeError, match="size=5"):
        shifted_conv(shifts=[(1, 0, 0), (0, 0, 0)])(torch.randn(at.sites(0), 3), at)
    layer.start_search()
    with pytest.raises(RecipeError, match="size=5"):
        layer(torch.randn(at.sites(0), 3), at)


# -- search --------------------------------------------------------------------------------------------------------


def searching(separate: bool = False, candidates: str = "all", **how) -> ShiftedConv:
    """A shifted convolution in the midst of a search, in float64."""
    layer = shifted_conv(candidates=candidates, separate_kernels=separate, **how).double()
    layer.start_search()
    with torch.no_grad():
        layer.logits.normal_()
        layer.weight.add_(0.1 * torch.randn_like(layer.weight))
    return layer


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("candidates", CANDIDATES)
def test_composite_is_the_weighted_sum_over_candidates(at, separate, candidates):
    layer = searching(separate, candidates)
    x = torch.randn(at.sites(0), 3, dtype=torch.float64)
    pi = layer.logits.softmax(1)
    expected = torch.zeros(at.sites(0), 4, dtype=torch.float64)
    for k, shift in enumerate(CANDIDATES[candidates]):
        rows = layer.weight[4 * k : 4 * k + 4] if separate else layer.weight
        for group in range(2):
            columns = slice(2 * group, 2 * group + 2)
            one = sparse_conv(x, layer.kernel(rows)[:, :, columns], at.window(0, shift))
            expected[:, columns] += pi[group, k] * one
    torch.testing.assert_close(layer(x, at), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("binarizer", ["react", "xnor"])
@pytest.mark.parametrize("weights_binary", [True, False])
@pytest.mark.parametrize("separate", [False, True])
def test_search_sees_binary_activations_and_eval_is_the_same(at, binarizer, weights_binary, separate):
    layer = searching(separate, binarizer=binarizer)
    set_weights_binary(layer, weights_binary)
    x = torch.randn(at.sites(0), 3, dtype=torch.float64)
    y = layer(x, at)
    torch.testing.assert_close(y, layer(x.sign() * 0.5, at))
    torch.testing.assert_close(layer.eval()(x, at), y)


@pytest.mark.parametrize("separate", [False, True])
def test_a_sure_search_and_its_end_compute_the_same(at, separate):
    layer = searching(separate)
    with torch.no_grad():
        layer.logits.zero_()
        layer.logits[0, ALL.index((1, 0, -1))] = layer.logits[1, ALL.index((0, -1, 0))] = 100
    x = torch.randn(at.sites(0), 3, dtype=torch.float64)
    sure = layer(x, at)
    assert layer.best_shifts() == [[1, 0, -1], [0, -1, 0]]
    layer.end_search()
    torch.testing.assert_close(layer(x, at), sure)
    assert layer.shifts.tolist() == [[1, 0, -1], [0, -1, 0]]
    assert {name for name, _ in layer.named_parameters()} == {"weight"}
    assert layer.weight.shape == (4, 81)


def test_search_starts_undecided_and_reaches_every_logit(at):
    net = nn.ModuleList([shifted_conv(), shifted_conv(4)])
    before = [layer.weight.clone() for layer in net]
    shifted.start_search(net)
    logits = shifted.search_parameters(net)
    assert [tuple(one.shape) for one in logits] == [(2, 27), (4, 27)]
    assert all((one == 0.01).all() for one in logits)
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(net, before, strict=True))
    sum(layer(torch.randn(at.sites(0), 3), at).square().sum() for layer in net).backward()
    assert all((one.grad != 0).all() for one in logits)
    shifted.end_search(net)
    assert shifted.search_parameters(net) == []


@pytest.mark.parametrize(
    ("kind", "most"), [("entropy", math.log(27)), ("one_minus_max", 26 / 27), ("sum_pi_one_minus_pi", 26 / 27)]
)
def test_confidence_falls_from_its_most_to_zero(kind, most):
    net = nn.ModuleList([shifted_conv(), shifted_conv(4)])
    shifted.start_search(net)
    assert shifted.confidence(net, kind).item() == pytest.approx(most, rel=1e-5)
    with torch.no_grad():
        for layer in net:
            layer.logits[:, 3] = 200
    assert shifted.confidence(net, kind).item() == pytest.approx(0, abs=1e-6)
    loss = shifted.confidence(net, kind)
    loss.backward()
    assert all(torch.isfinite(one.grad).all() for one in shifted.search_parameters(net))


def test_confidence_is_a_mean_over_groups_of_all_layers():
    net = nn.ModuleList([shifted_conv(1), shifted_conv(2)])
    shifted.start_search(net)
    with torch.no_grad():
        net[0].logits[:, 0] = 200  # sure
    assert set(CONFIDENCES) == {"entropy", "one_minus_max", "sum_pi_one_minus_pi"}
    assert shifted.confidence(net).item() == pytest.approx(math.log(27) * 2 / 3, rel=1e-5)


def test_copied_shifts_are_the_source_s():
    source, target = nn.Sequential(shifted_conv(shifts=[(1, 0, 0), (0, 0, -1)])), nn.Sequential(shifted_conv())
    shifted.copy_shifts(source, target)
    assert shifted.best_shifts(target) == {"0": [[1, 0, 0], [0, 0, -1]]}
    assert not torch.equal(source[0].weight, target[0].weight)


def test_shifts_travel_with_the_state():
    source, target = shifted_conv(shifts=[(1, 0, 0), (0, 0, -1)]), shifted_conv()
    target.load_state_dict(source.state_dict())
    assert target.shifts.tolist() == [[1, 0, 0], [0, 0, -1]]


@pytest.mark.parametrize("binarizer", ["real", "react"])
def test_search_finds_the_planted_shifts(rng, binarizer):
    """The kernel starts near the planted one and is learned along: what is searched is where it lies."""
    torch.manual_seed(1)
    at = pyramid_of(sphere(rng, 1_000, 4.0), levels=1, size=5)
    planted = [(1, 0, -1), (0, -1, 0)]
    teacher = shifted_conv(2, 4, 8, binarizer=binarizer, shifts=planted)
    student = shifted_conv(2, 4, 8, binarizer=binarizer)
    set_weights_binary(nn.ModuleList([teacher, student]), False)
    x = torch.randn(at.sites(0), 4)
    with torch.no_grad():
        teacher.weight.normal_()
        student.weight.copy_(teacher.weight + 0.5 * torch.randn_like(teacher.weight))
        y = teacher(x, at)
    student.start_search()
    optimizer = torch.optim.Adam([{"params": [student.weight], "lr": 0.05}, {"params": [student.logits], "lr": 0.3}])
    for _ in range(40):
        optimizer.zero_grad()
        ((student(x, at) - y).square().mean() + 0.01 * shifted.confidence(student)).backward()
        optimizer.step()
    assert student.best_shifts() == [list(shift) for shift in planted]


@pytest.mark.parametrize("separate", [False, True])
def test_a_search_that_learned_nothing_shifts_nothing(separate):
    layer = ShiftedConv(4, 8, level=0, groups=4, separate_kernels=separate)
    layer.start_search()
    assert layer.best_shifts() == [[0, 0, 0]] * 4
    layer.end_search()
    assert not layer.shifts.any()
