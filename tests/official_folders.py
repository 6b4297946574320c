"""Tiny folders in the official formats of the data sets of scenes, for the tests that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RGB = ("red", "green", "blue")


# --- ScanNet ---


def write_scannet_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Write vertices as ScanNet's files have them, the face that follows included."""
    kinds = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), *((name, "u1") for name in (*RGB, "alpha"))]
    kinds += [] if labels is None else [("label", "<u2")]
    rows = np.zeros(len(xyz), kinds)
    for name, column in zip(("x", "y", "z", *RGB), [*xyz.T, *rgb.T], strict=True):
        rows[name] = column
    rows["alpha"] = 255
    if labels is not None:
        rows["label"] = labels
    words = {"<f4": "float", "u1": "uchar", "<u2": "ushort"}
    properties = "".join(f"property {words[kind]} {name}\n" for name, kind in kinds)
    head = (
        f"ply\nformat binary_little_endian 1.0\ncomment MLIB generated\nelement vertex {len(xyz)}\n{properties}"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    face = b"\x03" + np.array([0, 1, 2], "<i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + rows.tobytes() + face)


def write_scannet_scene(folder: Path, ids: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write a scene's two files with these NYU40 ids; returns its points and colours."""
    rng = np.random.default_rng(seed)
    xyz, rgb = rng.uniform(0, 5, (len(ids), 3)).astype(np.float32), rng.integers(0, 256, (len(ids), 3))
    write_scannet_ply(folder / f"{folder.name}_vh_clean_2.ply", xyz, rgb)
    write_scannet_ply(folder / f"{folder.name}_vh_clean_2.labels.ply", xyz, rgb, ids)
    return xyz, rgb


def write_scannet(root: Path) -> None:
    """Write three scenes to train on, two to validate on and one whose labels are withheld."""
    lists = {
        "train": ("scene0001_00", "scene0000_01", "scene0000_00"),
        "val": ("scene0011_00", "scene0011_01"),
        "test": ("scene0707_00",),
    }
    for split, names in lists.items():
        (root / f"scannetv2_{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            folder = root / ("scans_test" if split == "test" else "scans") / name
            write_scannet_scene(folder, np.arange(41), seed=int(name[5:9] + name[10:]))
    (root / "scans_test" / "scene0707_00" / "scene0707_00_vh_clean_2.labels.ply").unlink()


# --- SemanticKITTI ---

KITTI_IDS = np.array([
    0, 1, 10, 11, 13, 15, 16, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 52, 60, 70, 71, 72, 80, 81, 99,
    *range(252, 260),
])  # fmt: skip


def write_scan(sequence: Path, number: int, ids: np.ndarray) -> np.ndarray:
    """Write a scan and its labels with an instance in the upper 16 bits; returns its rows x, y, z, remission."""
    rng = np.random.default_rng([number, int(sequence.name)])
    rows = np.hstack([rng.uniform(-50, 50, (len(ids), 3)), rng.uniform(0, 1, (len(ids), 1))]).astype("<f4")
    for folder in ("velodyne", "labels"):
        (sequence / folder).mkdir(parents=True, exist_ok=True)
    (sequence / "velodyne" / f"{number:06d}.bin").write_bytes(rows.tobytes())
    instances = np.arange(len(ids), dtype="<u4") << 16
    (sequence / "labels" / f"{number:06d}.label").write_bytes((ids.astype("<u4") | instances).tobytes())
    return rows


def write_semantic_kitti(root: Path) -> None:
    """Write two scans in each sequence from 00 to 10, one without labels in each from 11 to 21."""
    for number in range(22):
        sequence = root / "sequences" / f"{number:02d}"
        write_scan(sequence, 0, KITTI_IDS)
        if number > 10:
            (sequence / "labels" / "000000.label").unlink()
            (sequence / "labels").rmdir()
        else:
            write_scan(sequence, 1, KITTI_IDS[::-1])


# --- S3DIS ---


def write_room(room: Path, objects: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Write a room with so many points per object; returns the objects' lines (N, 6)."""
    rng = np.random.default_rng(seed)
    (room / "Annotations").mkdir(parents=True, exist_ok=True)
    written = {}
    for name, points in objects.items():
        rows = np.hstack([rng.uniform(-20, 20, (points, 3)).round(3), rng.integers(0, 256, (points, 3))])
        np.savetxt(room / "Annotations" / f"{name}.txt", rows, fmt="%.3f %.3f %.3f %d %d %d")
        written[name] = rows
    whole = rng.permutation(np.concatenate(list(written.values())))
    np.savetxt(room / f"{room.name}.txt", whole, fmt="%.3f %.3f %.3f %d %d %d")
    return written


def write_s3dis(root: Path) -> None:
    """Write two rooms in each of the six areas, with objects of several classes."""
    for area in range(1, 7):
        for place, room in enumerate(("office_1", "hallway_2")):
            objects = {"chair_1": 7, "chair_2": 5, "ceiling_1": 20, "board_1": 4, "clutter_10": 3}
            write_room(root / f"Area_{area}" / room, objects, seed=10 * area + place)
        (root / f"Area_{area}" / f"Area_{area}_alignmentAngle.txt").write_text("## Global alignment angle\n")


# --- NYU Depth v2 ---


def write_nyu_images(root: Path, count: int, ids: int = 894) -> None:
    """Write `count` images whose colours, depths and labels differ from pixel to pixel, as MATLAB stores them."""
    import h5py

    columns, rows = np.meshgrid(np.arange(640), np.arange(480), indexing="ij")
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        images = file.create_dataset("images", (count, 3, 640, 480), "u1")
        depths = file.create_dataset("depths", (count, 640, 480), "<f4")
        labels = file.create_dataset("labels", (count, 640, 480), "<u2")
        for i in range(count):
            images[i] = np.stack([columns + i, rows, columns + rows]).astype("u1")
            depths[i] = 1 + i + columns / 640 + rows / 96
            labels[i] = (columns * 480 + rows + i) % (ids + 1)


def write_nyu_meta(root: Path, train: list[int], test: list[int], mapping: np.ndarray) -> None:
    """Write the two MATLAB v5 files: the splits as columns of doubles, the mapping as a row."""
    from scipy.io import savemat

    splits = {"trainNdxs": np.array(train, float)[:, None], "testNdxs": np.array(test, float)[:, None]}
    savemat(root / "splits.mat", splits)
    names = np.empty((1, 2), object)
    names[0] = ["wall", "floor"]
    savemat(
        root / "classMapping40.mat",
        {"mapClass": mapping.astype(float)[None], "className": names},
        do_compression=True,
    )


def write_nyu_depth_v2(root: Path) -> None:
    """Write four images, three to train on and one to test on."""
    write_nyu_images(root, 4)
    write_nyu_meta(root, [4, 1, 3], [2], np.arange(894) % 40 + 1)


WRITERS = {  # as in popcloud.data.SCENES
    "scannet": write_scannet,
    "nyu_depth_v2": write_nyu_depth_v2,
    "s3dis": write_s3dis,
    "semantic_kitti": write_semantic_kitti,
}
