"""Reading one cloud from a file, by the ending of its name."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import PointCloud, check_xyz
from popcloud.data import files_pcd, files_ply
from popcloud.data.files_off import read_mesh
from popcloud.data.scene_files import COLOURS, scaled_colours
from popcloud.errors import CloudError

# What numpy raises for a damaged file; TokenError and MemoryError come from headers that lie, RuntimeError and
# NotImplementedError from archives that are encrypted or packed in another way.
UNREADABLE = (
    ValueError, EOFError, TokenError, MemoryError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error
)  # fmt: skip

NORMALS = {"nx": "normal_x", "ny": "normal_y", "nz": "normal_z"}  # what .ply calls them, and data sets
NPZ_NAMES = ("xyz", "points", "features", "labels", "x", "y", "z")  # arrays that are no columns of their own name


def read_cloud(path: Path | str) -> PointCloud:
    """Read a cloud from .npy, .npz, .xyz, .txt, .ply, .off or .pcd.

    Coordinates are the columns x, y, z (the first three of a table). What else there is per point becomes features,
    in the file's order, (N, F) float32; a column named label becomes labels. Of a mesh only the vertices are read.
    Raises CloudError that names the file and the place in it.
    """
    return from_columns(Path(path), read_columns(Path(path)))


def read_features(path: Path | str, names: Sequence[str]) -> PointCloud:
    """Read a cloud with the features of these names, (N, F) in their order, None for no names; labels as read_cloud.

    Whole-numbered red, green and blue, 0 to 255, come to lie in [-1, 1], as data sets have them; all else stays as it
    is. Normals may be called nx, ny, nz, as .ply does. Raises CloudError as read_cloud, and one that names the columns
    that are missing.
    """
    path = Path(path)
    found = read_columns(path)
    columns = {NORMALS.get(name, name) if NORMALS.get(name) in names else name: found[name] for name in found}
    lacking = [name for name in names if name not in columns]
    if lacking:
        raise CloudError(
            f"{path}: expected the columns {', '.join(names)}, found {', '.join(columns)} without "
            f"{', '.join(lacking)}; .ply, .pcd and .npz can name them"
        )
    kept = {name: columns[name] for name in ("x", "y", "z", "label") if name in columns}
    return from_columns(path, kept | {name: _scaled(path, name, columns[name]) for name in names})


def _scaled(path: Path, name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Return a feature as data sets have it."""
    if name not in COLOURS or column.dtype.kind not in "iu" or not len(column):
        return column
    low, high = column.min(), column.max()
    if low < 0 or high > 255:
        raise CloudError(f"{path}: {name}: expected whole numbers from 0 to 255, found {low} to {high}")
    return scaled_colours(column)


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of a cloud's file by name, each (N,). Raises CloudError as read_cloud."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise CloudError(f"{path}: unknown ending {path.suffix!r}; valid: {', '.join(READERS)}")
    if path.is_dir() or not path.exists():
        kind = "a folder" if path.is_dir() else "nothing there"
        raise CloudError(f"{path}: expected a file, found {kind}; check the path")
    try:
        return reader(path)
    except OSError as error:
        raise CloudError(f"{path}: can't be read ({error.strerror or error})") from error


def from_columns(path: Path, columns: dict[str, NDArray[Any]]) -> PointCloud:
    """Return the cloud of named columns, each (N,): x, y, z, maybe label, and features. Raises CloudError."""
    lacking = [name for name in "xyz" if name not in columns]
    if lacking:
        raise CloudError(f"{path}: expected the columns x, y, z, found {', '.join(columns) or 'none'}")
    xyz = check_xyz(np.stack([columns[name] for name in "xyz"], axis=1), str(path))
    features = [column for name, column in columns.items() if name not in ("x", "y", "z", "label")]
    labels = columns.get("label")
    return PointCloud(
        xyz,
        np.stack(features, axis=1).astype(np.float32) if features else None,
        None if labels is None else labels.astype(np.int64),
    )


def _table(path: Path, table: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of an array (N, 3 or more)."""
    if table.dtype.kind not in "iuf":
        raise CloudError(f"{path}: expected numbers, found an array of {table.dtype}")
    if table.ndim != 2 or table.shape[1] < 3:
        raise CloudError(f"{path}: expected an array (N, 3) or wider, found shape {table.shape}")
    names = ["x", "y", "z", *(f"feature{i}" for i in range(table.shape[1] - 3))]
    return dict(zip(names, table.T, strict=True))


def _read_numpy(path: Path) -> Any:
    """Return what numpy finds in a file, an array or an archive; objects (pickles) are refused."""
    try:
        return np.load(BytesIO(path.read_bytes()), allow_pickle=False)
    except UNREADABLE as error:
        raise CloudError(f"{path}: not a numpy file of plain numbers, or cut short ({error})") from error


def _read_npy(path: Path) -> dict[str, NDArray[Any]]:
    found = _read_numpy(path)
    if not isinstance(found, np.ndarray):
        found.close()
        raise CloudError(f"{path}: expected one array, found an archive; name it .npz")
    return _table(path, found)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read the array xyz, points or the only one; features, labels, and columns (N,) by their own names."""
    archive = _read_numpy(path)
    if isinstance(archive, np.ndarray):
        raise CloudError(f"{path}: expected an archive of arrays, found one array; name it .npy")
    with archive:
        try:
            arrays = {name: archive[name] for name in archive.files}
        except UNREADABLE as error:
            raise CloudError(f"{path}: damaged, or holds more than plain numbers ({error})") from error
    key = next((name for name in ("xyz", "points") if name in arrays), None)
    if key is None and len(arrays) == 1:
        key = next(iter(arrays))
    if key is None:
        raise CloudError(f"{path}: expected an array named xyz or points, found {', '.join(arrays) or 'none'}")
    columns = _table(path, arrays[key])
    if "features" in arrays:
        features = arrays["features"]
        wide = features[:, None] if features.ndim == 1 else features
        columns |= {f"features{i}": column for i, column in enumerate(_rows_of(path, "features", wide, columns).T)}
    columns |= {name: array for name, array in arrays.items() if name not in NPZ_NAMES and _is_column(array, columns)}
    if "labels" in arrays:
        columns["label"] = _rows_of(path, "labels", arrays["labels"], columns)
    return columns


def _is_column(array: NDArray[Any], columns: dict[str, NDArray[Any]]) -> bool:
    return array.shape == columns["x"].shape and array.dtype.kind in "iuf"


def _rows_of(path: Path, name: str, array: NDArray[Any], columns: dict[str, NDArray[Any]]) -> NDArray[Any]:
    wanted, dimensions = len(columns["x"]), 2 if name == "features" else 1
    if array.ndim != dimensions or len(array) != wanted or array.dtype.kind not in "iuf":
        raise CloudError(f"{path}: expected {name} as numbers for {wanted} points, found {array.dtype} {array.shape}")
    return array


def _read_text(path: Path) -> dict[str, NDArray[Any]]:
    """Read one point a line: numbers between spaces or commas; # and // begin a comment."""
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", errors="replace").splitlines(), start=1):
        words = line.partition("#")[0].partition("//")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            found = line.strip()[:40]
            raise CloudError(f"{path}, line {number}: expected numbers x y z, found {found!r}") from error
        if len(row) < 3 or (rows and len(row) != len(rows[0])):
            wanted = len(rows[0]) if rows else "at least 3"
            raise CloudError(f"{path}, line {number}: expected {wanted} numbers, found {len(row)}")
        rows.append(row)
    if not rows:
        raise CloudError(f"{path}: expected one point a line, found none")
    return _table(path, np.array(rows))


def _read_off(path: Path) -> dict[str, NDArray[Any]]:
    vertices, _ = read_mesh(path)
    return _table(path, vertices)


READERS: dict[str, Callable[[Path], dict[str, NDArray[Any]]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".xyz": _read_text,
    ".txt": _read_text,
    ".ply": files_ply.read_columns,
    ".off": _read_off,
    ".pcd": files_pcd.read_columns,
}
