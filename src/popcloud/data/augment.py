"""Changing clouds at random, so that a network sees more than the training set holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats
from popcloud.errors import RecipeError

JITTER_LIMIT = 4  # jitter is clipped at so many standard deviations (PointNet's code: 0.01 clipped at 0.05)


@dataclass(frozen=True)
class Augment:
    """What may happen to a cloud, in this order; the defaults change nothing.

    rotate_z   turn about z by up to so many degrees either way, 0 to 180; True is any turn
    scale      one factor per cloud from (low, high), 0 < low <= high
    translate  one shift per cloud and axis of up to this either way, >= 0
    jitter     standard deviation of a shift per point and axis, >= 0, clipped at 4 of them
    dropout    up to this share of the points becomes a copy of the first, 0 to 1 (PointNet++, Qi et al. 2017)
    Raises RecipeError for a value out of range.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    translate: float = 0.0
    jitter: float = 0.0
    dropout: float = 0.0
    rotate_z: bool | float = False

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < np.inf:
            raise RecipeError(f"augment.scale: expected (low, high) with 0 < low <= high, found {self.scale}")
        for name, value, high in (
            ("translate", self.translate, np.inf),
            ("jitter", self.jitter, np.inf),
            ("dropout", self.dropout, 1.0),
            ("rotate_z", self.degrees, 180.0),
        ):
            if not 0 <= value <= high or value == np.inf:
                bound = f"0 to {high:g}" if high < np.inf else "a finite number >= 0"
                raise RecipeError(f"augment.{name}: expected {bound}, found {value}")

    @property
    def degrees(self) -> float:
        """Return the largest turn about z, in degrees."""
        return 180.0 if self.rotate_z is True else float(self.rotate_z)

    def apply(self, xyz: Floats, rng: np.random.Generator) -> Floats:
        """Return changed copies of the clouds (B, N, 3) float32; the input stays as it is.

        A change that is switched off draws nothing from `rng`.
        """
        changed = np.array(xyz, dtype=np.float32, copy=True)
        clouds, points = changed.shape[:2]
        if self.degrees > 0:
            turn = np.radians(self.degrees) * rng.uniform(-1, 1, clouds)
            changed = changed @ _rotations(turn)
        if self.scale != (1.0, 1.0):
            changed *= rng.uniform(*self.scale, (clouds, 1, 1)).astype(np.float32)
        if self.translate > 0:
            changed += rng.uniform(-self.translate, self.translate, (clouds, 1, 3)).astype(np.float32)
        if self.jitter > 0:
            noise = rng.standard_normal(changed.shape, dtype=np.float32).clip(-JITTER_LIMIT, JITTER_LIMIT)
            changed += np.float32(self.jitter) * noise
        if self.dropout > 0:
            share = rng.uniform(0, self.dropout, (clouds, 1))
            lost = rng.random((clouds, points)) < share
            changed = np.where(lost[..., None], changed[:, :1], changed)
        return changed


def _rotations(angle: NDArray[np.float64]) -> Floats:
    """Return (B, 3, 3) float32 for `row vectors @ rotation`: turns about z by `angle` (B,)."""
    turn = np.zeros((len(angle), 3, 3), dtype=np.float32)
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1] = np.sin(angle)
    turn[:, 1, 0] = -turn[:, 0, 1]
    turn[:, 2, 2] = 1
    return turn
