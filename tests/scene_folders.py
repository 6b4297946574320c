"""Small folders in the layouts that the loaders of scenes read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LAS_LABELS = (0, 1, 2, 3, 4, 5, 6, 9, 17, 64)


def tile_arrays(points: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of one IGN LiDAR HD tile: every label of LAS_LABELS in turn, a pulse's echoes 1 of 1 to 3 of 3."""
    rng = np.random.default_rng(seed)
    returns = rng.integers(1, 4, points)
    return {
        "xyz_cm": rng.integers(0, 5000, (points, 3)).astype(np.uint16),
        "origin": np.array([770500.0, 6277500.0, 20.0]),
        "label": np.resize(LAS_LABELS, points).astype(np.uint8),
        "intensity": rng.integers(60, 1500, points).astype(np.uint16),
        "ret": (rng.integers(1, returns + 1) * 16 + returns).astype(np.uint8),
    }


def write_ign_lidarhd(root: Path) -> Path:
    """Two train tiles and one val tile of each part."""
    for part in ("dense", "sparse"):
        for seed, (split, place) in enumerate((("train", "10_20"), ("train", "10_21"), ("val", "11_20"))):
            np.savez(root / f"{split}_{part}_{place}.npz", **tile_arrays(seed=seed + 10 * len(part)))
    return root
