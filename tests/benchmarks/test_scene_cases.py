"""What the cases of scene networks measure: their scenes, their networks, and spconv's reading of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from popcloud.geometry.voxels import voxelize
from popcloud.learn.export import observe
from popcloud.learn.maps import TensorPyramid
from popcloud.packed.bits import unpack
from popcloud.packed.file import data_offset, encode
from popcloud.packed.program import Kind
from popcloud.runtime import sites

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EDGE = 0.1  # of the sites of small rooms: some thousands

COMPARE = """\
import json
import torch
from cases.scene_networks import network
from cases.sparse import room
from cases.spconv_network import SpconvNetwork
from popcloud.geometry.plan import GridPlan
from popcloud.learn.maps import TensorPyramid

net = network("unet_s", "real", {edge})
at = GridPlan({edge}, net.model.levels, 3).build(room({edge}))
rows = at.levels[0].sites
x = torch.rand(len(rows), net.model.features)
peer = SpconvNetwork(net.exported.program)
with torch.inference_mode():
    wanted = net.model(x, TensorPyramid.of(at))
    first = peer(peer.start(rows, x))
    again = peer(peer.start(rows, x, peer.kept_pairs(first)))
off = [float((found.features - wanted).abs().max() / wanted.abs().max()) for found in (first, again)]
print(json.dumps(off))
"""


@pytest.fixture(scope="module")
def cases(one_thread):
    """The modules of benchmarks/, by name."""
    names = ("scale", "scene_networks", "sizes", "sparse", "sparse_conv", "unet")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        found = {name: importlib.import_module(f"cases.{name}") for name in names}
        yield SimpleNamespace(harness=importlib.import_module("harness"), **found)


@pytest.mark.slow
def test_spconv_reads_the_network_that_pytorch_has(cases, tmp_path):
    if importlib.util.find_spec("spconv") is None:
        pytest.skip("spconv is not installed: benchmarks/requirements-peers.txt")
    script = tmp_path / "compare.py"  # a process of its own: with more than one thread spconv's sums are wrong
    script.write_text(COMPARE.format(edge=EDGE), encoding="utf-8")
    assert max(cases.harness.apart(str(script))) < 2e-5


@pytest.mark.parametrize("variant", ["baseline", "net"])
def test_networks_have_signs_of_both_kinds(cases, variant):
    net = cases.scene_networks.network("fcn_s", variant, EDGE)
    program, xyz = net.exported.program, cases.sparse.room(EDGE)
    x, at = sites.ready(program, cases.scene_networks.coloured(xyz, 3))
    taps = observe(net.exported, x, TensorPyramid.of(at))
    minus = [(unpack(taps[i], v.channels) < 0).mean() for i, v in enumerate(program.values) if v.kind is Kind.BITS]
    assert len(minus) == 17  # nine levels and the way between them
    assert 0.02 < min(minus) < max(minus) < 0.98
    answers = taps[program.steps[-1].output]
    assert len(np.unique(answers.argmax(axis=1))) > 3


def test_searched_shifts_are_measured(cases):
    program = cases.scene_networks.network("unet_s", "net", EDGE).exported.program
    assert program.plan.size == 5
    assert sum("shifts" in step.blobs for step in program.steps) == 13


def test_one_point_a_site_leaves_all_sites(cases):
    cloud = cases.scene_networks.coloured(cases.sparse.room(EDGE), 3)
    voxels = voxelize(cloud.xyz, EDGE)
    thin = cases.scene_networks.one_per_site(cloud, voxels.point_to_site)
    again = voxelize(thin.xyz, EDGE)
    assert np.array_equal(again.sites, voxels.sites)
    assert len(thin) == len(voxels.sites) == len(thin.features)


def test_landscapes_grow_at_one_density(cases):
    few, many = (cases.scale.landscape(count) for count in (20_000, 200_000))
    sites_of = {len(xyz): len(voxelize(xyz, cases.scale.EDGE).sites) for xyz in (few, many)}
    assert few.dtype == np.float32
    assert sites_of[200_000] / sites_of[20_000] == pytest.approx(10, rel=0.15)
    assert np.ptp(many[:, 0]) / np.ptp(few[:, 0]) == pytest.approx(10**0.5, rel=0.2)


def test_exponent_is_that_of_a_power(cases):
    rows = [{"sites": n, "median_ms": 3 * n**1.25} for n in (100, 1_000, 50_000)]
    assert cases.scale.exponent(rows) == pytest.approx(1.25)


def test_bytes_of_a_file_are_accounted_for(cases):
    program = cases.scene_networks.network("unet_s", "net", EDGE).exported.program
    spent = cases.sizes.spent(program)
    assert spent["file_bytes"] == len(encode(program))
    rest = spent["file_bytes"] - data_offset(program) - sum(spent["blobs"].values())
    assert 0 <= rest < 64 * sum(len(step.blobs) for step in program.steps)


def test_clocks_take_turns_and_the_first_is_not_counted(cases):
    order = []

    def clock(name, seconds):
        order.append(name)
        return seconds[order.count(name) - 1]

    calls = {"a": lambda: clock("a", [9, 1, 2, 3]), "b": lambda: clock("b", [9, 4, 4, 4])}
    found = cases.harness.alternate(calls, 3)
    assert order == ["a", "b"] * 4
    assert found["a"].median == pytest.approx(2000)
    assert found["b"].third == pytest.approx(4000)


@pytest.fixture
def tiny(cases, monkeypatch):
    """A room small enough for a test, by the name "tiny"; nothing is repeated, and no peer is asked."""
    monkeypatch.setitem(cases.sparse.EDGES, "tiny", EDGE)
    monkeypatch.setattr(cases.unet, "SECONDS", 0)
    for case in (cases.unet, cases.sparse_conv):
        monkeypatch.setattr(case, "missing", lambda name: f"no {name} here")
    return "tiny"


def test_unet_measures_what_it_says(cases, tiny):
    row = cases.unet.measure("unet_s", tiny, least=1)
    assert row["points"] == row["sites"][0] < row["all_points"]
    assert set(row["agreeing_with_torch"]) == {
        f"{v}{how}" for v in ("baseline", "net", "real") for how in ("", ", 2 threads")
    }
    assert {"net, pairs known", "net, all points", "torch, real"} < set(row["times"])
    for parts in row["parts_ms"].values():
        outside = sum(parts[name] for name in cases.unet.FROM_POINTS)
        assert sum(parts.values()) - 2 * parts["sites to logits"] == pytest.approx(outside, abs=0.01)
    times = {key: timing["median_ms"] for key, timing in row["times"].items()}
    assert row["times_faster"]["net"]["our float path"] == pytest.approx(times["real"] / times["net"], rel=0.01)
    goals = {each["name"]: each for each in cases.unet._goals("unet_s", row)}
    assert len(goals) == 4
    assert goals["unet_s: times spconv"]["why"] == "no spconv here"


def test_sparse_conv_measures_both_layers(cases, tiny):
    row = cases.sparse_conv.measure(16, tiny, turns=1)
    assert row["sites"] == len(voxelize(cases.sparse.room(EDGE), EDGE).sites)
    assert set(row["times"]) == {"binary", "float"}


@pytest.mark.slow
def test_scale_measures_scenes_and_their_tiles(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(cases.scale, "SECONDS", 0)
    monkeypatch.setattr(cases.scale, "VARIANTS", ("baseline",))
    model, points = cases.scale.write_models(tmp_path)["baseline"], tmp_path / "points.npy"
    xyz = cases.scale.landscape(400_000)
    np.save(points, xyz)
    whole, tiled = (cases.scale.measure(str(model), str(points), memory) for memory in ("100000000", "70000000"))
    assert whole["sites"] == tiled["sites"] == len(voxelize(xyz, cases.scale.EDGE).sites)
    assert whole["tiles"] == whole["runs"] == 1 < tiled["tiles"]
    assert 0 < tiled["peak_bytes"] < whole["peak_bytes"] < 1e8
