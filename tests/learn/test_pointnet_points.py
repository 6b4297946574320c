from __future__ import annotations

import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn import layers
from popcloud.learn.backbones import BLOCK_BACKBONES, PART_BACKBONES, build_points
from popcloud.learn.export import export
from popcloud.packed.program import Kind, Op, Sampling

FEATURES = ("x", "y", "z", "normal_x", "normal_y", "normal_z", "category:mug")
WEIGHTS = {  # of the plans of the papers, without T-Nets: 7 inputs, 5 classes
    "pointnet_parts_vanilla": (
        7 * 64 + 64 * 128 + 128 * 128 + 128 * 512 + 512 * 2048 + 4928 * 256 + 256 * 256 + 256 * 128 + 128 * 5
    ),
    "pointnet_blocks_vanilla": 7 * 64 + 64 * 128 + 128 * 1024 + 1088 * 512 + 512 * 256 + 256 * 128 + 128 * 5,
}


def network(name: str, **options):
    chosen = {"classes": 5, "features": FEATURES, "binarizer": "lsr", "pool": "ema-max", "points": 12} | options
    return build_points(name, **chosen)


@pytest.mark.parametrize("name", [*PART_BACKBONES, *BLOCK_BACKBONES])
def test_each_point_has_a_row_of_classes(name):
    model, x = network(name), torch.randn(2, 12, 7)
    logits, penalty = model.loss_terms(x)
    assert logits.shape == (2, 12, 5)
    assert (penalty.item() > 0) == (not name.endswith("vanilla"))
    (logits.square().mean() + penalty).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_the_plan(name):
    found = [module for module in network(name).modules() if isinstance(module, layers.Weighted)]
    assert sum(layer.weight.numel() for layer in found) == WEIGHTS[name]


@pytest.mark.parametrize("name", [*PART_BACKBONES, *BLOCK_BACKBONES])
def test_what_stays_real(name):
    model = network(name)
    real = [n for n, m in model.named_modules() if isinstance(m, layers.Weighted) and m.binarizer is None]
    own = ["conv1", "classifier"] if name.endswith("vanilla") else ["align.net.conv1", "conv1", "classifier"]
    assert real == own


@pytest.mark.parametrize("name", [*PART_BACKBONES, *BLOCK_BACKBONES])
def test_points_in_another_order_get_the_same_answers(name):
    model, x, order = network(name).eval(), torch.randn(1, 12, 7), torch.randperm(12)
    layers.initialise(model, x)
    with torch.no_grad():
        assert torch.equal(model(x)[:, order], model(x[:, order]))


def test_the_input_t_net_turns_positions_alone():
    model = network("pointnet_parts").eval()
    x = torch.randn(1, 12, 7)
    with torch.no_grad():
        aligned = model.align(x)
    assert torch.equal(aligned[..., 3:], x[..., 3:])
    assert not torch.equal(aligned[..., :3], x[..., :3])


def test_a_network_of_positions_alone_has_no_columns_to_part():
    model = network("pointnet_blocks", features=FEATURES[:3]).eval()
    program = export(model, classes=list("abcde"), plan=Sampling(), features=FEATURES[:3]).program
    assert Op.SLICE not in [step.op for step in program.steps]


def test_no_floats_of_all_points_are_written_where_only_their_largest_are_read():
    program = export(
        network("pointnet_parts_vanilla"), classes=list("abcde"), plan=Sampling(), features=FEATURES
    ).program
    wide = [value for value in program.values if value.channels == 2048]
    assert [(value.kind, value.rows.name) for value in wide if value.kind is Kind.FLOAT] == [(Kind.FLOAT, "CLOUD")] * 2
    assert [step.op for step in program.steps].count(Op.CONCAT) == 2  # six parts, four a step


def test_an_unknown_network_is_refused():
    with pytest.raises(RecipeError, match="unknown backbone 'pointnet_part'; did you mean 'pointnet_parts'"):
        network("pointnet_part")
