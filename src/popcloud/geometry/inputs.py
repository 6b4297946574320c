"""What a network on a grid reads of each point: the columns of its cloud, and columns that follow from the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats, PointCloud
from popcloud.errors import CloudError
from popcloud.geometry.voxels import check_finite

LOWEST = 100  # the ground of a cloud is the height that one point in so many lies below: lidar has strays
TEN_METRES = np.float32(0.1)  # heights go in as tens of metres, to be of the size of other features


def one(xyz: Floats) -> Floats:
    """Return (N, 1) ones: that there is something."""
    return np.ones((len(xyz), 1), dtype=np.float32)


def height(xyz: Floats) -> Floats:
    """Return heights over the ground (N, 1), in tens of metres; 1 % of the points lie below the ground."""
    ground = np.partition(xyz[:, 2], len(xyz) // LOWEST)[len(xyz) // LOWEST]
    heights: Floats = (xyz[:, 2:] - ground) * TEN_METRES
    return heights


COMPUTED: dict[str, Callable[[Floats], Floats]] = {"one": one, "height": height}


def own_features(cloud: PointCloud, names: Sequence[str]) -> Floats:
    """Return the cloud's features that `names` ask for beside the computed ones, (N, own) float32 in their order.

    Raises CloudError if the cloud has not as many features as there are other names, or they are not finite. Features
    that no name asks for are left out if no name asks for any.
    """
    own = [name for name in names if name not in COMPUTED]
    found = np.zeros((len(cloud), 0)) if cloud.features is None or not own else np.asarray(cloud.features)
    if found.shape != (len(cloud), len(own)):
        raise CloudError(
            f"features: expected shape ({len(cloud)}, {len(own)}): {', '.join(own)}, found {found.shape}; "
            "pass a PointCloud with these features"
        )
    with np.errstate(over="ignore"):  # what float32 can't hold is refused as what is not finite
        single = np.ascontiguousarray(found, np.float32)
    check_finite(single)
    return single


class Columns:
    """What a network reads of the points of a whole cloud, any rows of it: `columns[rows]` is (M, F) float32.

    Computed columns are computed once, over all points. Raises CloudError as `own_features`.
    """

    def __init__(self, cloud: PointCloud, names: Sequence[str]):
        own, found = [name for name in names if name not in COMPUTED], own_features(cloud, names)
        self.parts = [
            COMPUTED[name](cloud.xyz)[:, 0] if name in COMPUTED else found[:, own.index(name)] for name in names
        ]

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> Floats:
        """Return the columns of these points."""
        return np.stack([part[rows] for part in self.parts], axis=1)


def point_columns(cloud: PointCloud, names: Sequence[str]) -> Floats:
    """Return the columns of these names, (N, F) float32: computed ones, and the cloud's features; errors as there."""
    return Columns(cloud, names)[:]
