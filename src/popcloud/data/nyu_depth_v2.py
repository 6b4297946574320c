"""NYU Depth v2 (Silberman et al., ECCV 2012): 1,449 RGB-D images of rooms, 40 classes (Gupta et al., CVPR 2013).

Three files: nyu_depth_v2_labeled.mat (MATLAB v7.3, which is HDF5: images, depths, labels), classMapping40.mat
(mapClass: 894 classes to 40) and splits.mat (trainNdxs, testNdxs: 795 and 654 images), the last two MATLAB v5.

An image becomes a cloud as in SparseConvNet's example (examples/nyu2), the host of BSC-Net's FCN: one point per pixel
of the columns 40 to 599 and rows 45 to 469, not projected through the camera: a pixel counts as a centimetre across, so
only the depth is metric. That BSC-Net did the same is inferred. Here z is up and y the depth, so that turning about z
is what the example does; points lie in the middle of their pixels, so that a voxel of a whole number of centimetres
holds whole pixels (the example's is 2 cm).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cloud import IGNORE, Floats, PointCloud, SceneSet
from popcloud.data.common import check_scene_request, keep_scenes
from popcloud.data.files_mat import read_array
from popcloud.data.scene_files import (
    COLOURS,
    damaged,
    folder_of,
    id_table,
    look_up,
    missing,
    scaled_colours,
    scene_set,
)
from popcloud.errors import DatasetError

CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
FEATURES = COLOURS  # the example's constant fourth is no property of a pixel: inputs=[one, features] puts it in front
SPLITS = {"train": "trainNdxs", "test": "testNdxs"}  # there is no official validation split
IMAGES, MAPPING, LISTS = "nyu_depth_v2_labeled.mat", "classMapping40.mat", "splits.mat"
LAYOUT = f"expected {IMAGES}, {MAPPING} and {LISTS}"
MOST = 1 << 20  # more than any class or image

WIDTH, HEIGHT = 640, 480  # pixels
COLUMNS, ROWS = np.arange(40, 600), np.arange(45, 470)  # inside the border that the camera's calibration leaves empty
PIXEL = 0.01  # metres across


def load(
    root: Path | None,
    split: str,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    scenes: int | None = None,
) -> SceneSet:
    """Read the images of one split as clouds of 238,000 points, in order of their number; all of train are 7 GB.

    root     the folder of the three files
    seed     for the choice of `scenes`; nothing else has chance in it
    classes  names from CLASSES, default all; they become classes 0, 1, ... in this order, other points IGNORE
    scenes   at most so many images, drawn by the seed; the others are not read
    Returns clouds named image_<number>, the number being MATLAB's, with colours in [-1, 1].
    Raises DatasetError for a file or array that is missing, arrays that don't fit each other, labels beyond the
    mapping, and where h5py is not installed.
    """
    check_scene_request(split, scenes, tuple(SPLITS))
    root = folder_of("nyu_depth_v2", root, LAYOUT)
    for name in (IMAGES, MAPPING, LISTS):
        if not (root / name).is_file():
            raise missing(root / name, LAYOUT)
    table = mapping_of(root / MAPPING)
    numbers = keep_scenes(numbers_of(root / LISTS, SPLITS[split]), scenes, seed)
    return scene_set(root, _read_images(root / IMAGES, numbers, table), CLASSES, classes, FEATURES)


def mapping_of(path: Path) -> NDArray[np.int64]:
    """Return the class of each label of the images: IGNORE for 0, a class for 1 to 894."""
    mapped = _whole_numbers(path, "mapClass")
    if mapped.min() < 1 or mapped.max() > len(CLASSES):
        raise damaged(path, f"mapClass: expected classes 1 to {len(CLASSES)}, found {mapped.min()} to {mapped.max()}")
    return id_table({0: IGNORE} | {label: int(kind) - 1 for label, kind in enumerate(mapped, start=1)})


def numbers_of(path: Path, name: str) -> list[int]:
    """Return the numbers of a split's images, from 1, ascending."""
    numbers = np.unique(_whole_numbers(path, name))
    if numbers[0] < 1:
        raise damaged(path, f"{name}: expected image numbers from 1, found {numbers[0]}")
    return [int(number) for number in numbers]


def _whole_numbers(path: Path, name: str) -> NDArray[np.int64]:
    """Return an array of whole numbers (N,), N >= 1, from a MATLAB v5 file, which stores them as floats."""
    values = read_array(path, name)
    if not len(values) or not (np.abs(values) < MOST).all() or (values != np.rint(values)).any():
        raise damaged(path, f"{name}: expected whole numbers, found others or none")
    return values.astype(np.int64)


def _read_images(path: Path, numbers: list[int], table: NDArray[np.int64]) -> Iterator[tuple[str, PointCloud]]:
    try:
        import h5py  # only this data set and one form of ModelNet40 need it
    except ImportError as error:
        raise DatasetError("NYU Depth v2 needs h5py: pip install 'popcloud[learn]'") from error
    try:
        with h5py.File(path, "r") as file:
            _check_arrays(path, file, numbers[-1])
            for number in numbers:
                image, depth, ids = (file[name][number - 1] for name in ("images", "depths", "labels"))
                if not np.isfinite(depth).all():
                    raise damaged(path, f"image {number}: expected finite depths, found others")
                yield f"image_{number:04d}", cloud_of(image, depth, look_up(path, ids, table))
    except (OSError, RuntimeError, ValueError) as error:
        raise damaged(path, f"not a readable HDF5 file ({error})") from error


def _check_arrays(path: Path, file: Any, last: int) -> None:
    """Raise DatasetError unless the three arrays are there, fit each other and hold image number `last`."""
    lacking = [name for name in ("images", "depths", "labels") if name not in file]
    if lacking:
        raise damaged(path, f"expected the arrays images, depths, labels, found no {', '.join(lacking)}")
    count = len(file["images"])
    # MATLAB's order of axes is the other way round: its H x W x 3 x N is (N, 3, W, H) here.
    shapes = {
        "images": (count, 3, WIDTH, HEIGHT), "depths": (count, WIDTH, HEIGHT), "labels": (count, WIDTH, HEIGHT)
    }  # fmt: skip
    for name, shape in shapes.items():
        if file[name].shape != shape:
            raise damaged(path, f"{name}: expected shape {shape}, found {file[name].shape}")
    if last > count:
        raise damaged(path, f"expected at least {last} images, as many as {LISTS} names, found {count}")


def cloud_of(image: NDArray[np.uint8], depth: Floats, labels: NDArray[np.int64]) -> PointCloud:
    """Return the cloud of one image: x to the right and z up as a centimetre a pixel, y the depth less its mean.

    image (3, 640, 480), depth (640, 480) metres, labels (640, 480); points in order of columns, then rows
    """
    part = np.ix_(COLUMNS, ROWS)
    columns, rows = np.meshgrid(COLUMNS, ROWS, indexing="ij")
    away = depth.astype(np.float64) - depth.mean(dtype=np.float64)
    x, z = PIXEL * (columns + 0.5 - WIDTH // 2), PIXEL * (HEIGHT // 2 - rows - 0.5)
    xyz = np.stack([x, away[part], z], axis=2).reshape(-1, 3).astype(np.float32)
    colours = np.stack([plane[part] for plane in image], axis=2).reshape(-1, 3)
    return PointCloud(xyz, scaled_colours(colours), labels[part].reshape(-1))
