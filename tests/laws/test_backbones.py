"""Law of the backbones: what PyTorch answers in eval mode is what the packed file means, and what the engine answers.

Signs are equal bit for bit when a step is fed PyTorch's own values, floats to the last places, and so the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from popcloud import native
from popcloud.errors import ExportError
from popcloud.learn import layers
from popcloud.learn.backbones import BACKBONES
from popcloud.learn.binarizers import BINARIZERS, REAL
from popcloud.learn.export import Exported, export, observe
from popcloud.packed.bits import unpack
from popcloud.packed.file import read, write
from popcloud.packed.program import Array, Kind, Op
from popcloud.runtime import reference

POINTS = 24
CLASSES = 7
TOLERANCE = 1e-5  # of the largest magnitude of a value, or of 1
POOLS = [pool for pool in layers.POOLS if pool != "mean"]  # the same as ema-mean: tests/learn/test_layers.py
REFUSED = [("pointcnn", name) for name, each in BINARIZERS.items() if each.bases > 1]  # see below
SMALL = {  # networks on neighbourhoods, with such that a cloud of so few points has
    "pointnet2": {"neighbours": (6, 4), "radii": (1.0, 2.0)},
    "dgcnn": {"k": 5},
    "dgcnn_hamming": {"k": 5},
    "pointcnn": {"neighbours": (4, 5, 4, 4), "ratios": (0.75, 0.75)},
    "pointconv": {"neighbours": (5, 4), "bandwidths": (1.5, 3.0), "radii": (1.0, 2.0)},
}
MEMBERS = [  # networks on neighbourhoods take long: the real-valued ones with all pools, the others with one in turn
    (backbone, binarizer, pool)
    for backbone, (number, binarizer), pool in product(BACKBONES, enumerate([REAL, *BINARIZERS]), POOLS)
    if (backbone, binarizer) not in REFUSED
    and (backbone not in SMALL or binarizer == REAL or pool == POOLS[number % len(POOLS)])
]
TABLES = native.engine().available() if native.available() else []
needs_engine = pytest.mark.skipif(not TABLES, reason="the engine was not built")


@dataclass(frozen=True)
class Case:
    """A network that was exported, a cloud (POINTS, 3), and what PyTorch computes on it by value."""

    exported: Exported
    cloud: Array
    taps: dict[int, Array]


def disturbed(backbone: str, binarizer: str, pool: str, clouds: torch.Tensor) -> nn.Module:
    """A network after two steps, disturbed: both signs everywhere, falling and flat batch norms, a negative scale.

    For max it also has RPReLU slopes that can't be folded.
    """
    network, small = BACKBONES[backbone], SMALL.get(backbone, {})
    model = network(classes=CLASSES, binarizer=binarizer, pool=pool, points=POINTS, **small)
    layers.initialise(model, clouds)
    for norm in (module for module in model.modules() if isinstance(module, layers.Norm)):
        norm.momentum = 1.0  # as if training had been long
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(2):
        logits, penalty = model.loss_terms(clouds)
        (logits.square().mean() + penalty).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        layers.after_step(model, optimizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter[::3] *= -1
                parameter[1:2] = 0
            if name.endswith("fc1.binarizer.alpha"):
                parameter *= -1
            if name.endswith("norm.bias"):
                parameter += torch.randn_like(parameter)
            if name.endswith("conv3.norm.bias") and pool == "max":
                parameter += layers.ema_delta(POINTS)  # else hardly a maximum is negative
            if name.endswith("slope") and pool == "max":
                parameter[::5] *= -1
    return model.eval()


@cache  # the tests below look at one network from several sides
def case(backbone: str, binarizer: str, pool: str) -> Case:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            clouds = torch.randn(3, POINTS, 3)
            model = disturbed(backbone, binarizer, pool, clouds)
        names = [f"class {i}" for i in range(CLASSES)]
        exported = export(model, points=POINTS, normalize="none", classes=names)
        taps = observe(exported, clouds[0])
        with torch.no_grad():
            assert np.array_equal(taps[len(exported.program.values) - 1], model(clouds[:1]).numpy())
        return Case(exported, clouds[0].numpy(), taps)
    finally:
        torch.set_num_threads(threads)


def distance(kind: Kind, found: Array, expected: Array) -> float:
    """How many bits or indices differ, or how far floats lie apart as a share of the largest, or of 1."""
    assert found.shape == expected.shape
    if kind is Kind.BITS:
        return float(np.bitwise_count(found ^ expected).sum())
    if kind is Kind.INDEX:
        return float((found != expected).sum())
    return float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))


def differing(given: Case, run) -> list[str]:
    """Run each step on PyTorch's values, where PyTorch has them; return a line for each output that is not PyTorch's.

    run(index, inputs) gives the output of one step.
    """
    program, known, wrong = given.exported.program, {0: given.cloud}, []
    for index, step in enumerate(program.steps):
        found, value = run(index, [known[i] for i in step.inputs]), program.values[step.output]
        expected = known[step.output] = given.taps.get(step.output, found)
        off = distance(value.kind, found, expected)
        if off > (TOLERANCE if value.kind is Kind.FLOAT else 0):
            wrong.append(f"{value.name}: {off}")
    return wrong


def check_answer(given: Case, known: list[Array]) -> None:
    """Hold a whole run's values to PyTorch's.

    Floats differ in the last places, so one that lies on a threshold may turn a sign; from there on the runs part.
    """
    program = given.exported.program
    for step in program.steps:
        value, found = program.values[step.output], known[step.output]
        off = distance(value.kind, found, given.taps.get(step.output, found))
        if value.kind is Kind.BITS and off > 0:
            assert step.op is Op.BINARIZE, value.name
            turned = unpack(found ^ given.taps[step.output], value.channels) < 0
            x = known[step.inputs[0]]
            near = np.abs(x - step.blobs["threshold"]) <= TOLERANCE * max(1.0, float(np.abs(x).max()))
            assert near[turned].all(), value.name
            return
        assert off <= TOLERANCE, value.name


@pytest.fixture(scope="module", params=MEMBERS, ids="-".join)
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    """A network and the file it was written to."""
    path = tmp_path_factory.mktemp("law") / "model.popc"
    given = case(*request.param)
    write(given.exported.program, path)
    return given, path


def test_file_means_what_pytorch_computes(member):
    given, path = member
    program = read(path)
    assert differing(given, lambda i, inputs: reference.step(program, i, inputs, POINTS)) == []


def test_whole_run_answers_what_pytorch_answers(member):
    given, path = member
    check_answer(given, reference.values(read(path), given.cloud))


def test_every_sign_and_the_answer_can_be_compared(member):
    given, _ = member
    program = given.exported.program
    bits = [i for i, value in enumerate(program.values) if value.kind is Kind.BITS]
    assert {*bits, len(program.values) - 1} <= set(given.taps)
    assert bool(bits) == bool(layers.binary_layers(given.exported.graph))
    minus = [np.bitwise_count(given.taps[i]).sum() / given.taps[i].shape[0] / program.values[i].channels for i in bits]
    assert all(0 < share < 1 for share in minus)  # of one sign alone the law would say little


@pytest.mark.parametrize(("backbone", "binarizer"), REFUSED)
def test_layers_in_groups_with_several_signs_a_weight_are_refused(backbone, binarizer):
    with pytest.raises(ExportError, match=r"conv1\.matrix2: Abc. has several signs a weight"):
        case(backbone, binarizer, "max")


@needs_engine
@pytest.mark.parametrize("kernels", TABLES)
def test_engine_computes_what_pytorch_computes(member, kernels):
    given, path = member
    engine = native.engine().Engine(path, kernels=kernels, threads=1)
    assert differing(given, lambda i, inputs: engine.step(i, inputs, POINTS)) == []


@needs_engine
@pytest.mark.parametrize("kernels", TABLES)
def test_engine_s_whole_answer_is_the_file_s_meaning(member, kernels):
    given, path = member
    answer = native.engine().Engine(path, kernels=kernels, threads=1).run([given.cloud])[0]
    assert answer.tobytes() == reference.run(read(path), given.cloud).tobytes()
