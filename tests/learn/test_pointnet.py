"""PointNet: how many weights, which layers are binary, what it gives."""

from __future__ import annotations

import pytest
import torch

from popcloud.errors import RecipeError
from popcloud.learn.backbones import build
from popcloud.learn.layers import POOLS, Transform, Weighted, binary_layers

REAL_LAYERS = {  # BiPointNet 2021: first layers of the trunk and of the input T-Net, the classifier
    "pointnet": {"input_net.conv1", "conv1", "classifier"},
    "pointnet_vanilla": {"conv1", "classifier"},
}
WEIGHTS = {"pointnet": (18, 3_449_472), "pointnet_vanilla": (6, 805_056)}  # for 40 classes


def linear_layers(model: torch.nn.Module) -> dict[str, Weighted]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Weighted)}


def make(backbone: str, binarizer: str = "lsr", pool: str = "ema-max", classes: int = 40) -> torch.nn.Module:
    return build(backbone, classes=classes, binarizer=binarizer, pool=pool, points=16)


@pytest.mark.parametrize("backbone", WEIGHTS)
@pytest.mark.parametrize("binarizer", ["real", "lsr", "react"])
def test_weights_are_as_many_as_the_paper_s(backbone, binarizer):
    found = linear_layers(make(backbone, binarizer))
    assert (len(found), sum(layer.weight.numel() for layer in found.values())) == WEIGHTS[backbone]


@pytest.mark.parametrize("backbone", REAL_LAYERS)
def test_first_layers_and_classifier_stay_real(backbone):
    model = make(backbone)
    everything, binary = set(linear_layers(model)), {name for name, _ in binary_layers(model)}
    assert everything - binary == REAL_LAYERS[backbone]
    assert binary_layers(make(backbone, "real")) == []


@pytest.mark.parametrize("backbone", WEIGHTS)
def test_every_layer_but_the_last_of_each_head_has_a_norm(backbone):
    bare = {name for name, layer in linear_layers(make(backbone)).items() if layer.norm is None}
    assert bare == {name for name in linear_layers(make(backbone)) if name.endswith(("fc3", "classifier"))}


@pytest.mark.parametrize("backbone", WEIGHTS)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_clouds_gives_a_row_of_classes_each(backbone, pool, training):
    model = make(backbone, pool=pool, classes=5).train(training)
    x = torch.randn(3, 16, 3)
    logits, penalty = model.loss_terms(x)
    assert logits.shape == model(x).shape == (3, 5)
    assert penalty.shape == ()
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("backbone", WEIGHTS)
def test_order_of_points_does_not_matter(backbone):
    model = make(backbone, "real", classes=5).eval()
    x = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x.flip(1)), rtol=1e-4, atol=1e-5)


def test_penalty_is_the_feature_transform_s_distance_from_orthogonal():
    model = make("pointnet").eval()
    with torch.no_grad():
        x = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0))
        seen = {}
        model.feature_net.register_forward_hook(lambda module, args, m: seen.update(m=m))
        penalty = model.loss_terms(x)[1]
        a = torch.eye(64) + seen["m"].view(2, 64, 64)
        expected = sum((one @ one.T - torch.eye(64)).square().sum().sqrt() for one in a) / 2
    torch.testing.assert_close(penalty, expected)
    assert torch.equal(Transform.matrix(seen["m"], 64), a)


def test_penalty_of_vanilla_is_zero():
    assert make("pointnet_vanilla").loss_terms(torch.randn(2, 16, 3))[1].item() == 0


@pytest.mark.parametrize(("binarizer", "rate"), [("real", 0.4), ("lsr", 0.0)])
def test_only_the_real_form_has_dropout(binarizer, rate):
    assert make("pointnet_vanilla", binarizer).dropout.p == rate


@pytest.mark.parametrize(
    ("field", "wrong", "line"),
    [
        ("backbone", "pointnet_vanila", r"unknown backbone 'pointnet_vanila'; did you mean 'pointnet_vanilla'\?"),
        ("binarizer", "nnb", r"unknown binarizer 'nnb';.*valid: real, bnn"),
        ("pool", "median", r"unknown pool 'median';.*valid: max, mean"),
    ],
)
def test_unknown_parts_are_named_with_the_valid_ones(field, wrong, line):
    choices = {"backbone": "pointnet", "binarizer": "lsr", "pool": "max", field: wrong}
    with pytest.raises(RecipeError, match=line):
        make(**choices)
