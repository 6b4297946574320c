"""Law of the networks on grids: what PyTorch computes in eval mode is what the file means, step by step and as a whole.

Fed with PyTorch's values, every sign and every float of a binary convolution is PyTorch's bit for bit; other floats are
within TOLERANCE, as PyTorch sums in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from grid_programs import surface
from popcloud import native
from popcloud.cloud import PointCloud
from popcloud.learn import layers
from popcloud.learn.backbones import SCENE_BACKBONES, build_scene
from popcloud.learn.designs import VARIANTS, design_of
from popcloud.learn.export import Exported, export, observe
from popcloud.learn.maps import TensorPyramid
from popcloud.packed.bits import unpack
from popcloud.packed.file import decode, encode
from popcloud.packed.program import Grid, Kind, Op, Program
from popcloud.runtime import sites

engine = native.engine()
TOLERANCE = 1e-5  # as a share of the largest float, or of 1
LEVELS, WIDTH = 3, 8
FEATURES = ("red", "green", "blue")
MEMBERS = [(name, variant, "") for name in ("unet_s", "fcn_s") for variant in VARIANTS]
RESIDUAL = ("bireal", "react", "baseline", "manual", "net")
MEMBERS += [(name, variant, "") for name in ("unet_h", "fcn_h") for variant in ("real", "net")]
MEMBERS += [("unet_s", "net", "norm-first"), ("fcn_s", "baseline", "norm-first")]


def disturbed(name: str, variant: str, order: str) -> nn.Module:
    """Return a network as after a training: both signs of gamma, one of zero, moved statistics, shifts, thresholds."""
    design = design_of(variant, None, **({"order": order} if order else {}))
    model = SCENE_BACKBONES[name](design, classes=4, features=len(FEATURES), width=WIDTH, levels=LEVELS)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
        for norm in (module for module in model.modules() if isinstance(module, layers.Norm)):
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.5, 2)
            norm.weight[::3] *= -1
            norm.weight[1] = 0
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("shifts"):
                buffer.copy_(torch.randint(-1, 2, buffer.shape))
    return model.eval()


@dataclass(frozen=True)
class Case:
    exported: Exported
    program: Program  # as read back from its file


@cache
def case(name: str, variant: str, order: str = "") -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = disturbed(name, variant, order)
    grid = Grid(0.1, model.levels, model.size)
    exported = export(model, classes=["a", "b", "c", "d"], plan=grid, features=FEATURES)
    return Case(exported, decode(encode(exported.program)))


@pytest.fixture(params=MEMBERS, ids=lambda member: "-".join(filter(None, member)))
def member(request, one_thread) -> Case:
    return case(*request.param)


def share_off(found, wanted) -> float:
    return float(np.abs(found - wanted).max()) / max(1.0, float(np.abs(wanted).max()))


@pytest.mark.parametrize("points", [1, 9, 120])
def test_file_means_what_pytorch_computes(member, points, rng):
    program = member.program
    x, at = sites.ready(program, surface(rng, points, len(FEATURES)))
    taps = observe(member.exported, x, TensorPyramid.of(at))
    known = {0: x}
    for index, step in enumerate(program.steps):
        outputs = sites.step(program, index, [known[i] for i in step.inputs], at)
        for output, found in zip(step.outputs, outputs, strict=True):
            wanted = known[output] = taps.get(output, found)
            exact = program.values[output].kind is Kind.BITS or step.op is Op.BINARY_SPARSE_CONV
            assert share_off(found, wanted) <= TOLERANCE if not exact else np.array_equal(found, wanted), (
                program.values[output].name
            )


def test_whole_run_answers_what_pytorch_answers(member, rng):
    cloud = surface(rng, 400, len(FEATURES))
    x, at = sites.ready(member.program, cloud)
    wanted = observe(member.exported, x, TensorPyramid.of(at))[member.program.steps[-1].output][at.point_to_site]
    answer = sites.run(member.program, cloud)
    assert (answer.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.999
    assert np.median(np.abs(answer - wanted)) <= TOLERANCE * max(1.0, float(np.abs(wanted).max()))


@given(points=st.integers(1, 1500) | st.just(3000), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_engine_has_the_reference_s_bits(member, points, seed, tmp_path):
    same_bits_by_every_way(member.program, surface(np.random.default_rng(seed), points, len(FEATURES)), tmp_path)


@pytest.mark.parametrize(("name", "variant"), [("unet_s", "net"), ("unet_s", "real"), ("fcn_s", "baseline")])
def test_engine_has_the_reference_s_bits_in_full_size(name, variant, rng, tmp_path, one_thread):
    """All levels and channels of the paper's networks, on a small scene."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build_scene(name, classes=5, features=len(FEATURES), variant=variant).eval()
    plan = Grid(0.02, model.levels, model.size)
    program = export(model, classes=list("abcde"), plan=plan, features=FEATURES).program
    same_bits_by_every_way(program, surface(rng, 600, len(FEATURES)), tmp_path)


def same_bits_by_every_way(program: Program, cloud: PointCloud, folder: Path) -> None:
    wanted = sites.run(program, cloud)
    path = folder / "model.popc"
    path.unlink(missing_ok=True)  # an engine may still have the old one mapped
    path.write_bytes(encode(program))
    for kernels, threads in product(engine.available(), (1, 2, 3)):
        loaded = engine.Engine(path, kernels=kernels, threads=threads)
        assert np.array_equal(loaded.answers(cloud.xyz, cloud.features).view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("member", [m for m in MEMBERS if m[1] == "real"], indirect=True)
def test_engine_s_float_path_is_pytorch_s(member, rng, tmp_path):
    cloud = surface(rng, 3000, len(FEATURES))
    x, at = sites.ready(member.program, cloud)
    wanted = observe(member.exported, x, TensorPyramid.of(at))[member.program.steps[-1].output]
    (tmp_path / "model.popc").write_bytes(encode(member.program))
    scene = engine.Engine(tmp_path / "model.popc").scene(cloud.xyz, cloud.features)
    assert share_off(scene.run(), wanted) <= TOLERANCE


@pytest.mark.parametrize("member", [m for m in MEMBERS if m[1] in RESIDUAL and not m[2]], indirect=True)
def test_whole_run_of_a_residual_network_has_pytorch_s_bits(member, rng):
    x, at = sites.ready(member.program, surface(rng, 400, len(FEATURES)))
    taps = observe(member.exported, x, TensorPyramid.of(at))
    found = sites.values(member.program, x, at)
    assert all(np.array_equal(found[i], wanted) for i, wanted in taps.items())


def test_signs_can_be_compared_and_are_of_both_kinds(member, rng):
    program = member.program
    x, at = sites.ready(program, surface(rng, 120, len(FEATURES)))
    taps = observe(member.exported, x, TensorPyramid.of(at))
    joined = {step.output for step in program.steps if step.op is Op.CONCAT}
    bits = [i for i, value in enumerate(program.values) if value.kind is Kind.BITS]
    assert {*bits} <= {*taps} | joined
    assert bool(bits) == bool(layers.binary_layers(member.exported.graph))
    assert all(0 < (unpack(taps[i], program.values[i].channels) < 0).mean() < 1 for i in bits if i in taps)


@pytest.mark.parametrize("name", ["unet_s", "fcn_s"])
@pytest.mark.parametrize("variant", ["bireal", "baseline", "net"])
def test_residual_stream_is_one_step_per_layer(name, variant):
    """Batch norm, shortcut, activation and signs of the next layers are all in the convolution's own step."""
    program = case(name, variant).program
    ops = [step.op for step in program.steps]
    assert not {Op.AFFINE, Op.RPRELU, Op.BINARIZE, Op.UNPOOL} & set(ops)
    adds = LEVELS - 1 if name == "fcn_s" else 0  # of the levels' logits
    assert ops.count(Op.ADD) == adds


def test_real_network_s_batch_norms_are_in_the_convolutions():
    program = case("unet_s", "real").program
    assert {step.op for step in program.steps} == {Op.SPARSE_CONV, Op.CONCAT, Op.LINEAR}
    assert max(len(step.outputs) for step in program.steps) == 2  # what is read below and beside has two batch norms


@pytest.mark.parametrize("name", ["unet_s", "fcn_s"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_real_1x1s_of_binary_networks_are_in_float16(name, variant):
    program = case(name, variant).program
    found = {step.blobs["weight"].dtype for step in program.steps if step.op is Op.LINEAR}
    assert found == {np.dtype(np.float32 if variant == "real" else np.float16)}


def test_searched_shifts_are_in_the_file():
    shifts = [step.blobs["shifts"] for step in case("unet_s", "net").program.steps if "shifts" in step.blobs]
    assert len(shifts) == 2 * LEVELS - 1
    assert all(each.shape == (4, 3) for each in shifts)
