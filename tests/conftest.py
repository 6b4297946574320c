"""What every test may use: one seeded generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

SEED = 20231

settings.register_profile("popcloud", deadline=None)  # a busy machine is no failure
settings.load_profile("popcloud")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts the same in every test; a failing test prints nothing else to be repeated."""
    return np.random.default_rng(SEED)
