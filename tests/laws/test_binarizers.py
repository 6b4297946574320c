"""Law of the binarizers: what every member of BINARIZERS promises to the layers and to export."""

from __future__ import annotations

import math

import pytest
import torch

from popcloud.learn import ordered
from popcloud.learn.binarizers import BINARIZERS, ApproxSign, Binarizer, EdeSign, Frozen, SteSign
from popcloud.learn.layers import Layer, Norm, PooledLayer, set_progress

INPUTS, OUTPUTS = 70, 9
NAMES = list(BINARIZERS)
every = pytest.mark.parametrize("name", NAMES)
CLIPPED = ("bnn", "lab")  # binarizers that keep latent weights in [-1, 1]
ALPHA = ("lsr", "xnorpp", "lab", "poem", "r2b")  # whose state has a scale `alpha`, in all but lab learned


def make(name: str, dtype: torch.dtype = torch.float32) -> tuple[Binarizer, torch.Tensor]:
    """A binarizer whose learned parts are away from their start, and latent weights with both signs in every row.

    It is in eval mode, where a batch norm of its own goes by its running statistics; every third gain is negative.
    """
    generator = torch.Generator().manual_seed(1)
    binarizer = BINARIZERS[name](INPUTS, OUTPUTS).to(dtype)
    for parameter in binarizer.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    for norm in (module for module in binarizer.modules() if isinstance(module, Norm)):
        norm.running_mean += 0.2 * torch.randn(INPUTS, generator=generator, dtype=dtype)
        norm.weight.data[::3] *= -1
    return binarizer.eval(), 0.5 * torch.randn(OUTPUTS, INPUTS, generator=generator, dtype=dtype)


def falling(binarizer: Binarizer) -> torch.Tensor:
    """Return per input -1 where it passes a batch norm that falls before its sign, else 1."""
    gains = [module.folded()[0] for module in binarizer.modules() if isinstance(module, Norm)]
    return torch.where(gains[0] < 0, -1.0, 1.0).to(gains[0].dtype) if gains else torch.ones(INPUTS)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return 1.5 * torch.randn(*shape, INPUTS, generator=torch.Generator().manual_seed(2), dtype=dtype)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_are_minus_and_plus_one_of_the_same_type(name, dtype):
    binarizer, weight = make(name, dtype)
    x = inputs(4, 5, dtype=dtype)
    for found, like in ((binarizer.inputs_signs(x), x), (binarizer.weight_signs(weight), weight)):
        assert found.shape == (like.shape if binarizer.bases == 1 else (binarizer.bases, *like.shape))
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
    for base, threshold in enumerate(binarizer.thresholds(weight)):
        below = torch.nextafter(threshold, torch.tensor(-math.inf))
        at, under = (binarizer.inputs_signs(x[None]).view(-1, INPUTS)[base] for x in (threshold, below))
        assert torch.equal(at, falling(binarizer))
        assert torch.equal(under, -falling(binarizer))


@every
def test_zero_of_either_sign_and_nan_are_plus_one_where_nothing_is_learned(name):
    binarizer = BINARIZERS[name](3, 2).eval()
    centre = 0.5 if name == "dorefa" else 0.0  # inputs of 0 and 1 have no sign
    turns = binarizer.inputs_signs(torch.tensor([[centre, centre - 0.0, math.nan]])).flatten(0, -2)
    assert turns[len(turns) // 2].tolist() == [1, 1, 1]  # of several bases the one in the middle


@every
def test_weights_at_their_centre_are_plus_one(name):
    signs = BINARIZERS[name](4, 2).weight_signs(torch.zeros(2, 4))
    assert (signs == 1).all()


@every
def test_frozen_is_what_training_computes(name):
    binarizer, weight = make(name)
    frozen, x, turn = binarizer.frozen(weight), inputs(6), falling(binarizer)
    assert isinstance(frozen, Frozen)
    assert torch.equal(frozen.weights, binarizer.weight_signs(weight) * turn)
    assert torch.equal(frozen.scale, binarizer.scale(weight))
    seen = torch.where(x < frozen.threshold[..., None, :], -1.0, 1.0)
    assert torch.equal(seen, (binarizer.inputs_signs(x) * turn).view_as(seen))


@every
def test_frozen_has_the_shapes_it_says_and_no_gradient(name):
    binarizer, weight = make(name)
    frozen = binarizer.frozen(weight.requires_grad_())
    bases = () if binarizer.bases == 1 else (binarizer.bases,)
    assert frozen.threshold.shape == (*bases, INPUTS)
    assert frozen.weights.shape == (*bases, OUTPUTS, INPUTS)
    assert frozen.scale.shape in ([bases * 2] if bases else [(OUTPUTS,), (1,)])
    assert not any(part.requires_grad for part in (frozen.threshold, frozen.weights, frozen.scale))


@every
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_in_eval_mode_computes_what_frozen_says(name, norm, dtype):
    binarizer, weight = make(name, dtype)
    layer = Layer(INPUTS, OUTPUTS, binarizer=name, norm=norm).to(dtype).eval()
    layer.binarizer, layer.weight.data = binarizer, weight
    x, frozen = inputs(6, dtype=dtype), binarizer.frozen(weight)
    d = products(x, frozen, binarizer.bases)
    if binarizer.scales_rows:
        d = d * binarizer.row_scale(x)
    if binarizer.gates:
        d = d * binarizer.gate(x)
    a, b = layer.folded()
    torch.testing.assert_close(layer(x), ordered.fma(d, a, b), rtol=0, atol=0)
    if not norm:
        own = frozen.scale if binarizer.bases == 1 else torch.ones(1, dtype=dtype)
        torch.testing.assert_close(a, own.expand(OUTPUTS), rtol=0, atol=0)
        assert (layer.bias is not None) == binarizer.bias
        offset = binarizer.offset(weight)
        assert torch.equal(b, next((one for one in (layer.bias, offset) if one is not None), torch.zeros_like(b)))


def products(x: torch.Tensor, frozen: Frozen, bases: int) -> torch.Tensor:
    """The sum of signs; of several bases all of them, added in order."""
    if bases == 1:
        return torch.where(x < frozen.threshold, -1.0, 1.0).to(x.dtype) @ frozen.weights.T
    d = torch.zeros(1, dtype=x.dtype)
    for n, threshold in enumerate(frozen.threshold):
        seen = torch.where(x < threshold, -1.0, 1.0).to(x.dtype)
        for m, weights in enumerate(frozen.weights):
            d = ordered.fma(seen @ weights.T, frozen.scale[n, m], d)
    return d


@every
def test_training_and_eval_mode_see_the_same_products(name):
    binarizer, weight = make(name, torch.float64)
    layer = Layer(INPUTS, OUTPUTS, binarizer=name, norm=False).double()
    layer.binarizer, layer.weight.data = binarizer, weight
    x = inputs(6, dtype=torch.float64)
    layer.train()
    binarizer.eval()  # a batch norm of its own goes by its running statistics
    seen = layer(x)
    gates_of_float32 = 1e-6 if binarizer.gates else 1e-12
    torch.testing.assert_close(seen, layer.eval()(x), rtol=gates_of_float32, atol=1e-12)


@every
def test_scale_is_finite_and_positive_for_fresh_weights(name):
    binarizer, weight = BINARIZERS[name](INPUTS, OUTPUTS), make(name)[1]
    scale = binarizer.scale(weight)
    assert torch.isfinite(scale).all()
    assert (scale > 0).any() if binarizer.bases > 1 else (scale > 0).all()  # a least square may be negative


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


def input_slope(name: str, binarizer: Binarizer, x: torch.Tensor) -> torch.Tensor:
    """The sum over the bases of d sign / dx."""
    if name == "dorefa":
        return 2.0 * ((x >= 0) & (x <= 1)).to(x)  # of 2 a - 1, a between 0 and 1
    if name == "poem":
        a, b = binarizer.norm.folded()
        return a.detach() * ((a * x + b).abs() <= 1)
    if binarizer.bases > 1:
        return (
            torch.stack([((x - 0.5 + v) >= -0.5) & ((x - 0.5 + v) <= 0.5) for v in binarizer.shift.detach()])
            .sum(0)
            .to(x)
        )
    return GRADIENT[INPUT_GRADIENT.get(name, SteSign)](x - binarizer.threshold(torch.zeros(1, INPUTS).to(x)))


@every
@pytest.mark.parametrize("reach", [0.9, 3.0])
def test_gradient_of_inputs_is_the_paper_s(name, reach):
    binarizer, _ = make(name, torch.float64)
    x = torch.linspace(-reach, reach, 41 * INPUTS, dtype=torch.float64).view(41, INPUTS).requires_grad_()
    grad = torch.linspace(-1, 2, 41 * INPUTS, dtype=torch.float64).view(41, INPUTS)
    found = binarizer.inputs_signs(x)
    found.backward(grad.expand_as(found))
    slope = input_slope(name, binarizer, x.detach())
    torch.testing.assert_close(x.grad, grad * slope)
    assert (x.grad == 0).any() == bool((slope == 0).any())


@every
def test_learned_thresholds_get_the_inputs_gradient_negated(name):
    binarizer, _ = make(name, torch.float64)
    x = inputs(7, dtype=torch.float64).requires_grad_()
    binarizer.inputs_signs(x).sum().backward()
    learned = dict(binarizer.named_parameters()).get("shift")
    assert (learned is not None) == (name in ("react", "abc3", "abc5"))
    if name == "react":
        torch.testing.assert_close(learned.grad, -x.grad.sum(0))
    elif learned is not None:  # added to the inputs, for all of them
        torch.testing.assert_close(learned.grad.sum(), x.grad.sum())


def plain_weight_signs(name: str, weight: torch.Tensor) -> torch.Tensor:
    """The formulas of the papers, with autograd alone: the sign stands in by its gradient's integral."""
    if name in ("bnn", "bireal", "react", "xnorpp", "r2b", "poem"):
        return weight.clamp(-1, 1)
    if name in ("dorefa", "lab"):  # times this scale they are the weights
        return weight / weight.detach().abs().mean()
    if name in ("abc3", "abc5"):
        steps = torch.linspace(-1, 1, int(name[-1]), dtype=weight.dtype)
        return torch.stack([(weight - weight.detach().mean() + u * weight.detach().std()).clamp(-1, 1) for u in steps])
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
    for found in (binarizer.weight_signs(ours), plain_weight_signs(name, plain)):
        found.backward(grad.expand_as(found))
    torch.testing.assert_close(ours.grad, plain.grad)
    assert torch.isfinite(ours.grad).all()
    assert (ours.grad != 0).any()


@every
def test_scale_has_a_gradient_only_where_it_is_learned(name):
    binarizer, weight = make(name)
    scale = binarizer.scale(weight.requires_grad_())
    learned = binarizer.beta if binarizer.bases > 1 else getattr(binarizer, "alpha", None)
    assert scale.requires_grad == isinstance(learned, torch.nn.Parameter)
    if scale.requires_grad:
        scale.sum().backward()
        assert weight.grad is None
        if binarizer.bases == 1:
            assert (learned.grad == 1).all()


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
    state = {"exp_avg_sq": inputs(OUTPUTS).square()}
    binarizer.after_step(mended, state)
    if binarizer.bases == 1:  # several hang on the weights' spread, and nobody clips those
        assert torch.equal(binarizer.weight_signs(mended), before)
    once = mended.clone()
    binarizer.after_step(mended, state)
    assert torch.equal(mended, once)
    if name in CLIPPED:
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
    for one, other in zip(first.frozen(weight).__dict__.values(), second.frozen(weight).__dict__.values(), strict=True):
        assert torch.equal(one, other)


@every
def test_state_survives_save_and_load(name):
    (saved, weight), fresh = make(name), BINARIZERS[name](INPUTS, OUTPUTS)
    saved.initialise(inputs(8), weight)
    fresh.load_state_dict(saved.state_dict())
    ours, theirs = saved.frozen(weight), fresh.frozen(weight)
    assert torch.equal(ours.scale, theirs.scale)
    assert torch.equal(ours.threshold, theirs.threshold)
    assert ("alpha" in saved.state_dict()) == (name in ALPHA)


@every
def test_progress_reaches_every_layer(name):
    layer = Layer(INPUTS, OUTPUTS, binarizer=name)
    seen = []
    layer.binarizer.schedule = seen.append
    set_progress(torch.nn.Sequential(layer), 3, 12)
    assert seen == [0.25]
