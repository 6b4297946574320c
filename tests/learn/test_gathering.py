"""Rows of neighbours, picked and put back, against plain indexing; their gradients in float64."""

from __future__ import annotations

import pytest
import torch

from popcloud.learn.gathering import Gathered, Spread

B, N, P, K, C = 2, 7, 3, 4, 5


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture
def rows(random: torch.Generator) -> torch.Tensor:
    found = torch.randint(0, N, (B, P, K), generator=random)
    found[:, 0] = found[:, 0, :1]  # one row several times over
    return found


def floats(random: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=random, dtype=torch.float64).requires_grad_()


def plain(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([cloud[numbers] for cloud, numbers in zip(x, rows, strict=True)])


def test_rows_are_those_of_their_own_cloud(random, rows):
    x, y = floats(random, B, N, C), floats(random, B, P, C)
    assert torch.equal(Gathered.apply(x, rows), plain(x, rows))
    assert torch.equal(Gathered.apply(x, rows[:, :, 0]), plain(x, rows[:, :, 0]))
    assert torch.equal(Spread.apply(x, rows, y), plain(x, rows) - y[:, :, None])


def test_gradients_are_those_of_small_differences(random, rows):
    x, y = floats(random, B, N, C), floats(random, B, P, C)
    assert torch.autograd.gradcheck(lambda x: Gathered.apply(x, rows), x)
    assert torch.autograd.gradcheck(lambda x, y: Spread.apply(x, rows, y), (x, y))
    assert torch.autograd.gradcheck(lambda x: Spread.apply(x, rows, x[:, :P]), x)  # both of one value


def test_positions_alone_need_no_gradient(random, rows):
    y = floats(random, B, P, C)
    Spread.apply(y.detach().new_zeros(B, N, C), rows, y).sum().backward()
    torch.testing.assert_close(y.grad, torch.full_like(y, -K))
