"""Training with less memory gives the gradients of the plain formulation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from popcloud.learn import lean
from popcloud.learn.binarizers import signs
from popcloud.learn.lean import NormClip, SignLinear


@pytest.fixture(autouse=True)
def short_slices(monkeypatch):
    monkeypatch.setattr(lean, "_SLICE", 16)  # so that 37 rows make three, the last one shorter


def parts(rows: int = 37, inputs: int = 5, outputs: int = 7) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    made = [torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs), torch.randn(outputs)]
    return tuple(t.double().requires_grad_() for t in made)


def gradients(answer: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    pull = torch.randn(answer.shape, dtype=answer.dtype, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((answer * pull).sum(), leaves)


@pytest.mark.parametrize("biased", [False, True])
def test_linear_of_signs_is_linear(biased):
    x, weight, bias, _ = parts()
    seen = signs(x).requires_grad_()
    leaves = [seen, weight, *([bias] if biased else [])]
    ours, plain = SignLinear.apply(seen, weight, bias if biased else None), F.linear(*leaves)
    assert torch.equal(ours, plain)
    for a, b in zip(gradients(ours, leaves), gradients(plain, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_norm_and_clip_are_batch_norm_and_hardtanh():
    x, weight, beta, gamma = parts()
    z = (F.linear(x, weight) * 3 + 2).detach().requires_grad_()
    ours, mean, var = NormClip.apply(z, gamma, beta, 1e-5)
    plain = F.hardtanh(F.batch_norm(z, None, None, gamma, beta, training=True, eps=1e-5))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mean, z.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(var, z.var(0, unbiased=False), rtol=1e-9, atol=1e-12)
    assert 0 < int((ours.abs() == 1).sum()) < ours.numel()
    leaves = [z, gamma, beta]
    for a, b in zip(gradients(ours, leaves), gradients(plain, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_what_waits_for_the_gradient_of_signs_is_a_byte_each():
    x, weight, _, _ = parts()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        SignLinear.apply(signs(x).requires_grad_(), weight, None)
    assert sum(t.element_size() for t in kept if t.shape == x.shape) == 1
