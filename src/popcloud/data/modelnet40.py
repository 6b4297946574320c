"""ModelNet40 (Wu et al., CVPR 2015) from any of its three forms; the loader tells which by looking into the folder.

packed   modelnet40_*_train.npz, modelnet40_*_test.npz, classes.txt: int16 points, see `write_packed`
hdf5     the official modelnet40_ply_hdf5_2048: train_files.txt, ply_data_train0.h5, ..., shape_names.txt
meshes   ModelNet40/<class>/{train,test}/*.off: points are drawn uniformly over the area
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import CloudSet, Floats, normalize
from popcloud.data.common import SPLITS, check_request, choose_classes, keep_classes, keep_clouds, normalize_all
from popcloud.data.files_off import read_mesh
from popcloud.data.hdf5 import read_arrays
from popcloud.data.mesh import Mesh, sample_surface
from popcloud.errors import DatasetError

LAYOUTS = (
    "expected modelnet40_1024_{train,test}.npz with classes.txt, or the official modelnet40_ply_hdf5_2048 "
    "(shape_names.txt, {train,test}_files.txt, ply_data_*.h5), or <class>/{train,test}/*.off"
)
# fmt: off
CLASSES = (  # in the order of their numbers
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel",
    "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool",
    "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)
# fmt: on
PACKED_UNIT = 4095  # an int16 coordinate of the packed form, in unit-sphere radii


def load(
    root: Path | None,
    split: str,
    *,
    points: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    clouds: int | None = None,
) -> CloudSet:
    """Read one split.

    root     the folder, in any of the three forms
    points   per cloud: the first ones of those stored, which are in random order, or as many as wanted from meshes
    seed     for the points drawn from meshes, and for the choice of `clouds`; nothing else has chance in it
    classes  class names, default all; they become classes 0, 1, ... in this order
    clouds   at most so many, drawn by the seed
    Returns clouds in the order stored, in the unit sphere.
    Raises DatasetError for a folder that is missing, half written or too small for `points`.
    """
    check_request(split, points, clouds)
    if root is None:
        raise DatasetError(f"modelnet40: expected the data set's folder, found none; {LAYOUTS}")
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; {LAYOUTS}")
    if _find_packed(root):
        data = _read_packed(root, split)
    elif _is_hdf5(root):
        data = _read_hdf5(root, split)
    elif _mesh_classes(root):
        return _read_meshes(root, split, points, seed, classes, clouds)
    else:
        raise DatasetError(f"{root}: holds no form of ModelNet40; {LAYOUTS}; or use the dataset 'shapes'")
    stored = data.xyz.shape[1]
    if points > stored:
        raise DatasetError(f"{root}: points={points}, but {stored} are stored per cloud; ask for at most {stored}")
    data = keep_clouds(keep_classes(data, classes), clouds, seed)
    if len(data) == 0:
        raise DatasetError(f"{root}: split {split!r} has no cloud of {', '.join(data.classes)}; fetch the folder again")
    return CloudSet(normalize_all(data.xyz[:, :points]), data.labels, data.classes)


def _missing(path: Path) -> DatasetError:
    return DatasetError(f"{path} is missing: the folder is half written, fetch it again; {LAYOUTS}")


def _damaged(path: Path, what: str) -> DatasetError:
    return DatasetError(f"{path}: {what}; the file is damaged, fetch it again")


def _names(path: Path) -> tuple[str, ...]:
    """Return the class names of a text file, one a line."""
    if not path.is_file():
        raise _missing(path)
    names = tuple(path.read_text().split())
    if not names:
        raise _damaged(path, "expected one class name a line, found none")
    return names


def _checked(path: Path, xyz: Floats, labels: NDArray[Any], names: tuple[str, ...]) -> CloudSet:
    """Return the set if the arrays fit each other and the class names."""
    if xyz.ndim != 3 or xyz.shape[2] != 3 or labels.shape != (len(xyz),):
        raise _damaged(path, f"expected points (B, N, 3) and labels (B,), found {xyz.shape} and {labels.shape}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        raise _damaged(path, f"expected labels 0 to {len(names) - 1}, found {labels.min()} to {labels.max()}")
    if not np.isfinite(xyz).all():
        raise _damaged(path, "expected finite coordinates, found others")
    return CloudSet(xyz, labels.astype(np.int64), names)


# --- packed -----------------------------------------------------------------------------------------------------------


def _find_packed(root: Path, split: str = "*") -> list[Path]:
    return sorted(root.glob(f"modelnet40_*_{split}.npz"))


def _read_packed(root: Path, split: str) -> CloudSet:
    found = _find_packed(root, split)
    if not found:
        other = _find_packed(root)[0]
        raise _missing(other.with_name(f"{other.stem.rpartition('_')[0]}_{split}.npz"))
    path, names = found[0], _names(root / "classes.txt")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            points, labels = arrays["points"], arrays["label"]
    except KeyError as error:
        raise _damaged(path, f"expected the arrays points and label, {error.args[0]}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, f"not a readable npz ({error})") from error
    return _checked(path, points / np.float32(PACKED_UNIT), labels, names)


def write_packed(data: CloudSet, root: Path, split: str) -> Path:
    """Write a split in the packed form, so that meshes are read and sampled only once; returns the path.

    `data` lies in the unit sphere (as `load` gives it); a coordinate moves by at most 1.3e-4.
    Raises DatasetError if the folder can't be written.
    """
    path = Path(root) / f"modelnet40_{data.xyz.shape[1]}_{split}.npz"
    points = np.rint(data.xyz * PACKED_UNIT).astype(np.int16)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "classes.txt").write_text("\n".join(data.classes) + "\n")
        np.savez_compressed(path, points=points, label=data.labels.astype(np.uint8))
    except OSError as error:
        raise DatasetError(f"{path}: can't be written ({error.strerror}); choose another folder") from error
    return path


# --- hdf5 -------------------------------------------------------------------------------------------------------------


def _is_hdf5(root: Path) -> bool:
    listed = [root / f"{split}_files.txt" for split in SPLITS]
    return any(path.exists() for path in [*listed, root / "shape_names.txt"]) or any(root.glob("ply_data_*.h5"))


def _h5_files(root: Path, split: str) -> list[Path]:
    """Return the files of a split: those its list names, or those that bear its name where there is no list."""
    listed = root / f"{split}_files.txt"
    if not listed.exists():
        found = sorted(root.glob(f"ply_data_{split}*.h5"), key=lambda path: (len(path.name), path.name))
        if not found:
            raise _missing(root / f"ply_data_{split}0.h5")
        return found
    # The official lists hold paths like data/modelnet40_ply_hdf5_2048/ply_data_train0.h5: only the name is ours.
    paths = [root / Path(line.strip()).name for line in listed.read_text().splitlines() if line.strip()]
    if not paths:
        raise _damaged(listed, "expected one file name a line, found none")
    for path in paths:
        if not path.is_file():
            raise _missing(path)
    return paths


def _read_hdf5(root: Path, split: str) -> CloudSet:
    names, paths = _names(root / "shape_names.txt"), _h5_files(root, split)
    parts = []
    for path in paths:
        xyz, labels = read_arrays(path, "data", "label")
        parts.append(_checked(path, xyz.astype(np.float32), labels.reshape(-1), names))
    if len({part.xyz.shape[1] for part in parts}) > 1:
        raise _damaged(paths[0], "its clouds have another number of points than the other files'")
    xyz, labels = (np.concatenate(arrays) for arrays in zip(*((p.xyz, p.labels) for p in parts), strict=True))
    return CloudSet(xyz, labels, names)


# --- meshes -----------------------------------------------------------------------------------------------------------


def _mesh_classes(root: Path) -> tuple[str, ...]:
    """Return the folders that hold a train or a test folder, in order of name, as in the official class list."""
    folders = (path for path in root.iterdir() if path.is_dir())
    return tuple(sorted(path.name for path in folders if any((path / split).is_dir() for split in SPLITS)))


def _read_meshes(
    root: Path, split: str, points: int, seed: int, classes: Sequence[str] | None, clouds: int | None
) -> CloudSet:
    names = choose_classes(classes, _mesh_classes(root))
    listed: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        folder = root / name / split
        paths = sorted(folder.glob("*.off"))
        if not paths:
            raise _missing(folder if not folder.is_dir() else folder / f"{name}_0001.off")
        listed += [(path, label) for path in paths]
    labels = np.array([label for _, label in listed], dtype=np.int64)
    if clouds is not None and clouds < len(listed):
        rows = np.sort(np.random.default_rng(seed).choice(len(listed), clouds, replace=False))
        listed, labels = [listed[row] for row in rows], labels[rows]
    xyz = np.stack([sample_off(path, points, seed) for path, _ in listed])
    return CloudSet(xyz, labels, names)


def sample_off(path: Path, points: int, seed: int) -> Floats:
    """Return `points` points (points, 3) drawn uniformly over the area of an OFF mesh, in the unit sphere.

    The stream depends on the seed and the file's name alone, so on no other file and no order of reading.
    """
    vertices, faces = read_mesh(path)
    if len(faces) == 0:
        raise _damaged(path, "expected a mesh with faces, found none")
    if not np.isfinite(vertices).all():
        raise _damaged(path, "expected finite coordinates, found others")
    rng = np.random.default_rng([seed, zlib.crc32(path.name.encode())])
    xyz, _ = sample_surface(Mesh(vertices[None], faces), points, rng)
    return normalize(xyz[0], "unit_sphere")
