"""Views of a result: which step writes them, signs behind batch norms that fall, and what can't be exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from popcloud.errors import ExportError
from popcloud.learn import sparse_layers
from popcloud.learn.binarizers import BINARIZERS
from popcloud.learn.export import EMIT, export, observe
from popcloud.learn.layers import Layer, Norm, RPReLU, Weighted
from popcloud.learn.shifted import ShiftedConv
from popcloud.learn.sparse_layers import Add, Join, NormAct, SparseConv, Unpool, set_weights_binary
from popcloud.learn.thresholds import switch
from popcloud.packed.bits import unpack
from popcloud.packed.program import Grid, Kind, Op
from popcloud.runtime import sites
from surfaces import pyramid_of, scattered

pytestmark = pytest.mark.usefixtures("one_thread")
EDGE = 1.0


class Net(nn.Module):
    """Layers by name and a forward that is told."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.go = forward
        for name, part in parts.items():
            self.add_module(name, part)
        self.last = Layer(4, 2, binarizer="real", norm=False)

    def forward(self, x, at):
        return self.last(self.go(self, x, at))


def conv(inputs=3, outputs=4, **how):
    return SparseConv(inputs, outputs, **{"kind": "same", "level": 0, "binarizer": "react", "norm": True} | how)


def norm(channels, activation="none"):
    made = NormAct(channels, activation=activation)
    with torch.no_grad():
        made.norm.weight.normal_()
        made.norm.bias.normal_()
        made.norm.running_mean.normal_()
    return made


def written(model, levels=2, size=3):
    return export(model, classes=["a", "b"], plan=Grid(EDGE, levels, size), features=("x", "y", "z"))


def ops(exported):
    return [step.op for step in exported.program.steps]


def check(exported, rng):
    """Hold every step, fed with PyTorch's values, to PyTorch."""
    program = exported.program
    xyz = scattered(rng)
    at = sites.plan_of(program.plan).build(xyz)
    x = torch.randn(len(at.levels[0].sites), 3).numpy()
    taps = observe(exported, x, pyramid_of(xyz, 2, program.plan.size))
    known = {0: x}
    for index, step in enumerate(program.steps):
        outputs = sites.step(program, index, [known[i] for i in step.inputs], at)
        for output, found in zip(step.outputs, outputs, strict=True):
            wanted = known[output] = taps.get(output, found)
            if program.values[output].kind is Kind.BITS:
                np.testing.assert_array_equal(found, wanted)
            else:
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    return known


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_switch_is_where_the_sign_turns(activation):
    torch.manual_seed(0)
    made = norm(200, activation).eval()
    with torch.no_grad():
        made.norm.weight[:3] = torch.tensor([0.0, -0.0, 1e-30])
        threshold = torch.randn(200)
        turn, flipped = switch(made, threshold)
        near = torch.where(turn.isfinite(), turn, 0)
        up, down = near.nextafter(torch.tensor(torch.inf)), near.nextafter(torch.tensor(-torch.inf))
        rows = torch.cat([torch.stack([near, up, down]), torch.randn(500, 200) * 3])
        np.testing.assert_array_equal((made(rows) >= threshold) ^ flipped, rows >= turn)
    assert 0 < int(flipped.sum()) < 200
    assert int(turn.isinf().sum()) >= 2


def test_switch_needs_an_activation_that_rises():
    made = NormAct(3, activation="rprelu").eval()
    made.activation.slope.data[1] = -0.1
    with pytest.raises(ExportError, match="no single switch"):
        switch(made, torch.zeros(3))


def test_layers_that_differ_in_threshold_get_signs_of_their_own(rng):
    def forward(net, x, at):
        y = net.first(x, at)
        return net.add(net.one(y, at), net.two(y, at))

    torch.manual_seed(1)
    model = Net(forward, first=conv(binarizer="real"), one=conv(4), two=conv(4), add=Add())
    with torch.no_grad():
        model.two.binarizer.shift.fill_(0.1)
    exported = written(model)
    assert ops(exported) == [Op.SPARSE_CONV, Op.BINARY_SPARSE_CONV, Op.BINARY_SPARSE_CONV, Op.ADD, Op.LINEAR]
    assert exported.program.steps[0].blobs["thresholds"].shape == (2, 4)
    assert len(exported.program.steps[0].outputs) == 2  # nobody reads the floats
    check(exported, rng)


def test_more_signs_than_a_step_can_write_become_steps(rng):
    def fan(net, x, at):
        y = net.first(x, at)
        total = y
        for i in range(5):
            total = net.add(total, net.get_submodule(f"read{i}")(y, at))
        return total

    torch.manual_seed(1)
    model = Net(fan, first=conv(binarizer="real"), add=Add(), **{f"read{i}": conv(4) for i in range(5)})
    with torch.no_grad():
        for i in range(5):
            model.get_submodule(f"read{i}").binarizer.shift.fill_(0.1 * i)
    exported = written(model)
    assert ops(exported).count(Op.BINARIZE) == 2
    assert len(exported.program.steps[0].outputs) == 4
    check(exported, rng)


@pytest.mark.parametrize("binarizer", [name for name in BINARIZERS if not BINARIZERS[name].not_sparse])
@pytest.mark.parametrize("first", [True, False], ids=["norm-first", "norm-last"])
def test_every_binarizer_that_fits_has_the_steps_it_has_in_pytorch(rng, binarizer, first):
    torch.manual_seed(4)
    before = {"norm": norm(4)} if first else {}
    model = Net(
        lambda net, x, at: net.second(net.norm(net.first(x, at)) if first else net.first(x, at), at),
        first=conv(binarizer="real", norm=False),
        second=conv(4, binarizer=binarizer, norm=not first, activation="prelu"),
        **before,
    )
    with torch.no_grad():
        for gains in (one for name, one in model.named_parameters() if name.endswith("norm.weight")):
            gains[::2] *= -1
        for own in (module for module in model.second.binarizer.modules() if isinstance(module, Norm)):
            own.running_mean.normal_()
    exported = written(model)
    assert ops(exported)[-2:] == [Op.BINARY_SPARSE_CONV, Op.LINEAR]
    check(exported, rng)


def test_signs_behind_a_falling_batch_norm_turn_the_weights(rng):
    torch.manual_seed(2)
    model = Net(
        lambda net, x, at: net.second(net.norm(net.first(x, at)), at),
        first=conv(binarizer="real", norm=False),
        norm=norm(4),
        second=conv(4, binarizer="xnor", norm=False),
    )
    with torch.no_grad():
        model.norm.norm.weight[:2] = -1.0
    exported = written(model)
    assert ops(exported) == [Op.SPARSE_CONV, Op.BINARY_SPARSE_CONV, Op.LINEAR]
    check(exported, rng)


def test_signs_of_a_join_are_split_over_its_parts(rng):
    def forward(net, x, at):
        return net.last_conv(net.join(net.one(x, at), net.two(x, at)), at)

    torch.manual_seed(3)
    parts = {"one": conv(binarizer="real"), "two": conv(3, 70, binarizer="real"), "last_conv": conv(74)}
    model = Net(forward, join=Join(), **parts)
    with torch.no_grad():
        model.last_conv.binarizer.shift.normal_(0, 0.2)
    exported = written(model)
    assert ops(exported) == [Op.SPARSE_CONV, Op.SPARSE_CONV, Op.CONCAT, Op.BINARY_SPARSE_CONV, Op.LINEAR]
    known = check(exported, rng)
    concat = exported.program.steps[2]
    parts = [unpack(known[i], exported.program.values[i].channels) for i in concat.inputs]
    np.testing.assert_array_equal(unpack(known[concat.output], 74), np.concatenate(parts, axis=1))


def test_copies_are_a_step_only_where_they_are_more_than_a_shortcut(rng):
    def forward(net, x, at):
        above = net.down(x, at)
        copied = net.unpool(above, at)
        return net.add(net.same(copied, at), copied)

    torch.manual_seed(4)
    model = Net(forward, down=conv(kind="down"), unpool=Unpool(0), same=conv(4, binarizer="real"), add=Add())
    exported = written(model)
    assert ops(exported).count(Op.UNPOOL) == 1
    check(exported, rng)


def test_shortcut_after_the_activation_is_added_by_a_step_of_its_own(rng):
    torch.manual_seed(5)
    model = Net(
        lambda net, x, at: net.second(net.norm(net.first(x, at)), net.first(x, at), at),
        first=conv(binarizer="real"),
        norm=norm(4),
        second=conv(4, norm=False, activation="rprelu"),
    )
    exported = written(model)
    assert ops(exported)[-3:] == [Op.BINARY_SPARSE_CONV, Op.ADD, Op.LINEAR]
    check(exported, rng)


def test_shifts_of_zero_are_left_out(rng):
    model = Net(lambda net, x, at: net.shifted(x, at), shifted=ShiftedConv(3, 4, level=0, groups=2, binarizer="react"))
    exported = written(model, size=5)
    assert "shifts" not in exported.program.steps[-2].blobs
    model.shifted.set_shifts([(0, 0, 0), (1, 0, -1)])
    exported = written(model, size=5)
    np.testing.assert_array_equal(exported.program.steps[-2].blobs["shifts"], [[0, 0, 0], [1, 0, -1]])
    check(exported, rng)


@pytest.mark.parametrize(("factor", "dtype"), [(1.0, np.float16), (1e6, np.float32), (1e-6, np.float32)])
def test_halved_weights_are_in_float16_unless_that_can_t_hold_them(factor, dtype, rng):
    model = Net(lambda net, x, at: net.point(net.first(x, at)), first=conv(binarizer="real"))
    model.point = Layer(4, 4, binarizer="real", ordered=True, halved=True)
    with torch.no_grad():
        model.point.weight[1] *= factor
    exported = written(model)
    first, last = (step.blobs["weight"] for step in exported.program.steps if step.op is Op.LINEAR)
    assert (first.dtype, last.dtype) == (dtype, np.float32)
    check(exported, rng)


def test_weights_that_are_no_signs_yet_are_refused():
    model = Net(lambda net, x, at: net.first(x, at), first=conv())
    set_weights_binary(model, False)
    with pytest.raises(ExportError, match=r"first: its weights are real-valued.*export one of the last"):
        written(model)


def test_shifts_that_are_still_searched_are_refused():
    model = Net(lambda net, x, at: net.shifted(x, at), shifted=ShiftedConv(3, 4, level=0, groups=2))
    model.shifted.start_search()
    with pytest.raises(ExportError, match="shifted: its shifts are still searched"):
        written(model, size=5)


def test_every_layer_has_a_step():
    ours = {kind for kind in vars(sparse_layers).values() if isinstance(kind, type) and issubclass(kind, nn.Module)}
    ours = {kind for kind in ours if kind.__module__ == sparse_layers.__name__}
    assert ours <= set(EMIT)
    assert not {Weighted, RPReLU} & set(EMIT)
