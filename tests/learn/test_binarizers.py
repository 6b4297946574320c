"""What is particular to one binarizer; what holds for all is tests/laws/test_binarizers.py."""

from __future__ import annotations

import math

import pytest
import torch

from popcloud.learn.binarizers import ApproxSign, BiReal, Bnn, EdeSign, IrNet, Lsr, ReAct, SteSign, Xnor, signs


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
    Bnn(3, 1).after_step(weight)
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
