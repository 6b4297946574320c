"""ShapeNetPart (Yi et al., SIGGRAPH Asia 2016): 16 categories, 50 parts, in any of its forms.

text    the official shapenetcore_partanno_segmentation_benchmark_v0_normal: synsetoffset2category.txt,
        train_test_split/shuffled_{train,val,test}_file_list.json, <synset>/<id>.txt with lines x y z nx ny nz label
hdf5    the official hdf5_data: all_object_categories.txt, {train,val,test}_hdf5_file_list.txt, ply_data_train0.h5, ...
        with 2,048 points a cloud; no normals
packed  shapenetpart_*_{val,test}.npz: int16 `points` times `scale`, int8 `normals` / 127, uint8 `part`, `offsets`

Labels are those of the benchmark: 0 to 3 Airplane, ... 47 to 49 Table. y is up in all forms.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import Floats, PartSet, PointCloud, normalize
from popcloud.data.common import PART_SPLITS, check_part_request, choose_categories, keep_scenes
from popcloud.data.hdf5 import read_arrays
from popcloud.data.scene_files import damaged, folder_of, listed, missing
from popcloud.errors import DatasetError, unknown

# The parts of a category in the order of their labels: a name where it is well known, else its number, from 1.
NAMES: dict[str, tuple[str, ...]] = {
    "Airplane": ("body", "wing", "tail", "engine"),
    "Bag": ("handle", "body"),
    "Cap": ("panel", "peak"),
    "Car": ("roof", "hood", "wheel", "body"),
    "Chair": ("back", "seat", "leg", "arm"),
    "Earphone": ("1", "2", "3"),
    "Guitar": ("head", "neck", "body"),
    "Knife": ("blade", "handle"),
    "Lamp": ("1", "2", "3", "4"),
    "Laptop": ("keyboard", "screen"),
    "Motorbike": ("1", "2", "3", "4", "5", "6"),
    "Mug": ("handle", "cup"),
    "Pistol": ("barrel", "handle", "trigger"),
    "Rocket": ("body", "fin", "nose"),
    "Skateboard": ("1", "2", "3"),
    "Table": ("top", "leg", "drawer"),
}
CATEGORIES = tuple(NAMES)
PARTS = tuple(f"{category}/{part}" for category, names in NAMES.items() for part in names)
CATEGORY_OF = np.repeat(np.arange(len(NAMES)), [len(names) for names in NAMES.values()])  # (50,): that of each part
NORMALS = ("normal_x", "normal_y", "normal_z")
LAYOUT = (
    "expected synsetoffset2category.txt, train_test_split/ and <synset>/<id>.txt, "
    "or all_object_categories.txt and ply_data_*.h5, or shapenetpart_*_{train,val,test}.npz"
)
NEAREST = 127.0  # an int8 normal of the packed form is so many times the real one


class Stored(NamedTuple):
    """One cloud as a file has it: what it is called, x, y, z, normals or None, labels in the benchmark's numbers."""

    name: str
    xyz: Floats
    normals: Floats | None
    labels: NDArray[np.int64]


def load(
    root: Path | None,
    split: str,
    *,
    points: int | None = None,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    clouds: int | None = None,
) -> PartSet:
    """Read one split.

    root        the folder, in any of the three forms
    points      per cloud at most so many, drawn by the seed, in their order; None: all that are stored
    seed        for those points and for the choice of `clouds`; nothing else has chance in it
    categories  names from CATEGORIES, default all; they become categories 0, 1, ... in this order, and their parts
                parts 0, 1, ...; the packed form has those of its files
    clouds      at most so many, drawn by the seed; of the text form the others are not read
    Returns clouds in the order of the split's list, in the unit sphere, with their normals where they are stored.
    Raises DatasetError for a folder that is missing, half written, or has no cloud of these categories.
    """
    check_part_request(split, points, clouds)
    names = choose_categories(categories, CATEGORIES)
    root = folder_of("shapenet_part", root, LAYOUT)
    wanted = np.array([CATEGORIES.index(name) for name in names])
    if (root / "synsetoffset2category.txt").exists() or (root / "train_test_split").exists():
        found = list(_read_text(root, split, names, clouds, seed))
    elif (folder := _hdf5_folder(root)) is not None:
        found = _kept(_read_hdf5(folder, split), wanted, clouds, seed)
    elif list(root.glob("shapenetpart_*.npz")):
        found = _kept(_read_packed(root, split), wanted, clouds, seed)
    else:
        raise DatasetError(f"{root}: holds no form of ShapeNetPart; {LAYOUT}; or use the data set 'parts'")
    if not found:
        raise DatasetError(f"{root}: split {split!r} has no cloud of {', '.join(names)}; choose other categories")
    return _part_set(found, wanted, points, seed)


def _kept(stored: Iterator[Stored], wanted: NDArray[np.int64], clouds: int | None, seed: int) -> list[Stored]:
    return keep_scenes([one for one in stored if _category(one) in wanted], clouds, seed)


def _category(one: Stored) -> int:
    return int(CATEGORY_OF[one.labels[0]])


def _part_set(found: Sequence[Stored], wanted: NDArray[np.int64], points: int | None, seed: int) -> PartSet:
    """Return the clouds with labels and categories renumbered to those wanted, made ready for a network."""
    parts = np.concatenate([np.flatnonzero(category == CATEGORY_OF) for category in wanted])
    renumber = np.full(len(PARTS), -1, dtype=np.int64)
    renumber[parts] = np.arange(len(parts))
    clouds = tuple(_cloud(one, points, seed, renumber) for one in found)
    category = np.array([int(np.flatnonzero(wanted == _category(one))[0]) for one in found], dtype=np.int64)
    features = () if any(one.normals is None for one in found) else NORMALS
    names = tuple(one.name for one in found)
    return PartSet(
        clouds, category, names, tuple(CATEGORIES[c] for c in wanted), tuple(PARTS[p] for p in parts), features
    )


def _cloud(one: Stored, points: int | None, seed: int, renumber: NDArray[np.int64]) -> PointCloud:
    rows: NDArray[np.int64] | slice = slice(None)
    if points is not None and points < len(one.xyz):
        # The stream depends on the seed and the cloud's name alone, so on no other cloud.
        rng = np.random.default_rng([seed, zlib.crc32(one.name.encode())])
        rows = np.sort(rng.choice(len(one.xyz), points, replace=False))
    normals = None if one.normals is None else np.ascontiguousarray(one.normals[rows])
    return PointCloud(normalize(one.xyz[rows], "unit_sphere"), normals, renumber[one.labels[rows]])


def _stored(
    path: Path, name: str, xyz: NDArray[Any], normals: NDArray[Any] | None, labels: NDArray[Any], category: int | None
) -> Stored:
    """Return a cloud of `category`, or None: of that of its first point, if its arrays can be used."""
    if len(xyz) == 0:
        raise damaged(path, f"expected points in {name}, found none")
    if not np.isfinite(xyz).all() or (normals is not None and not np.isfinite(normals).all()):
        raise damaged(path, f"expected finite numbers in {name}, found others")
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < len(PARTS) or (labels != labels.astype(np.int64)).any():
        raise damaged(path, f"expected parts 0 to {len(PARTS) - 1} in {name}, found {labels.min()} to {labels.max()}")
    whole = labels.astype(np.int64)
    own = int(CATEGORY_OF[whole[0]]) if category is None else category
    strange = whole[CATEGORY_OF[whole] != own]
    if len(strange):
        raise damaged(path, f"expected parts of {CATEGORIES[own]} in {name}, found {PARTS[strange[0]]} ({strange[0]})")
    return Stored(name, xyz.astype(np.float32), None if normals is None else normals.astype(np.float32), whole)


# --- text -------------------------------------------------------------------------------------------------------------


def _read_text(root: Path, split: str, names: Sequence[str], clouds: int | None, seed: int) -> Iterator[Stored]:
    """Yield the clouds of a split's list that are of these categories."""
    synsets = _synsets(root / "synsetoffset2category.txt")
    lost = [name for name in names if name not in synsets.values()]
    if lost:
        raise damaged(root / "synsetoffset2category.txt", f"expected a line for {', '.join(lost)}, found none")
    kept = []
    for path in _split_list(root, split):
        if path.parent.name not in synsets:
            raise damaged(path.parent, f"synset {path.parent.name!r} has no line in synsetoffset2category.txt")
        if synsets[path.parent.name] in names:
            kept.append(path)
    for path in keep_scenes(kept, clouds, seed):
        yield read_cloud(path, synsets[path.parent.name])


def _synsets(path: Path) -> dict[str, str]:
    """Return the category of each synset, from lines `Airplane 02691156`."""
    if not path.is_file():
        raise missing(path, LAYOUT)
    rows = [line.split() for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2:
            raise damaged(path, f"expected lines of a category and a synset, found {' '.join(row)!r}")
        if row[0] not in CATEGORIES:
            raise damaged(path, unknown("category", row[0], CATEGORIES))
    return {synset: category for category, synset in rows}


def _split_list(root: Path, split: str) -> list[Path]:
    """Return the clouds of a split, from a list of names like shape_data/02691156/1021a0914a7207aff927ed529ad90a11."""
    path = root / "train_test_split" / f"shuffled_{split}_file_list.json"
    if not path.is_file():
        raise missing(path, LAYOUT)
    try:
        names = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise damaged(path, f"not readable JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(one, str) and one.count("/") >= 1 for one in names):
        raise damaged(path, "expected a list of names shape_data/<synset>/<id>, found something else")
    if len(set(names)) < len(names):
        raise damaged(path, "expected every cloud once, found repetitions")
    return [root / Path(one).parent.name / f"{Path(one).name}.txt" for one in names]


def read_cloud(path: Path, category: str) -> Stored:
    """Read one file of the text form; its parts must be those of the category. Raises DatasetError."""
    if not path.is_file():
        raise missing(path, LAYOUT)
    text = path.read_bytes()
    if not text.strip():
        raise damaged(path, "expected lines x y z nx ny nz label, found none")
    try:
        rows = np.loadtxt(text.decode("ascii", errors="replace").splitlines(), dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise damaged(path, f"expected lines x y z nx ny nz label ({' '.join(str(error).split())})") from error
    if rows.shape[1] != 7:
        raise damaged(path, f"expected lines x y z nx ny nz label, found {rows.shape[1]} numbers a line")
    if not np.isfinite(rows).all():
        raise damaged(path, "expected finite numbers, found others")
    name = f"{category}/{path.stem}"
    return _stored(path, name, rows[:, :3], rows[:, 3:6], rows[:, 6], CATEGORIES.index(category))


# --- hdf5 -------------------------------------------------------------------------------------------------------------


def _hdf5_folder(root: Path) -> Path | None:
    """Return the folder that holds the HDF5 form: root, or hdf5_data in it."""
    for folder in (root, root / "hdf5_data"):
        if (folder / "all_object_categories.txt").exists() or any(folder.glob("ply_data_*.h5")):
            return folder
    return None


def _read_hdf5(root: Path, split: str) -> Iterator[Stored]:
    known = listed(root / "all_object_categories.txt", LAYOUT)[::2]  # lines `Airplane 02691156`
    if tuple(known) != CATEGORIES:
        raise damaged(root / "all_object_categories.txt", f"expected {', '.join(CATEGORIES)} in this order")
    for file in listed(root / f"{split}_hdf5_file_list.txt", LAYOUT):
        path = root / Path(file).name
        if not path.is_file():
            raise missing(path, LAYOUT)
        xyz, categories, parts = read_arrays(path, "data", "label", "pid")
        if xyz.ndim != 3 or xyz.shape[2] != 3 or categories.size != len(xyz) or parts.shape != xyz.shape[:2]:
            raise damaged(
                path,
                "expected data (B, N, 3), label (B, 1) and pid (B, N), "
                f"found {xyz.shape}, {categories.shape} and {parts.shape}",
            )
        for row, category in enumerate(categories.ravel().tolist()):
            if not 0 <= category < len(CATEGORIES):
                raise damaged(path, f"expected categories 0 to {len(CATEGORIES) - 1}, found {category}")
            yield _stored(path, f"{path.stem}/{row}", xyz[row], None, parts[row], int(category))


# --- packed -----------------------------------------------------------------------------------------------------------


def _read_packed(root: Path, split: str) -> Iterator[Stored]:
    found = sorted(root.glob(f"shapenetpart_*_{split}.npz"))
    if not found:
        there = sorted({path.stem.rpartition("_")[2] for path in root.glob("shapenetpart_*.npz")} & set(PART_SPLITS))
        raise DatasetError(f"{root}: has no shapenetpart_*_{split}.npz; it has the splits {', '.join(there)}")
    for path in found:
        yield from _read_npz(path)


def _read_npz(path: Path) -> Iterator[Stored]:
    keys = ("points", "scale", "normals", "part", "offsets")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            points, scale, normals, part, offsets = (arrays[key] for key in keys)
    except KeyError as error:
        raise damaged(path, f"expected the arrays {', '.join(keys)}, {error.args[0]}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, f"not a readable npz ({error})") from error
    if points.ndim != 2 or points.shape[1] != 3 or normals.shape != points.shape or part.shape != (len(points),):
        raise damaged(
            path,
            "expected points (N, 3), normals (N, 3) and part (N,), "
            f"found {points.shape}, {normals.shape} and {part.shape}",
        )
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(points):
        raise damaged(path, f"expected offsets from 0 to {len(points)}, found others")
    if (np.diff(offsets) < 1).any() or scale.size != 1:
        raise damaged(path, "expected offsets that rise and one scale, found others")
    for row, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        xyz, facing = points[start:end] * np.float32(scale), normals[start:end] / np.float32(NEAREST)
        yield _stored(path, f"{path.stem}/{row}", xyz, facing, part[start:end], None)
