"""Export: thresholds against brute force, the steps a network becomes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from popcloud.errors import ExportError, FileError
from popcloud.learn import layers
from popcloud.learn.binarizers import BINARIZERS
from popcloud.learn.export import EMIT, export, observe, trace
from popcloud.learn.layers import Layer, PooledLayer
from popcloud.learn.thresholds import mean_threshold, mismatch_limit
from popcloud.packed.file import read, write
from popcloud.packed.program import Activation, Kind, Op, Rows
from popcloud.runtime import reference

POINTS = 12


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(21)
        yield


def exported(model: nn.Module, classes: int = 3, **about):
    names = [f"class {i}" for i in range(classes)]
    return export(model, points=POINTS, normalize="none", classes=names, **about)


def ops(model: nn.Module) -> list[Op]:
    return [step.op for step in exported(model).program.steps]


def worn(layer: layers.Weighted, seed: int = 0) -> layers.Weighted:
    """Batch norms of every kind: rising, falling, flat, far away, with a variance of 0."""
    generator = torch.Generator().manual_seed(seed)
    norm, channels = layer.norm, layer.outputs
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=generator))
        norm.weight[:2] = torch.tensor([0.0, -0.0])
        norm.bias.copy_(torch.randn(channels, generator=generator))
        norm.bias[2:4] = torch.tensor([1e6, -1e6])
        norm.running_mean.copy_(5 * torch.randn(channels, generator=generator))
        norm.running_var.copy_(30 * torch.rand(channels, generator=generator))
        norm.running_var[4] = 0
        norm.bias[5:7] = 0
        norm.running_mean[5:7] = torch.tensor([0.0, 2.0])  # the sign turns exactly at a sum that occurs
        norm.running_mean[0] = norm.bias[0] = 0
    return layer.eval()


def turned(layer: layers.Weighted) -> torch.Tensor:
    return torch.where(layer.folded()[0] < 0, -1.0, 1.0)


THRESHOLDS = [0.0, -0.0, 0.3, -1.0, 1.0, 2.0]


# -- thresholds against brute force ------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["none", "relu", "hardtanh", "rprelu"])
@pytest.mark.parametrize("binarizer", [name for name in BINARIZERS if not BINARIZERS[name].scales_rows])
@pytest.mark.parametrize("inputs", [2, 7, 64, 129])
def test_limit_is_where_the_layer_turns_over_all_sums(inputs, binarizer, activation):
    layer = worn(Layer(inputs, 64, binarizer=binarizer, activation=activation), inputs)
    up = turned(layer)
    counts = torch.arange(inputs + 1)
    for value in THRESHOLDS:
        threshold = torch.full((64,), value)
        with torch.no_grad():
            output = layer.tail((inputs - 2 * counts)[:, None].float() * up)
            limit = mismatch_limit(layer, up, threshold)
        assert np.array_equal(counts[:, None].numpy() > limit, (output < threshold).numpy())
        assert limit.min() >= -1
        assert limit.max() <= inputs


@pytest.mark.parametrize("pool", ["max", "ema-max"])
def test_limit_of_a_maximum_knows_delta(pool):
    layer = worn(PooledLayer(65, 64, binarizer="lsr", pool=pool, points=1024))
    up, counts, threshold = turned(layer), torch.arange(66), torch.zeros(64)
    with torch.no_grad():
        output = layer.tail((65 - 2 * counts)[:, None].float() * up)
        limit = mismatch_limit(layer, up, threshold)
    assert np.array_equal(counts[:, None].numpy() > limit, (output < threshold).numpy())


@pytest.mark.parametrize("points", [1, 3, 7])
@pytest.mark.parametrize("inputs", [1, 5, 64])
def test_threshold_of_a_mean_is_where_the_layer_turns_over_all_means(inputs, points):
    layer = worn(PooledLayer(inputs, 64, binarizer="lsr", pool="ema-mean", points=points), points)
    up = turned(layer)
    totals = torch.arange(-inputs * points, inputs * points + 1, 2)
    means = totals.float() / points
    for value in THRESHOLDS:
        threshold = torch.full((64,), value)
        with torch.no_grad():
            output = layer.tail(means[:, None] * up)
            limit = mean_threshold(layer, up, threshold)
        assert np.array_equal(means[:, None].numpy() < limit, (output < threshold).numpy())


def test_threshold_of_a_mean_is_the_very_number():
    """The float just below the threshold must give the other sign."""
    layer = worn(PooledLayer(64, 64, binarizer="lsr", pool="ema-mean", points=9))
    up, zero = turned(layer), torch.zeros(64)
    with torch.no_grad():
        found = torch.from_numpy(mean_threshold(layer, up, zero))
        inside = found.abs() < 64
        below = torch.nextafter(found, torch.tensor(-np.inf))
        assert inside.any()
        assert (layer.tail(found.clamp(-64, 64) * up) >= zero)[inside].all()
        assert (layer.tail(below.clamp(-64, 64) * up) < zero)[inside].all()
        assert torch.isinf(found).any()  # some channels have one sign for all means


def test_learned_thresholds_differ_by_channel():
    layer = worn(Layer(33, 64, binarizer="react", activation="rprelu"))
    up, counts, threshold = turned(layer), torch.arange(34), torch.linspace(-2, 2, 64)
    with torch.no_grad():
        output = layer.tail((33 - 2 * counts)[:, None].float() * up)
        limit = mismatch_limit(layer, up, threshold)
    assert np.array_equal(counts[:, None].numpy() > limit, (output < threshold).numpy())


# -- what a network becomes --------------------------------------------------------------------------------------


class Chain(nn.Module):
    """The shape of a classifier: float, binary, pooled, binary, float."""

    def __init__(self, binarizer: str = "lsr", pool: str = "ema-max", activation: str = "hardtanh"):
        super().__init__()
        self.first = Layer(3, 20, binarizer="real", activation=activation)
        self.second = Layer(20, 30, binarizer=binarizer, activation=activation)
        self.pooled = PooledLayer(30, 40, binarizer=binarizer, pool=pool, points=POINTS)
        self.third = Layer(40, 10, binarizer=binarizer, activation=activation)
        self.dropout = nn.Dropout(0.5)
        self.last = Layer(10, 3, binarizer="real", norm=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.dropout(self.third(self.pooled(self.second(self.first(x))))))


CHAINS = {
    ("lsr", "ema-max"): [
        Op.LINEAR, Op.BINARIZE, Op.BINARY_LINEAR_BITS, Op.BINARY_MAX_BITS, Op.BINARY_LINEAR, Op.LINEAR
    ],
    ("lsr", "mean"): [
        Op.LINEAR, Op.BINARIZE, Op.BINARY_LINEAR_BITS, Op.BINARY_MEAN_BITS, Op.BINARY_LINEAR, Op.LINEAR
    ],
    ("real", "max"): [Op.LINEAR, Op.LINEAR, Op.LINEAR, Op.POOL_MAX, Op.LINEAR, Op.LINEAR],
    ("real", "ema-mean"): [Op.LINEAR, Op.LINEAR, Op.LINEAR, Op.POOL_MEAN, Op.LINEAR, Op.LINEAR],
}  # fmt: skip


@pytest.mark.parametrize(("binarizer", "pool"), CHAINS)
def test_signs_go_from_layer_to_layer_as_bits(binarizer, pool):
    assert ops(Chain(binarizer, pool)) == CHAINS[binarizer, pool]


def test_factors_per_row_keep_floats_between_layers():
    found = ops(Chain("xnor", "max"))
    assert found.count(Op.ROW_MEAN_ABS) == found.count(Op.BINARY_LINEAR) == found.count(Op.BINARIZE) == 3
    assert Op.POOL_MAX in found
    assert not {Op.BINARY_LINEAR_BITS, Op.BINARY_MAX_BITS} & set(found)


def test_rprelu_is_folded_while_it_rises_and_a_step_where_it_falls():
    model = Chain("react", "max", "rprelu")
    assert Op.BINARY_LINEAR_BITS in ops(model)
    assert ops(model).count(Op.RPRELU) == 2  # after the first layer and before the last, whose floats are read
    model.second.activation.slope.data[3] = -0.1
    assert Op.BINARY_LINEAR_BITS not in ops(model)
    assert ops(model).count(Op.RPRELU) == 3


def test_kinds_rows_and_the_answer_are_declared():
    program = exported(Chain(), meta={"licence": "none"}).program
    shapes = [(value.name, value.kind, value.rows, value.channels) for value in program.values]
    assert shapes == [
        ("x", Kind.FLOAT, Rows.POINT, 3),
        ("first", Kind.FLOAT, Rows.POINT, 20),
        ("first.bits", Kind.BITS, Rows.POINT, 20),
        ("second.bits", Kind.BITS, Rows.POINT, 30),
        ("pooled.bits", Kind.BITS, Rows.CLOUD, 40),
        ("third", Kind.FLOAT, Rows.CLOUD, 10),
        ("last", Kind.FLOAT, Rows.CLOUD, 3),
    ]
    assert (program.points, program.normalize, program.meta) == (POINTS, "none", {"licence": "none"})
    assert program.classes == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(("name", "act"), [("relu", Activation.RELU), ("hardtanh", Activation.HARDTANH)])
def test_activations_belong_to_their_step(name, act):
    steps = exported(Chain("lsr", "max", name)).program.steps
    assert [step.activation for step in steps if step.op in (Op.LINEAR, Op.BINARY_LINEAR)] == [
        act,
        act,
        Activation.NONE,
    ]


def test_constants_that_are_equal_for_all_channels_are_stored_once():
    model = Chain()
    model.third = Layer(40, 10, binarizer="lsr", norm=False)
    step = next(step for step in exported(model).program.steps if step.op is Op.BINARY_LINEAR)
    assert step.blobs["scale"].shape == step.blobs["bias"].shape == (1,)


def same_as_pytorch(model: nn.Module, path) -> None:
    """The file's answer, step by step on PyTorch's values."""
    made, x = exported(model), torch.randn(POINTS, 3)
    write(made.program, path / "m.popc")
    program, taps = read(path / "m.popc"), observe(made, x)
    known = {0: x.numpy()}
    for index, step in enumerate(program.steps):
        found = reference.step(program, index, [known[i] for i in step.inputs], POINTS)
        expected = known[step.output] = taps.get(step.output, found)
        if program.values[step.output].kind is Kind.BITS:
            assert np.array_equal(found, expected), program.values[step.output].name
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(taps[len(program.values) - 1], model(x[None]).detach().numpy())


class Fork(nn.Module):
    """One value read by layers that turn at different thresholds, and by one that reads floats."""

    def __init__(self, binary_source: bool):
        super().__init__()
        self.first = Layer(3, 20, binarizer="real", activation="hardtanh")
        self.source = Layer(20, 25, binarizer="lsr" if binary_source else "real", activation="hardtanh")
        self.left, self.middle = (PooledLayer(25, 16, binarizer="react", pool="max", points=POINTS) for _ in range(2))
        for layer in (self.left, self.middle):
            layer.binarizer.shift.data.normal_()
        self.matrix = Layer(16, 625, binarizer="lsr", norm=False)
        self.transform = layers.Transform()
        self.right = PooledLayer(25, 16, binarizer="lsr", pool="max", points=POINTS)
        self.last = Layer(16, 3, binarizer="react", norm=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.source(self.first(x))
        moved = self.transform(self.transform(x, self.matrix(self.left(x))), self.matrix(self.middle(x)))
        return self.last(self.right(moved))


@pytest.mark.parametrize("binary_source", [True, False])
def test_one_value_read_in_several_ways_and_layers_called_twice(binary_source, tmp_path):
    model = Fork(binary_source)
    program = exported(model).program
    names = [value.name for value in program.values]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("source.bits") for name in names) == 2  # one per threshold, shared by nobody else
    same_as_pytorch(model, tmp_path)


@pytest.mark.parametrize("binarizer", ["real", *BINARIZERS])
@pytest.mark.parametrize("after", ["real", "xnor"])
def test_binarizers_may_be_mixed(binarizer, after, tmp_path):
    model = Chain(binarizer, "ema-max")
    model.third = Layer(40, 10, binarizer=after, activation="rprelu")
    for module in model.modules():
        if isinstance(module, layers.Norm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    same_as_pytorch(model, tmp_path)


def test_equal_thresholds_are_written_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Layer(3, 8, binarizer="real")
            self.pooled = PooledLayer(8, 9, binarizer="lsr", pool="max", points=POINTS)
            self.other = PooledLayer(8, 9, binarizer="bnn", pool="max", points=POINTS)
            self.matrix = layers.Transform()

        def forward(self, x):
            x = self.first(x)
            return self.pooled(x), self.other(x)

    graph = trace(Twice())
    assert [node.op for node in graph.graph.nodes].count("call_module") == 3
    with pytest.raises(ExportError, match="must return what its last layer gives"):
        exported(Twice())


def test_network_is_left_in_eval_mode_with_its_weights():
    model = Chain().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exported(model)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_observed_values_are_the_network_s(tmp_path):
    model, x = Chain(), torch.randn(POINTS, 3)
    made = exported(model)
    found = {made.program.values[i].name: array for i, array in observe(made, x).items()}
    with torch.no_grad():
        first = model.first(x)
        np.testing.assert_array_equal(found["first"], first.numpy())
        np.testing.assert_array_equal(found["last"][0], model(x[None])[0].numpy())
    assert set(found) == {value.name for value in made.program.values}


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["second.weight", "pooled.norm.running_var"])
def test_numbers_that_are_not_finite_are_named(name, value):
    model = Chain()
    model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(
        ExportError, match=rf"^{name}: expected finite numbers, found NaN or infinity; export an earlier"
    ):
        exported(model)


class Broken(nn.Module):
    def __init__(self, forward, **parts: nn.Module):
        super().__init__()
        self.first = Layer(3, 3, binarizer="real")
        self.way = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.way(self, x)


def pooled() -> PooledLayer:
    return PooledLayer(3, 3, binarizer="lsr", pool="max", points=POINTS)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (lambda: Broken(lambda self, x: self.first(x).sum(1)), "sum_1: call_method sum has no step"),
        (lambda: Broken(lambda self, x: self.first(x) + x), "add: call_function add has no step"),
        (lambda: Broken(lambda self, x: self.odd(x), odd=nn.Softmax(-1)), "odd: Softmax has no step; add it to the"),
        (lambda: Broken(lambda self, x: x), "must return what its last layer gives, and that alone; found x"),
        (lambda: Broken(lambda self, x: (self.p(x), x), p=pooled()), "must return what its last layer gives"),
        (lambda: Broken(lambda self, x: [self.p(x), self.first(x)][0], p=pooled()), "must return what its last layer"),
    ],
)
def test_networks_that_are_no_programs_are_refused(model, line):
    with pytest.raises(ExportError, match=line):
        exported(model())


def test_an_answer_per_point_and_wrong_classes_are_refused_at_the_latest_when_written(tmp_path):
    with pytest.raises(FileError, match="inconsistent"):
        write(exported(Broken(lambda self, x: self.first(x))).program, tmp_path / "m.popc")
    with pytest.raises(FileError, match="inconsistent"):
        write(exported(Chain(), classes=4).program, tmp_path / "m.popc")


def test_every_layer_of_the_library_has_a_step():
    ours = {kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, nn.Module)}
    ours = {kind for kind in ours if kind.__module__ == layers.__name__}
    assert ours <= set(EMIT)
