"""What every test may use: one seeded generator."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

SEED = 20231

settings.register_profile("popcloud", deadline=None)  # a busy machine is no failure
settings.load_profile("popcloud")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Hear Ctrl-C: a shell that starts a job in the background makes it, and all it starts, deaf."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts the same in every test; a failing test prints nothing else to be repeated."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: networks as small as those of tests only lose by a second one."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; a test that asks for it is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets: {folder} is absent")
    return folder
