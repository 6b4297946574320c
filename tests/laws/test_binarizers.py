"""Law of the binarizers: what every member of BINARIZERS promises to the layers and to export."""

from __future__ import annotations

import math

import pytest
import torch

from popcloud.learn import ordered
from popcloud.learn.binarizers import BINARIZERS, ApproxSign, Binarizer, EdeSign, Frozen, SteSign
from popcloud.learn.layers import Layer, PooledLayer, set_progress

INPUTS, OUTPUTS = 70, 9
NAMES = list(BINARIZERS)
every = pytest.mark.parametrize("name", NAMES)


def make(name: str, dtype: torch.dtype = torch.float32) -> tuple[Binarizer, torch.Tensor]:
    """A binarizer whose learned parts are away from their start, and latent weights with both signs in every row."""
    generator = torch.Generator().manual_seed(1)
    binarizer = BINARIZERS[name](INPUTS, OUTPUTS).to(dtype)
    for parameter in binarizer.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return binarizer, 0.5 * torch.randn(OUTPUTS, INPUTS, generator=generator, dtype=dtype)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return 1.5 * torch.randn(*shape, INPUTS, generator=torch.Generator().manual_seed(2), dtype=dtype)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_are_minus_and_plus_one_of_the_same_type(name, dtype):
    binarizer, weight = make(name, dtype)
    x = inputs(4, 5, dtype=dtype)
    for found, like in ((binarizer.inputs_signs(x), x), (binarizer.weight_signs(weight), weight)):
        assert found.shape == like.shape
        assert found.dtype == dtype
        assert set(found.unique().tolist()) == {-1.0, 1.0}


@every
def test_nothing_it_is_given_is_changed(name):
    binarizer, weight = make(name)
    x = inputs(4)
    before = x.clone(), weight.clone()
    binarizer.inputs_signs(x), binarizer.weight_signs(weight), binarizer.scale(weight), binarizer.frozen(weight)
    binarizer.initialise(x, weight)
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])


@every
def test_an_input_turns_at_its_threshold_and_no_nearer(name):
    binarizer, weight = make(name)
    threshold = binarizer.threshold(weight)
    below = torch.nextafter(threshold, torch.tensor(-math.inf))
    assert (binarizer.inputs_signs(threshold[None]) == 1).all()
    assert (binarizer.inputs_signs(below[None]) == -1).all()


@every
def test_zero_of_either_sign_and_nan_are_plus_one_where_nothing_is_learned(name):
    binarizer = BINARIZERS[name](3, 2)
    assert binarizer.inputs_signs(torch.tensor([[0.0, -0.0, math.nan]])).tolist() == [[1, 1, 1]]


@every
def test_weights_at_their_centre_are_plus_one(name):
    signs = BINARIZERS[name](4, 2).weight_signs(torch.zeros(2, 4))
    assert (signs == 1).all()


@every
def test_frozen_is_what_training_computes(name):
    binarizer, weight = make(name)
    frozen, x = binarizer.frozen(weight), inputs(6)
    assert isinstance(frozen, Frozen)
    assert torch.equal(frozen.weights, binarizer.weight_signs(weight))
    assert torch.equal(frozen.scale, binarizer.scale(weight))
    seen = torch.where(x < frozen.threshold, -1.0, 1.0)
    assert torch.equal(seen, binarizer.inputs_signs(x))


@every
def test_frozen_has_the_shapes_it_says_and_no_gradient(name):
    binarizer, weight = make(name)
    frozen = binarizer.frozen(weight.requires_grad_())
    assert frozen.threshold.shape == (INPUTS,)
    assert frozen.weights.shape == (OUTPUTS, INPUTS)
    assert frozen.scale.shape in [(OUTPUTS,), (1,)]
    assert not any(part.requires_grad for part in (frozen.threshold, frozen.weights, frozen.scale))


@every
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_in_eval_mode_computes_what_frozen_says(name, norm, dtype):
    binarizer, weight = make(name, dtype)
    layer = Layer(INPUTS, OUTPUTS, binarizer=name, norm=norm).to(dtype).eval()
    layer.binarizer, layer.weight.data = binarizer, weight
    x, frozen = inputs(6, dtype=dtype), binarizer.frozen(weight)
    d = torch.where(x < frozen.threshold, -1.0, 1.0).to(dtype) @ frozen.weights.T
    if binarizer.scales_rows:
        d = d * binarizer.row_scale(x)
    a, b = layer.folded()
    torch.testing.assert_close(layer(x), ordered.fma(d, a, b), rtol=0, atol=0)
    if not norm:
        torch.testing.assert_close(a, frozen.scale.expand(OUTPUTS), rtol=0, atol=0)
        assert (layer.bias is not None) == binarizer.bias
        assert torch.equal(b, torch.zeros_like(b) if layer.bias is None else layer.bias)


@every
def test_training_and_eval_mode_see_the_same_products(name):
    binarizer, weight = make(name, torch.float64)
    layer = Layer(INPUTS, OUTPUTS, binarizer=name, norm=False).double()
    layer.binarizer, layer.weight.data = binarizer, weight
    x = inputs(6, dtype=torch.float64)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-12, atol=1e-12)


@every
def test_scale_is_finite_and_positive_for_fresh_weights(name):
    binarizer, weight = BINARIZERS[name](INPUTS, OUTPUTS), make(name)[1]
    scale = binarizer.scale(weight)
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()


@every
def test_factor_per_row_is_there_where_it_is_promised(name):
    binarizer, _ = make(name)
    x = inputs(3, 4).requires_grad_()
    if binarizer.scales_rows:
        assert binarizer.row_scale(x).shape == (3, 4, 1)
        assert not binarizer.row_scale(x).requires_grad
    else:
        with pytest.raises(TypeError, match="no factor per row"):
            binarizer.row_scale(x)


GRADIENT = {  # d sign / dx by the papers' formulas, and where it must be zero
    SteSign: lambda x: (x.abs() <= 1).to(x),
    ApproxSign: lambda x: torch.where(x < 0, 2 + 2 * x, 2 - 2 * x).where(x.abs() < 1, torch.zeros_like(x)),
    EdeSign: lambda x: 10.0 * 0.1 * (1 - torch.tanh(0.1 * x) ** 2),  # k = 1 / t = 10 at the start
}
INPUT_GRADIENT = {"bireal": ApproxSign, "react": ApproxSign, "irnet": EdeSign}  # the others: SteSign


@every
@pytest.mark.parametrize("reach", [0.9, 3.0])
def test_gradient_of_inputs_is_the_paper_s(name, reach):
    binarizer, weight = make(name, torch.float64)
    x = torch.linspace(-reach, reach, 41 * INPUTS, dtype=torch.float64).view(41, INPUTS).requires_grad_()
    grad = torch.linspace(-1, 2, 41 * INPUTS, dtype=torch.float64).view(41, INPUTS)
    binarizer.inputs_signs(x).backward(grad)
    slope = GRADIENT[INPUT_GRADIENT.get(name, SteSign)](x.detach() - binarizer.threshold(weight))
    torch.testing.assert_close(x.grad, grad * slope)
    assert (x.grad == 0).any() == bool((slope == 0).any())


@every
def test_learned_thresholds_get_the_inputs_gradient_negated(name):
    binarizer, _ = make(name, torch.float64)
    x = inputs(7, dtype=torch.float64).requires_grad_()
    binarizer.inputs_signs(x).sum().backward()
    learned = dict(binarizer.named_parameters()).get("shift")
    assert (learned is not None) == (name == "react")
    if learned is not None:
        torch.testing.assert_close(learned.grad, -x.grad.sum(0))


def plain_weight_signs(name: str, weight: torch.Tensor) -> torch.Tensor:
    """The formulas of the papers, with autograd alone: the sign stands in by its gradient's integral."""
    if name in ("bnn", "bireal", "react"):
        return weight.clamp(-1, 1)
    if name == "xnor":
        return (weight - weight.mean(1, keepdim=True)).clamp(-1, 1)
    if name == "lsr":
        return (weight - weight.mean()).clamp(-1, 1)
    centred = weight - weight.mean(1, keepdim=True)
    standard = centred / weight.std(1, keepdim=True)
    return 10.0 * torch.tanh(0.1 * standard)


@every
def test_gradient_of_weights_is_the_paper_s(name):
    binarizer, weight = make(name, torch.float64)
    grad = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ours, plain = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    binarizer.weight_signs(ours).backward(grad)
    plain_weight_signs(name, plain).backward(grad)
    torch.testing.assert_close(ours.grad, plain.grad)
    assert torch.isfinite(ours.grad).all()
    assert (ours.grad != 0).any()


@every
def test_scale_has_a_gradient_only_where_it_is_learned(name):
    binarizer, weight = make(name)
    scale = binarizer.scale(weight.requires_grad_())
    assert scale.requires_grad == (name == "lsr")
    if scale.requires_grad:
        scale.sum().backward()
        assert weight.grad is None
        assert binarizer.alpha.grad.tolist() == [1.0]


@every
@pytest.mark.parametrize("pooled", [False, True])
def test_gradients_of_a_layer_are_finite_and_reach_weights_and_inputs(name, pooled):
    torch.manual_seed(0)
    if pooled:
        layer = PooledLayer(INPUTS, OUTPUTS, binarizer=name, pool="ema-max", points=12)
    else:
        layer = Layer(INPUTS, OUTPUTS, binarizer=name, activation="hardtanh")
    x = inputs(5, 12).requires_grad_()
    layer(x).square().sum().backward()
    for tensor in (x, layer.weight, *layer.binarizer.parameters()):
        assert torch.isfinite(tensor.grad).all()
        if tensor.numel() > 1:  # batch norm takes the effect of one factor for all away
            assert (tensor.grad != 0).any()


@every
def test_schedule_moves_only_what_belongs_to_it(name):
    binarizer, weight = make(name)
    before = binarizer.frozen(weight)
    state = {key: value.clone() for key, value in binarizer.state_dict().items()}
    for progress in (0.0, 0.5, 1.0):
        binarizer.schedule(progress)
        after = binarizer.frozen(weight)
        assert torch.equal(after.weights, before.weights)
        assert torch.equal(after.scale, before.scale)
        assert torch.equal(after.threshold, before.threshold)
    assert all(torch.equal(value, state[key]) for key, value in binarizer.state_dict().items())


@every
def test_schedule_depends_on_progress_alone(name):
    x = inputs(4).requires_grad_()

    def gradient(*steps: float) -> torch.Tensor:
        binarizer = BINARIZERS[name](INPUTS, OUTPUTS)
        for progress in steps:
            binarizer.schedule(progress)
        return torch.autograd.grad(binarizer.inputs_signs(x).sum(), x)[0]

    assert torch.equal(gradient(0.7), gradient(0.0, 0.3, 0.9, 0.7))
    assert torch.equal(gradient(), gradient(0.0))


@every
def test_after_step_leaves_the_signs_and_keeps_its_bounds(name):
    binarizer, weight = make(name)
    weight *= 4
    before, mended = binarizer.weight_signs(weight), weight.clone()
    binarizer.after_step(mended)
    assert torch.equal(binarizer.weight_signs(mended), before)
    once = mended.clone()
    binarizer.after_step(mended)
    assert torch.equal(mended, once)
    if name == "bnn":
        assert float(mended.abs().max()) == 1
    else:
        assert torch.equal(mended, weight)


@every
def test_initialise_is_repeatable_and_keeps_the_chance(name):
    (first, weight), (second, _) = make(name), make(name)
    x, state = inputs(3, 4), torch.get_rng_state()
    first.initialise(x, weight)
    second.initialise(x.flatten(0, 1), weight)
    second.initialise(x.flatten(0, 1), weight)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@every
def test_state_survives_save_and_load(name):
    (saved, weight), fresh = make(name), BINARIZERS[name](INPUTS, OUTPUTS)
    saved.initialise(inputs(8), weight)
    fresh.load_state_dict(saved.state_dict())
    ours, theirs = saved.frozen(weight), fresh.frozen(weight)
    assert torch.equal(ours.scale, theirs.scale)
    assert torch.equal(ours.threshold, theirs.threshold)
    assert ("alpha" in saved.state_dict()) == (name == "lsr")


@every
def test_progress_reaches_every_layer(name):
    layer = Layer(INPUTS, OUTPUTS, binarizer=name)
    seen = []
    layer.binarizer.schedule = seen.append
    set_progress(torch.nn.Sequential(layer), 3, 12)
    assert seen == [0.25]
