"""Plans: what a network asks of geometry. A model file carries a plan as its name and its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from popcloud.errors import RecipeError, unknown
from popcloud.geometry import fast as engine
from popcloud.geometry.kernel_map import SIZES
from popcloud.geometry.pyramid import Pyramid, build, by_engine
from popcloud.geometry.voxels import MAX_SITES, Voxels, voxelize

MAX_LEVELS = 16


@dataclass(frozen=True)
class GridPlan:
    """A pyramid of sites over a regular grid.

    edge    of the finest sites, metres
    levels  1 to 16; a network with d downsamplings has d + 1
    size    of the submanifold neighbourhood: 3, or 5 for shifted convolution

    Raises RecipeError for other values.
    """

    edge: float
    levels: int
    size: int = 3

    def __post_init__(self) -> None:
        if not (self.edge > 0 and math.isfinite(self.edge)):
            raise RecipeError(f"plan: edge {self.edge}: expected a positive number of metres")
        if self.levels not in range(1, MAX_LEVELS + 1):
            raise RecipeError(f"plan: {self.levels} levels: expected 1 to {MAX_LEVELS}")
        if self.size not in SIZES:
            raise RecipeError(f"plan: kernel size {self.size}: expected one of {', '.join(map(str, SIZES))}")

    def voxels(self, xyz: object, *, max_sites: int = MAX_SITES, fast: bool | None = None) -> Voxels:
        """Return the finest sites of a cloud (N, 3); errors as voxels.voxelize, `fast` as pyramid.build."""
        by = engine.voxelize if by_engine(fast) else voxelize
        return by(xyz, self.edge, max_sites=max_sites)

    def build(self, xyz: object, *, max_sites: int = MAX_SITES, fast: bool | None = None) -> Pyramid:
        """Return the pyramid of a cloud (N, 3); errors and `fast` as there."""
        return self.over(self.voxels(xyz, max_sites=max_sites, fast=fast), fast=fast)

    def over(self, voxels: Voxels, *, fast: bool | None = None) -> Pyramid:
        """Return the pyramid over the finest sites."""
        return build(voxels, self.levels, self.size, fast=fast)


PLANS = {"grid": GridPlan}


def plain(plan: GridPlan) -> tuple[str, dict[str, Any]]:
    """Return the plan's name and its numbers, as a model file keeps them."""
    name = next(name for name, kind in PLANS.items() if isinstance(plan, kind))
    return name, asdict(plan)


def from_plain(name: str, numbers: Mapping[str, Any]) -> GridPlan:
    """Return the plan that `plain` took apart; whole numbers may come back as floats.

    Raises RecipeError for an unknown name, and for numbers that are missing, too many or out of range.
    """
    if name not in PLANS:
        raise RecipeError(unknown("plan", name, PLANS))
    kinds = {field.name: field.type for field in fields(PLANS[name])}
    if set(numbers) != set(kinds):
        raise RecipeError(f"plan {name!r}: expected {', '.join(kinds)}, found {', '.join(numbers) or 'nothing'}")
    whole = {key: int(v) for key, v in numbers.items() if kinds[key] == "int" and float(v).is_integer()}
    return PLANS[name](**{**numbers, **whole})
