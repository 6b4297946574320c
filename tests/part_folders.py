"""Tiny folders in the official formats of ShapeNetPart and S3DIS's ready-made blocks, for the tests that read them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from popcloud.data.shapenet_part import CATEGORIES, CATEGORY_OF

COUNTS = {"train": 2, "val": 1, "test": 1}  # clouds of each category


def synset(category: str) -> str:
    """The folder of a category: a made-up number."""
    return f"{2_000_000 + CATEGORIES.index(category):08d}"


def cloud_of(category: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x y z nx ny nz of so many points, off the origin, and parts of the category, each of them at least once."""
    own = np.flatnonzero(CATEGORIES.index(category) == CATEGORY_OF)
    normals = rng.standard_normal((count, 3))
    rows = np.concatenate([rng.uniform(0.1, 0.4, (count, 3)), normals / np.linalg.norm(normals, axis=1)[:, None]], 1)
    return rows.round(6), rng.permutation(own[np.arange(count) % len(own)])


def write_text(root: Path) -> dict[str, np.ndarray]:
    """Write the text form; return the rows (N, 7) of each cloud by its name in the lists."""
    rng, written = np.random.default_rng(0), {}
    (root / "train_test_split").mkdir()
    lines = [f"{category}\t{synset(category)}\n" for category in CATEGORIES]
    (root / "synsetoffset2category.txt").write_text("".join(lines))
    for split, clouds in COUNTS.items():
        names = [f"shape_data/{synset(c)}/{split}{i}" for c in CATEGORIES for i in range(clouds)]
        for name in names:
            category = CATEGORIES[int(name.split("/")[1]) - 2_000_000]
            xyz, parts = cloud_of(category, int(rng.integers(30, 50)), rng)
            rows = np.column_stack([xyz, parts])
            path = root / name.replace("shape_data/", "")
            path.parent.mkdir(exist_ok=True)
            text = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows)
            path.with_suffix(".txt").write_text(text + "\n")
            written[name] = rows
        shuffled = rng.permutation(names).tolist()
        (root / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(shuffled))
    return written


def write_hdf5(root: Path, points: int = 40) -> None:
    """Write the HDF5 form, two files to train on."""
    import h5py

    rng = np.random.default_rng(1)
    lines = [f"{category}\t{synset(category)}\n" for category in CATEGORIES]
    (root / "all_object_categories.txt").write_text("".join(lines))
    for split, files in COUNTS.items():
        names = [f"ply_data_{split}{i}.h5" for i in range(files)]
        (root / f"{split}_hdf5_file_list.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            order = rng.permutation(len(CATEGORIES))
            clouds = [cloud_of(CATEGORIES[category], points, rng) for category in order]
            with h5py.File(root / name, "w") as file:
                file["data"] = np.stack([xyz[:, :3] for xyz, _ in clouds]).astype(np.float32)
                file["label"] = order[:, None].astype(np.uint8)
                file["pid"] = np.stack([parts for _, parts in clouds]).astype(np.uint8)


def write_blocks(root: Path, files: tuple[int, ...] = (7, 5), points: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Write S3DIS's blocks, so many in each file, of two rooms per area; return all features and labels."""
    import h5py

    rng, total = np.random.default_rng(2), sum(files)
    data = rng.uniform(0, 1, (total, points, 9)).astype(np.float32)
    labels = rng.integers(0, 13, (total, points))
    rooms = [f"Area_{1 + i % 6}_{('office', 'hallway')[i // 6 % 2]}_{1 + i // 6}\n" for i in range(total)]
    (root / "room_filelist.txt").write_text("".join(rooms))
    names = [f"indoor3d_sem_seg_hdf5_data/ply_data_all_{i}.h5\n" for i in range(len(files))]
    (root / "all_files.txt").write_text("".join(names))
    starts = np.cumsum([0, *files])
    for i, (start, end) in enumerate(pairwise(starts.tolist())):
        with h5py.File(root / f"ply_data_all_{i}.h5", "w") as file:
            file["data"], file["label"] = data[start:end], labels[start:end].astype(np.uint8)
    return data, labels
