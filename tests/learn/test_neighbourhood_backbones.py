"""Networks on neighbourhoods: which layers are binary, what they give, their options."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from popcloud.errors import CloudError, ExportError, RecipeError
from popcloud.learn.backbones import BACKBONES
from popcloud.learn.backbones.pointnet2 import PointNet2
from popcloud.learn.export import export, observe
from popcloud.learn.layers import Weighted, binary_layers, initialise
from popcloud.learn.point_layers import FarthestPoints
from popcloud.packed.program import Kind, Op, Sampling
from popcloud.runtime import reference

POINTS = 24
SMALL = {
    "pointnet2": {"neighbours": (6, 4), "radii": (1.0, 2.0)},
    "dgcnn": {"k": 5},
    "dgcnn_hamming": {"k": 5},
    "pointcnn": {"neighbours": (4, 5, 4, 4), "ratios": (0.75, 0.75)},
    "pointconv": {"neighbours": (5, 4), "bandwidths": (1.5, 3.0), "radii": (1.0, 2.0)},
}


def plan(*widths: int) -> int:
    """How many weights a chain of layers has."""
    return sum(inputs * outputs for inputs, outputs in pairwise(widths))


def xconv(inputs: int, outputs: int, k: int, hidden: int) -> int:
    """How many weights an X-Conv has, with its linear layer (Li et al. 2018, algorithm 1)."""
    channels = inputs + hidden
    deep = channels * math.ceil(outputs / channels)
    return plan(3, hidden, hidden) + plan(3 * k, k * k) + 2 * k**3 + deep * k + deep * outputs


HEAD = plan(1024, 512, 256, 40)  # 40 classes
LEVELS = plan(3, 64, 64, 128), plan(128 + 3, 128, 128, 256), plan(256 + 3, 256, 512, 1024)  # of PointNet++
FUNCTIONS = plan(3, 8, 8, 16) + plan(1, 16, 8, 1)  # of the position and of the density
WEIGHTS = {
    "pointnet2": sum(LEVELS) + HEAD,
    "dgcnn": plan(6, 64, 64, 64) + plan(128, 128) + plan(192, 1024) + HEAD,
    "dgcnn_hamming": plan(6, 64, 64, 64) + plan(128, 128) + plan(192, 1024) + HEAD,
    "pointcnn": xconv(0, 48, 8, 32)
    + xconv(48, 96, 12, 64)
    + xconv(96, 192, 16, 128)
    + xconv(192, 384, 16, 256)
    + plan(384, 256, 128, 40),
    "pointconv": sum(LEVELS) + 2 * FUNCTIONS + plan(16 * 128, 128) + plan(16 * 256, 256) + HEAD,
}
POSITIONS = ("position", "neighbour", "own", "lift1", "matrix1", "classifier")  # real-valued, of these names


def make(backbone: str, binarizer: str = "lsr", pool: str = "ema-max", **options) -> nn.Module:
    torch.manual_seed(2)
    shared = {"classes": 40, "binarizer": binarizer, "pool": pool, "points": POINTS}
    return BACKBONES[backbone](**shared, **{**SMALL[backbone], **options})


def clouds(count: int = 3, points: int = POINTS) -> torch.Tensor:
    return torch.randn(count, points, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("binarizer", ["real", "lsr"])
def test_weights_are_as_many_as_planned(backbone, binarizer):
    model = BACKBONES[backbone](classes=40, binarizer=binarizer, pool="max", points=1024)
    layers = (module for module in model.modules() if isinstance(module, Weighted))
    assert sum(layer.weight.numel() for layer in layers) == WEIGHTS[backbone]


@pytest.mark.parametrize("backbone", SMALL)
def test_what_reads_positions_and_the_classifier_stay_real(backbone):
    model = make(backbone)
    binary = {name for name, _ in binary_layers(model)}
    real = {name for name, module in model.named_modules() if isinstance(module, Weighted)} - binary
    small = {name for name in real if ".weights." in name}  # PointConv's functions of positions and densities
    assert {name.rsplit(".")[-1] for name in real - small} <= set(POSITIONS)
    assert len(binary) > len(real - small)
    assert binary_layers(make(backbone, "real")) == []


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("binarizer", ["real", "lsr", "react"])
def test_a_step_of_training_moves_every_weight(backbone, binarizer):
    model, x = make(backbone, binarizer), clouds()
    initialise(model, x)
    logits, penalty = model.loss_terms(x)
    assert logits.shape == (3, 40)
    assert penalty == 0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    logits.square().mean().backward()
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("backbone", SMALL)
def test_order_of_points_hardly_matters_without_sampling(backbone):
    model, x = make(backbone, "real").eval(), clouds()
    if any(isinstance(module, FarthestPoints) for module in model.modules()):
        with torch.no_grad():
            torch.testing.assert_close(model(x), torch.cat([model(one[None]) for one in x]))  # clouds don't mix
        return
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x.flip(1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "options", "ops"),
    [
        ("pointnet2", {"xyz": "signs"}, {Op.BALL, Op.CONCAT}),
        ("dgcnn", {"neighbours": "signs"}, {Op.NEAREST, Op.NEAREST_SIGNS}),
    ],
)
@pytest.mark.parametrize("binarizer", ["lsr", "react"])
def test_other_choices_have_a_program_s_bits_too(backbone, options, ops, binarizer):
    model, x = make(backbone, binarizer, **options), clouds()
    initialise(model, x)
    model(x)
    exported = export(model, classes=[str(i) for i in range(40)])
    assert ops <= {step.op for step in exported.program.steps}
    values, taps = reference.values(exported.program, x[0].numpy()), observe(exported, x[0])
    assert all((values[i] == found).all() for i, found in taps.items())
    assert {exported.program.values[i].kind for i in taps} == set(Kind)


def test_a_program_says_how_many_points_are_sampled():
    names = [str(i) for i in range(40)]
    assert export(make("pointnet2"), classes=names).program.plan == Sampling((0.5, 0.25))
    assert export(make("dgcnn"), classes=names).program.plan == Sampling()


def test_two_samplings_of_one_level_are_refused():
    class Twice(PointNet2):
        def forward(self, xyz):
            self.sa2.gather(xyz, self.sa2.sample(xyz))
            return super().forward(xyz)

    model = Twice(classes=2, binarizer="lsr", pool="max", points=POINTS)
    with pytest.raises(ExportError, match=r"sa1\.sample: takes 0\.5 of the points of level 0, another layer 0\.25"):
        export(model, classes=["a", "b"])


@pytest.mark.parametrize(
    ("backbone", "options", "line"),
    [
        ("pointnet2", {"xyz": "sings"}, r"unknown way of positions 'sings'; did you mean 'signs'\?"),
        ("dgcnn", {"neighbours": "feature"}, r"unknown kind of neighbours 'feature'; did you mean 'features'\?"),
        ("dgcnn", {"pool": "median"}, r"unknown pool 'median'"),
    ],
)
def test_unknown_choices_are_named_with_the_valid_ones(backbone, options, line):
    with pytest.raises(RecipeError, match=line):
        make(backbone, **options)


def test_a_cloud_with_fewer_points_than_neighbours_is_an_error_of_the_cloud():
    with pytest.raises(CloudError, match="needs at least 5 points, found 4"):
        make("dgcnn").eval()(clouds(points=4))
