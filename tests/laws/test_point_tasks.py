"""Law of the networks with a class per point: what PyTorch computes in eval mode is what the file means, all of it.

With signs in it, a network's every value is the same bits, floats too: real-valued layers sum in the program's order.
Of the real-valued twin floats agree to the last places.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from popcloud import native
from popcloud.geometry.blocks import FEATURES as BLOCK_FEATURES
from popcloud.learn import layers
from popcloud.learn.backbones import BLOCK_BACKBONES, PART_BACKBONES, build_points
from popcloud.learn.binarizers import REAL
from popcloud.learn.export import Exported, export, observe
from popcloud.packed.file import read, write
from popcloud.packed.program import Kind, Rows, Sampling
from popcloud.runtime import reference

POINTS = 20
CLASSES = 5
TOLERANCE = 1e-5  # of the largest magnitude of a value, or of 1
PART_FEATURES = ("x", "y", "z", "normal_x", "normal_y", "normal_z", "category:mug", "category:lamp")
# Every backbone with signs, every pool, every way in which a layer of signs is written, and the real-valued twins.
MEMBERS = [(backbone, "lsr", "ema-max") for backbone in [*PART_BACKBONES, *BLOCK_BACKBONES]]
MEMBERS += [("pointnet_parts_vanilla", "lsr", "max"), ("pointnet_parts_vanilla", "xnor", "ema-mean")]
MEMBERS += list(product(["pointnet_blocks_vanilla"], ["react", "irnet", "abc3"], ["ema-max", "ema-mean"]))
MEMBERS += [("pointnet_parts_vanilla", REAL, "ema-mean"), ("pointnet_blocks", REAL, "ema-max")]
TABLES = native.engine().available() if native.available() else []
needs_engine = pytest.mark.skipif(not TABLES, reason="the engine was not built")


def features_of(backbone: str) -> tuple[str, ...]:
    return PART_FEATURES if backbone in PART_BACKBONES else BLOCK_FEATURES


def disturbed(backbone: str, binarizer: str, pool: str) -> nn.Module:
    """A network as after a training: both signs of gamma, one of zero, moved statistics, pooled signs of both kinds."""
    features = features_of(backbone)
    model = build_points(backbone, classes=CLASSES, features=features, binarizer=binarizer, pool=pool, points=POINTS)
    clouds = torch.randn(2, POINTS, len(features))
    layers.initialise(model, clouds)
    norms = [module for module in model.modules() if isinstance(module, layers.Norm)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0  # as if training had been long
        model(clouds)
        for norm in norms:
            norm.weight[::3] *= -1
            norm.weight[1] = 0
            norm.bias.normal_(0, 0.5)
    return model.eval()


@cache
def case(backbone: str, binarizer: str, pool: str) -> Exported:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = disturbed(backbone, binarizer, pool)
    names = [f"mug/{i}" for i in range(CLASSES)]
    return export(model, points=POINTS, classes=names, plan=Sampling(), features=features_of(backbone))


@pytest.fixture(scope="module", params=MEMBERS, ids="-".join)
def member(request, tmp_path_factory):
    """Whether there are signs in it, the network, the file it was written to, and a cloud of rows."""
    exported, path = case(*request.param), tmp_path_factory.mktemp("law") / "model.popc"
    write(exported.program, path)
    cloud = np.random.default_rng(5).standard_normal((POINTS, len(exported.program.features))).astype(np.float32)
    return request.param[1] != REAL, exported, path, cloud


def distance(found, expected) -> float:
    return float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))


def test_every_value_of_a_whole_run_is_pytorch_s(member, one_thread):
    binary, exported, path, cloud = member
    program = read(path)
    taps, found = observe(exported, cloud), reference.values(program, cloud)
    answer = program.values[program.steps[-1].output]
    assert (answer.rows, answer.channels, len(found[-1])) == (Rows.POINT, CLASSES, POINTS)
    assert len(program.values) - 1 in taps
    for index, value in enumerate(program.values):
        if index in taps and binary:
            assert np.array_equal(found[index], taps[index]), value.name
        elif index in taps:
            assert distance(found[index], taps[index]) <= TOLERANCE, value.name


def test_signs_are_of_both_kinds(member):
    _, exported, _, cloud = member
    taps = observe(exported, cloud)
    for index, value in enumerate(exported.program.values):
        if index in taps and value.kind is Kind.BITS:
            share = np.bitwise_count(taps[index]).sum() / taps[index].shape[0] / value.channels
            assert 0.02 < share < 0.98, value.name


@needs_engine
@pytest.mark.parametrize("kernels", TABLES)
def test_engine_answers_what_the_file_means(member, kernels):
    _, _, path, cloud = member
    answer = native.engine().Engine(path, kernels=kernels, threads=1).run([cloud])[0]
    assert answer.tobytes() == reference.run(read(path), cloud).tobytes()
