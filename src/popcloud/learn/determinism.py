"""What is global to PyTorch, set for a run and put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from popcloud.errors import RecipeError
from popcloud.learn.memory import keep_freed_memory


def check_device(device: str) -> None:
    """Raise RecipeError if there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device: expected a GPU that PyTorch can use for 'cuda', found none; set device=cpu")


@contextmanager
def settings(*, seed: int, threads: int | None, device: str) -> Iterator[None]:
    """Set seed, threads and deterministic kernels; None leaves PyTorch's own number of threads."""
    keep_freed_memory()  # a quarter faster on CPUs; the one setting that can't be put back, and no bits depend on it
    memory: Any = torch.utils.deterministic  # a module whose switch is a property that type checkers can't see
    before, fill = torch.get_num_threads(), memory.fill_uninitialized_memory
    exact, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before)
        torch.use_deterministic_algorithms(device == "cpu")
        memory.fill_uninitialized_memory = False  # a debugging aid that costs time
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(exact, warn_only=warn)
            memory.fill_uninitialized_memory = fill
