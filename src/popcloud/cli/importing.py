"""popcloud import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from popcloud.cli.common import Commands, Source, add_json, command, load_clouds, note, show_json
from popcloud.cloud import Floats

BATCH = 32  # clouds that scales are found from

IMPORT = """\
FILE.pth is a state dict of BiPointNet's release (github.com/htqin/BiPointNet) on ModelNet40, as its training saves
it: of pointnet_vanilla, pointnet, pointnet2 or dgcnn, real-valued or binary (bnn, xnor, bireal, irnet, lsr). The
folder DIR becomes like that of a run, for `popcloud pack`, `eval` and `verify`; the network answers what the
release's answers. Only tensors are read from the file: nothing in it is executed. A few checkpoints have no scales
(0): those are found from clouds of ModelNet40, in --root. Needs PyTorch."""


def add(commands: Commands) -> None:
    """Add the command of this file."""
    p = command(
        commands,
        "import",
        import_command,
        "make a checkpoint of BiPointNet's own code one of popcloud",
        IMPORT,
        "  popcloud import ckp_best.pth --backbone pointnet --binarizer lsr --pool ema-max --out runs/official\n"
        "  popcloud pack runs/official official.popc",
    )
    p.add_argument("file", type=Path, metavar="FILE.pth", help="the checkpoint, a file that torch.save wrote")
    p.add_argument("--backbone", metavar="NAME", required=True, help="pointnet_vanilla, pointnet, pointnet2 or dgcnn")
    p.add_argument("--binarizer", metavar="NAME", required=True, help="real, bnn, xnor, bireal, irnet or lsr")
    p.add_argument("--pool", metavar="NAME", required=True, help="max, mean or ema-max")
    p.add_argument("--out", type=Path, metavar="DIR", required=True, help="the folder to write, made if it is absent")
    p.add_argument("--root", type=Path, metavar="DIR", help="folder of ModelNet40, kept for eval and verify")
    add_json(p)


def import_command(args: argparse.Namespace) -> None:
    """Import, and say what was written."""
    from popcloud.learn import official

    names: dict[str, Any] = {"backbone": args.backbone, "binarizer": args.binarizer, "pool": args.pool}
    model = official.load(args.file, **names, clouds=None if args.root is None else lambda: _clouds(args.root))
    path = official.write(model, args.out, **names, root=args.root)
    floats = sum(p.numel() for p in model.parameters())
    if args.json:
        show_json({"path": path, **names, "parameters": floats, "classes": len(official.CLASSES)})
        return
    print(f"{path}: {floats:,} parameters, {len(official.CLASSES)} classes")
    if args.backbone in ("pointnet2", "dgcnn"):
        note("the release scales clouds of this network by the mesh's box, popcloud to the unit sphere: see docs")


def _clouds(root: Path) -> Floats:
    """Return the first clouds of the test split (BATCH, points, 3)."""
    from popcloud.learn.official import CLASSES, POINTS

    return load_clouds(Source("modelnet40", root, "test", BATCH), None, points=POINTS, classes=CLASSES).xyz
