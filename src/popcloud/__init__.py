"""popcloud: binary neural networks for point clouds.

The run-time names are here: `popcloud.Session(path).run(points)`, `popcloud.PointCloud`, `popcloud.CloudSet`. They are
imported when first used, so that `import popcloud` costs next to nothing. Nothing here imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from popcloud.cloud import CloudSet, PointCloud
    from popcloud.runtime.session import Session

__version__ = "0.1.0"
__all__ = ["CloudSet", "PointCloud", "Session", "__version__"]

_HOMES = {"CloudSet": "popcloud.cloud", "PointCloud": "popcloud.cloud", "Session": "popcloud.runtime.session"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'popcloud' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
