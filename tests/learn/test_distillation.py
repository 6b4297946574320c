from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from popcloud.errors import RecipeError
from popcloud.learn import checkpoint
from popcloud.learn.distillation import distillation, load_teacher, start_from
from popcloud.learn.recipe import parse
from popcloud.learn.train import train

TINY = {"points": 16, "train_size": 28, "test_size": 14, "epochs": 1, "batch": 4, "validation": 0.0, "threads": 1}


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A run of the real-valued network."""
    folder = tmp_path_factory.mktemp("twin")
    train(parse(TINY | {"binarizer": "real", "pool": "max", "lr": 0.05}), folder)
    return folder


def test_distillation_is_zero_at_the_teacher_and_its_gradient_leads_there():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    teacher = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert float(distillation(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-12)
    loss = distillation(logits, teacher, 2.0)
    p, q = F.softmax(teacher / 2, 1), F.softmax(logits / 2, 1)
    assert loss.item() == pytest.approx((4 * (p * (p / q).log()).sum(1).mean()).item())
    loss.backward()
    assert distillation(logits - 0.1 * logits.grad, teacher, 2.0).item() < loss.item()


def test_a_network_starts_from_its_twins_weights(twin):
    recipe = parse(TINY | {"start": str(twin)})
    model = checkpoint.build(recipe, 14)
    start_from(model, recipe.start)
    teacher = checkpoint.load(twin).model
    assert torch.equal(model.conv2.weight, teacher.conv2.weight)
    assert torch.equal(model.fc1.norm.running_var, teacher.fc1.norm.running_var)


def test_a_start_without_a_fitting_weight_is_refused(twin):
    with pytest.raises(RecipeError, match="no weight that fits"):
        start_from(torch.nn.Linear(2, 3), str(twin))


def test_a_teacher_of_other_classes_is_refused(twin):
    recipe = parse(TINY | {"teacher": str(twin)})
    with pytest.raises(RecipeError, match="expected classes"):
        load_teacher(recipe, {"classes": ("a", "b")})


def test_a_teacher_changes_what_is_learnt(twin, tmp_path):
    plain, taught = (parse(TINY | more) for more in ({}, {"teacher": str(twin), "distill": 2.0}))
    train(plain, tmp_path / "plain")
    train(taught, tmp_path / "taught")
    first, second = (checkpoint.load(tmp_path / name).model.state_dict() for name in ("plain", "taught"))
    assert not torch.equal(first["conv2.weight"], second["conv2.weight"])


def test_a_start_changes_what_is_learnt(twin, tmp_path):
    train(parse(TINY | {"start": str(twin), "lr": 1e-6}), tmp_path / "run")
    ours, teacher = (checkpoint.load(path).model.state_dict() for path in (tmp_path / "run", twin))
    assert torch.allclose(ours["conv2.weight"], teacher["conv2.weight"], atol=1e-3)
