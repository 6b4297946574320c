"""What is particular to one binarizer; what holds for all is tests/laws/test_binarizers.py."""

from __future__ import annotations

import math

import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn.binarizers import (
    Abc3,
    Abc5,
    ApproxSign,
    BiReal,
    Bnn,
    EdeSign,
    IrNet,
    Lab,
    Lsr,
    Poem,
    ReAct,
    RealToBinary,
    SteSign,
    Xnor,
    XnorPlusPlus,
    signs,
)
from popcloud.learn.binarizers.poem import drawn
from popcloud.learn.layers import Layer, after_step


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_signs_of_special_numbers(dtype):
    x = torch.tensor([-math.inf, -1, -0.0, 0.0, 1, math.inf, math.nan], dtype=dtype)
    assert signs(x).tolist() == [-1, -1, 1, 1, 1, 1, 1]
    assert signs(x).dtype == dtype


def test_signs_of_the_smallest_numbers():
    least = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    assert signs(torch.stack([-least, least])).tolist() == [-1, 1]


def test_signs_of_nothing_and_of_a_view():
    assert signs(torch.zeros(0, 3)).shape == (0, 3)
    assert SteSign.apply(torch.zeros(0, 3, requires_grad=True)).shape == (0, 3)
    x = torch.arange(-3.0, 3.0).view(2, 3).T
    assert signs(x).tolist() == [[-1, 1], [-1, 1], [-1, 1]]


def test_straight_through_passes_up_to_one_and_not_beyond():
    x = torch.tensor([-1.5, -1.0, -0.2, 0.0, 1.0, 1.0000001, math.nan], requires_grad=True)
    SteSign.apply(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0, 0]


def test_straight_through_without_a_mask_gives_the_same():
    inside = torch.linspace(-1, 1, 11)
    alone, beside = inside.clone().requires_grad_(), torch.cat([inside, torch.tensor([9.0])]).requires_grad_()
    grad = torch.linspace(3, 5, 12)
    SteSign.apply(alone).backward(grad[:11])
    SteSign.apply(beside).backward(grad)
    assert torch.equal(alone.grad, beside.grad[:11])
    assert beside.grad[11] == 0


def test_gradient_that_came_in_is_left_as_it_was():
    grad = torch.ones(3)
    for rule in (SteSign.apply, ApproxSign.apply, lambda x: EdeSign.apply(x, 1.0, 2.0)):
        rule(torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)).backward(grad)
    assert grad.tolist() == [1, 1, 1]


def test_parabola_has_two_at_zero_and_nothing_from_one_on():
    x = torch.tensor([-1.0, -0.75, 0.0, 0.25, 1.0, 4.0], requires_grad=True)
    ApproxSign.apply(x).sum().backward()
    assert x.grad.tolist() == [0, 0.5, 2, 1.5, 0, 0]


@pytest.mark.parametrize(("progress", "t", "k"), [(0.0, 0.1, 10.0), (0.5, 1.0, 1.0), (1.0, 10.0, 1.0)])
def test_error_decay_runs_from_wide_to_sharp(progress, t, k):
    binarizer = IrNet(4, 2)
    binarizer.schedule(progress)
    assert binarizer.t == pytest.approx(t)
    assert binarizer.k == pytest.approx(k)


def test_error_decay_of_the_paper_s_code_by_argument():
    binarizer = IrNet(4, 2, first=1e-3)
    assert (binarizer.t, binarizer.k) == pytest.approx((1e-3, 1e3))
    binarizer.schedule(0.25)
    assert binarizer.t == pytest.approx(10 ** (-3 + 4 * 0.25))


def test_error_decay_gradient_follows_the_schedule():
    binarizer, x = IrNet(3, 2), torch.tensor([[0.0, 0.1, 2.0]], dtype=torch.float64, requires_grad=True)
    binarizer.schedule(1.0)
    binarizer.inputs_signs(x).sum().backward()
    torch.testing.assert_close(x.grad, 10 * (1 - torch.tanh(10 * x.detach()) ** 2))


def test_ir_net_scale_is_a_power_of_two_of_the_standardised_weights(random):
    weight = torch.randn(5, 64, generator=random)
    weight[3] = weight[3].sign() * (weight[3].abs() ** 8)  # a long tail: small mean magnitude
    weight[4, :63] = 0.001 * weight[4, :63]
    magnitude = ((weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)).abs().mean(1)
    expected = [2.0 ** round(math.log2(m)) for m in magnitude.tolist()]
    assert IrNet(64, 5).scale(weight).tolist() == expected
    assert len(set(expected)) > 1


def test_xnor_centres_rows_and_bi_real_does_not(random):
    weight = torch.randn(4, 32, generator=random) + 3
    assert (BiReal(32, 4).weight_signs(weight) == 1).float().mean() > 0.9
    assert 0.3 < (Xnor(32, 4).weight_signs(weight) == 1).float().mean() < 0.7
    torch.testing.assert_close(BiReal(32, 4).scale(weight), weight.abs().mean(1))
    torch.testing.assert_close(Xnor(32, 4).scale(weight), (weight - weight.mean(1, keepdim=True)).abs().mean(1))
    torch.testing.assert_close(ReAct(32, 4).scale(weight), weight.abs().mean(1))


def test_xnor_factor_of_a_row_is_its_mean_magnitude():
    x = torch.tensor([[[1.0, -3.0], [0.0, 0.5]]])
    assert Xnor(2, 1).row_scale(x).tolist() == [[[2.0], [0.25]]]


def test_bnn_scales_nothing_and_clips():
    weight = torch.tensor([[-3.0, 0.5, 1.2]])
    assert Bnn(3, 1).scale(weight).tolist() == [1.0]
    Bnn(3, 1).after_step(weight, {})
    assert weight.tolist() == [[-1.0, 0.5, 1.0]]


@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_layer_wise_scale_starts_at_the_ratio_of_the_products_spread(random, offset):
    weight = torch.randn(24, 40, generator=random) * 0.1 + 0.05
    x = torch.randn(6, 50, 40, generator=random) + offset
    binarizer = Lsr(40, 24)
    binarizer.initialise(x, weight)
    centred, rows = (weight - weight.mean()).double(), x.reshape(-1, 40).double()
    ratio = (rows @ centred.T).std() / (signs(rows) @ signs(centred).T).std()
    assert binarizer.alpha.item() == pytest.approx(float(ratio), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 2.0, math.nan])
def test_layer_wise_scale_of_a_blank_batch_is_the_weights_own(random, value):
    weight = torch.randn(24, 40, generator=random)
    binarizer = Lsr(40, 24)
    x = torch.zeros(8, 40) if value == 0 else torch.full((1, 40), value)
    if value == 2.0:
        weight = weight[:1].expand(24, 40).contiguous()  # every product is the same number
    binarizer.initialise(x, weight)
    centred = (weight - weight.mean()).double()
    assert binarizer.alpha.item() == pytest.approx(float(centred.std() / signs(centred).std()), rel=1e-5)


def test_layer_wise_scale_of_nothing_at_all_is_one():
    binarizer = Lsr(4, 2)
    binarizer.initialise(torch.zeros(3, 4), torch.zeros(2, 4))
    assert binarizer.alpha.item() == 1


@pytest.mark.parametrize("seed", range(6))
def test_layer_wise_signs_are_the_same_for_any_number_of_threads(seed):
    weight = torch.randn(1024, 128, generator=torch.Generator().manual_seed(seed)) * 0.03
    for _ in range(5):
        weight[0] = weight.mean(dtype=torch.float64).float()
    ulp = weight[0, 0].abs() * 2**-23
    weight[0] += torch.arange(-64, 64) * ulp  # signs that hang on the last places of the mean
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(Lsr(128, 1024).frozen(weight).weights)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_react_learns_where_an_input_turns():
    binarizer = ReAct(2, 1)
    binarizer.shift.data = torch.tensor([0.5, -1.0])
    x = torch.tensor([[0.4, -0.9], [0.5, -1.1]])
    assert binarizer.inputs_signs(x).tolist() == [[-1, 1], [1, -1]]
    assert binarizer.threshold(torch.zeros(1, 2)).tolist() == [0.5, -1.0]


# -- DoReFa-Net ----------------------------------------------------------------------------------------------------


def test_dorefa_multiplies_zeros_and_ones_by_scaled_signs(random):
    layer = Layer(9, 4, binarizer="dorefa", norm=False).double()
    x = torch.rand(5, 9, generator=random, dtype=torch.float64) * 3 - 1
    expected = (x >= 0.5).double() @ (signs(layer.weight) * layer.weight.abs().mean()).T
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.eval()(x), expected)


def test_dorefa_has_the_gradients_of_clipped_inputs_and_of_the_weights_themselves(random):
    layer = Layer(9, 4, binarizer="dorefa", norm=False).double()
    x = (torch.rand(5, 9, generator=random, dtype=torch.float64) * 3 - 1).requires_grad_()
    grad = torch.randn(5, 4, generator=random, dtype=torch.float64)
    layer(x).backward(grad)
    binary = signs(layer.weight) * layer.weight.abs().mean()
    torch.testing.assert_close(x.grad, (grad @ binary) * ((x >= 0) & (x <= 1)))
    torch.testing.assert_close(layer.weight.grad, grad.T @ (x >= 0.5).double())


# -- XNOR-Net++ ----------------------------------------------------------------------------------------------------


def test_xnor_plus_plus_starts_at_the_mean_magnitude_of_the_layer_or_of_each_output(random):
    weight = torch.randn(4, 32, generator=random)
    one, each = XnorPlusPlus(32, 4), XnorPlusPlus(32, 4, per_channel=True)
    for binarizer in (one, each):
        binarizer.initialise(torch.zeros(2, 32), weight)
    torch.testing.assert_close(one.scale(weight), weight.abs().mean()[None])
    torch.testing.assert_close(each.scale(weight), weight.abs().mean(1))


# -- LAB -----------------------------------------------------------------------------------------------------------


def test_lab_weighs_magnitudes_by_adam_s_curvature(random):
    layer = Layer(12, 3, binarizer="lab")
    assert layer.binarizer.scale(layer.weight).item() == pytest.approx(layer.weight.abs().mean().item())
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    for _ in range(3):
        layer(torch.randn(8, 12, generator=random)).square().sum().backward()
        optimizer.step()
        after_step(layer, optimizer)
    d = optimizer.state[layer.weight]["exp_avg_sq"].sqrt() + 1e-8
    expected = (d * layer.weight).abs().sum() / d.sum()
    torch.testing.assert_close(layer.binarizer.scale(layer.weight)[0], expected.detach())
    assert expected.item() != pytest.approx(layer.weight.abs().mean().item(), rel=1e-3)


def test_lab_clips_the_weights_and_asks_for_adam(random):
    weight = torch.tensor([[-3.0, 0.5]])
    Lab(2, 1).after_step(weight, {"exp_avg_sq": torch.ones(1, 2)})
    assert weight.tolist() == [[-1.0, 0.5]]
    layer = Layer(2, 1, binarizer="lab")
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    layer(torch.randn(4, 2, generator=random)).sum().backward()
    optimizer.step()
    with pytest.raises(RecipeError, match="lab: expected the second moments that Adam keeps, found none; choose adam"):
        after_step(layer, optimizer)


# -- ABC-Net -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Abc3, Abc5])
def test_several_signs_come_as_near_to_the_weights_as_they_can(random, kind):
    weight = torch.randn(6, 50, generator=random, dtype=torch.float64) + 0.1
    binarizer = kind(50, 6).double()
    bases = binarizer.weight_signs(weight).detach()
    steps = torch.linspace(-1, 1, kind.bases, dtype=torch.float64)
    for base, step in zip(bases, steps, strict=True):
        assert torch.equal(base, signs(weight - weight.mean() + step * weight.std()))
    best = torch.linalg.lstsq(bases.flatten(1).T, weight.flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(binarizer.trained_weights(weight), torch.tensordot(best, bases, 1))
    torch.testing.assert_close(binarizer.scale(weight), binarizer.beta.detach()[:, None] * best)


def test_more_signs_come_nearer(random):
    weight = torch.randn(6, 50, generator=random)
    off = [float((b.trained_weights(weight) - weight).norm()) for b in (BiReal(50, 6), Abc3(50, 6), Abc5(50, 6))]
    assert off[0] > 1.3 * off[1]
    assert off[1] > 1.2 * off[2]


def test_signs_that_agree_share_their_factor():
    weight = torch.full((2, 4), 3.0)  # no spread: all signs are one
    torch.testing.assert_close(Abc3(4, 2).trained_weights(weight), weight)
    assert Abc5(4, 2).trained_weights(torch.zeros(2, 4)).tolist() == torch.zeros(2, 4).tolist()


def test_thresholds_start_where_they_cut_a_standard_normal_into_equal_parts(random):
    x = torch.randn(40000, 1, generator=random)
    share = (Abc3(1, 1).inputs_signs(x) > 0).float().mean((1, 2))
    torch.testing.assert_close(share, torch.tensor([0.75, 0.5, 0.25]), atol=0.01, rtol=0)


def test_window_of_the_gradient_is_one_wide():
    binarizer = Abc3(5, 1)
    binarizer.shift.data = torch.tensor([0.0, 0.5, 1.0])  # the middle one turns at 0
    x = torch.tensor([[-0.51, -0.5, 0.0, 0.5, 0.51]], requires_grad=True)
    binarizer.inputs_signs(x)[1].sum().backward()
    assert x.grad.tolist() == [[0, 1, 1, 1, 0]]
    assert binarizer.shift.grad.tolist() == [0, 3, 0]


# -- POEM ----------------------------------------------------------------------------------------------------------


def test_weights_between_two_means_are_drawn_to_the_likelier_one(random):
    noise = 0.05 * torch.randn(2, 4000, generator=random)
    pulled = drawn(noise + torch.tensor([[-0.2], [0.4]]))
    weight = noise + torch.tensor([[-0.2], [0.4]])
    low, high = weight[0].mean(), weight[1].mean()
    outside = (weight < low - 0.005) | (weight > high + 0.005)
    assert (pulled[outside] == 0).all()
    near_low = (weight > low + 0.005) & (weight < 0)
    near_high = (weight > 0.2) & (weight < high - 0.005)
    torch.testing.assert_close(pulled[near_low], (weight - low)[near_low], atol=0.01, rtol=0)  # off it, downhill
    torch.testing.assert_close(pulled[near_high], (weight - high)[near_high], atol=0.01, rtol=0)


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.full((3, 4), -2.0), torch.eye(4)])
def test_weights_of_one_or_two_values_are_left_alone(weight):
    assert torch.isfinite(drawn(weight)).all()
    torch.testing.assert_close(drawn(weight), torch.zeros_like(weight), atol=1e-5, rtol=0)


def test_poem_s_terms_beside_the_straight_through_gradient(random):
    weight = torch.randn(3, 8, generator=random, dtype=torch.float64).requires_grad_()
    grad = torch.randn(3, 8, generator=random, dtype=torch.float64)
    binarizer = Poem(8, 3, pull=0.3, weight_decay=0.2).double()
    binarizer.alpha.data.uniform_(0.5, 1.5, generator=random)
    binarizer.trained_weights(weight).backward(grad)
    alpha, b = binarizer.alpha.detach()[:, None], signs(weight)
    through = grad * alpha * (weight.abs() <= 1)
    torch.testing.assert_close(weight.grad, through + 0.2 * (weight - alpha * b) * alpha + 0.3 * drawn(weight))
    free = binarizer.alpha.detach().clone().requires_grad_()
    plain = (grad * free[:, None] * b).sum() + 0.2 * 0.5 * (weight.detach() - free[:, None] * b).square().sum()
    torch.testing.assert_close(binarizer.alpha.grad, torch.autograd.grad(plain, free)[0])


def test_a_batch_norm_that_falls_turns_thresholds_and_weights_around(random):
    binarizer, weight = Poem(6, 3).eval(), torch.randn(3, 6, generator=random)
    binarizer.norm.weight.data = torch.tensor([1.0, -2.0, 0.0, 0.0, 0.5, -0.5])
    binarizer.norm.bias.data = torch.tensor([0.3, 0.3, 0.1, -0.1, 0.0, 0.0])
    frozen, x = binarizer.frozen(weight), torch.randn(500, 6, generator=random)
    expected = binarizer.inputs_signs(x) @ signs(weight).T
    assert torch.equal(torch.where(x < frozen.threshold, -1.0, 1.0) @ frozen.weights.T, expected)
    assert frozen.threshold[2:4].tolist() == [-math.inf, math.inf]  # a flat one never turns


# -- Real-to-Binary ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 16), (3, 7, 16), (3, 5, 4, 16)])
def test_gate_sees_the_mean_over_all_points_of_a_cloud(random, shape):
    binarizer, x = RealToBinary(16, 5), torch.randn(shape, generator=random)
    mean = x.reshape(3, -1, 16).mean(1)
    hidden = (mean @ binarizer.squeeze.weight.T + binarizer.squeeze.bias).relu()
    expected = torch.sigmoid(hidden @ binarizer.excite.weight.T + binarizer.excite.bias)
    assert hidden.shape == (3, 2)  # eight times fewer
    for mode in (True, False):
        found = binarizer.train(mode).gate(x)
        assert found.shape == (3, *[1] * (len(shape) - 2), 5)
        torch.testing.assert_close(found.reshape(3, 5), expected)


def test_gate_of_a_layer_has_true_gradients(random):
    layer = Layer(8, 3, binarizer="r2b").double()
    x = torch.randn(2, 5, 8, generator=random, dtype=torch.float64)
    layer(x).square().sum().backward()
    for parameter in (layer.binarizer.squeeze.weight, layer.binarizer.excite.bias, layer.binarizer.alpha):
        index = (0,) * parameter.ndim
        step, around = 1e-6, []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[index] += sign * step
                around.append(float(layer(x).square().sum()))
                parameter[index] -= sign * step
        assert parameter.grad[index].item() == pytest.approx((around[0] - around[1]) / (2 * step), rel=1e-4, abs=1e-7)
