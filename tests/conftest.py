"""What every test may use: one seeded generator."""

from __future__ import annotations

import numpy as np
import pytest

SEED = 20231


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts the same in every test; a failing test prints nothing else to be repeated."""
    return np.random.default_rng(SEED)
