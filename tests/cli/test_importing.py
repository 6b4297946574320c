"""The command import: a checkpoint of BiPointNet's release is packed, verified and measured like any other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from commands import complaint
from popcloud.cloud import CloudSet
from popcloud.data import modelnet40
from popcloud.packed.file import read
from release import release

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder like that of ModelNet40 with an ellipsoid per class."""
    folder, rng = tmp_path_factory.mktemp("modelnet40"), np.random.default_rng(2)
    xyz = rng.normal(size=(40, 1024, 3))
    xyz /= np.linalg.norm(xyz, axis=2, keepdims=True)
    xyz = (xyz * rng.uniform(0.2, 1, size=(40, 1, 3))).astype(np.float32)
    data = CloudSet(xyz, np.arange(40, dtype=np.int64), modelnet40.CLASSES)
    modelnet40.write_packed(data, folder, "test")
    return folder


def imported(call, folder, backbone, binarizer, pool, *more, change=None):
    state = release(binarizer, pool, backbone)[0].state
    torch.save(state if change is None else change(state), folder / "best.pth")
    names = ("--backbone", backbone, "--binarizer", binarizer, "--pool", pool)
    return call("import", folder / "best.pth", *names, "--out", folder / "run", *more)


@pytest.mark.parametrize(
    ("backbone", "binarizer", "pool"),
    [("pointnet", "lsr", "ema-max"), ("pointnet", "irnet", "mean"), ("dgcnn", "xnor", "max")],
)
def test_import_pack_verify(call, root, backbone, binarizer, pool, tmp_path):
    done = imported(call, tmp_path, backbone, binarizer, pool, "--root", root)
    assert done.code == 0, done.err
    assert "40 classes" in done.out
    assert ("unit sphere" in done.err) == (backbone == "dgcnn")
    assert call("pack", tmp_path / "run", tmp_path / "m.popc").code == 0
    program = read(tmp_path / "m.popc")
    assert (program.points, program.classes) == (1024, modelnet40.CLASSES)
    assert "academic research only" in program.meta["licence"]
    proof = call("verify", tmp_path / "run", tmp_path / "m.popc", "--clouds", 2, "--json")
    assert proof.code == 0, proof.err
    assert json.loads(proof.out)["same_program"]
    found = json.loads(call("eval", tmp_path / "run", "--clouds", 4, "--json").out)
    assert found["clouds"] == 4


def test_json_for_a_script(call, tmp_path):
    found = json.loads(imported(call, tmp_path, "pointnet_vanilla", "bnn", "max", "--json").out)
    assert found == {
        "path": str(tmp_path / "run" / "best.safetensors"),
        "backbone": "pointnet_vanilla",
        "binarizer": "bnn",
        "pool": "max",
        "parameters": 805_056 + 2 * (64 + 128 + 1024 + 512 + 256) + 40,  # weights, batch norm, the classifier's bias
        "classes": 40,
    }


def test_scales_of_0_need_clouds(call, root, tmp_path):
    def bare(state):
        return state | {name: torch.zeros(()) for name in state if name.endswith("scale")}

    what = ("pointnet_vanilla", "lsr", "ema-max")
    complaint(imported(call, tmp_path, *what, change=bare), 6, "4 layers have scale 0 .*pass --root")
    assert not (tmp_path / "run").exists()
    assert imported(call, tmp_path, *what, "--root", root, change=bare).code == 0


def test_another_network_is_refused(call, tmp_path):
    def other(state):
        return state | {"more.weight": torch.zeros(3)}

    complaint(imported(call, tmp_path, "pointnet", "lsr", "max", change=other), 6, "unexpected more.weight; check")
    complaint(call("import", tmp_path / "no.pth", "--backbone", "pointcnn"), 2, "required: --binarizer, --pool, --out")
