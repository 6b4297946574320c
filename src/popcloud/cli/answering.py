"""popcloud run, popcloud show."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cli import answering_points
from popcloud.cli.common import (
    KERNELS_HELP,
    THREADS_HELP,
    Commands,
    add_dataset,
    add_json,
    batches,
    command,
    complain,
    count,
    load_clouds,
    metres,
    note,
    recipe_of,
    show_json,
    source_of,
    text_table,
)
from popcloud.cloud import PointCloud
from popcloud.errors import CloudError, PopcloudError, RecipeError, unknown

if TYPE_CHECKING:
    from popcloud.runtime.session import Session

AT_ONCE = 64  # clouds held in memory while their files are read
SHOWN = 12

CATEGORY_HELP = "what the objects in the files are, for a model that is told it, as of parts"

RUN = """\
A FILE holds one cloud: .npy, .npz, .xyz, .txt, .ply, .off or .pcd; its x, y, z are read. The cloud is resampled
to the number of points that the model was trained with (a larger one is thinned evenly, the points of a smaller
one are repeated, which is noted) and moved into the unit sphere. A file that can't be used gets its error line
on stderr; the others are answered, and the exit code is that of the first bad one. Needs numpy only.

Other models answer for each point, of a scene, of a room or of an object with parts: what is printed are the
shares of points per class, then what it took. They read the features that they were trained on, such as colours
or normals, from the file. A model for parts may have to be told what the objects are: --category, of all files;
it then chooses from that category's parts alone. A model for rooms in blocks cuts each room itself.

A scene too large for one run is cut into tiles, each run with a halo as wide as the network sees, so that the
answers stay exact; --tile and --halo choose other sizes, --memory what a tile may take. Where no tile with such
a halo fits, the halo is the widest that does. With a narrower halo the answers near the seams may differ: how
many do is measured on one tile and noted."""

SHOW = """\
Draws clouds with the model's answers above them: those of the files, or clouds of a data set (default: the one
it was trained on, test split) with right answers in green and wrong ones in red. Needs matplotlib.

A model that answers for each point, of scenes, rooms or parts of objects, colours points by class. Where the
truth is known, that of a data set or, with --truth label, the column label of the files (class numbers of the
model, negative where there is none), it is drawn beside the answer, and so are the points that are wrong."""


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    p = command(
        commands,
        "run",
        run,
        "say which class each cloud is, without PyTorch",
        RUN,
        "  popcloud run shapes.popc one.ply two.npy\n"
        "  popcloud run shapes.popc scans/*.pcd --top 3 --json\n"
        "  popcloud run rooms.popc office.ply --out labels\n"
        "  popcloud run parts.popc chairs/*.ply --category chair\n"
        "  popcloud run town.popc town.ply --tile 200 --halo 30",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="the packed model")
    p.add_argument("files", nargs="+", type=Path, metavar="FILE", help="clouds")
    p.set_defaults(more=("files", Path))
    p.add_argument("--top", type=count, metavar="K", help="how many classes per cloud (default: 1; of points: all)")
    p.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write the class of each point: NAME.labels.npy, (N,) int64 into the lines of classes.txt",
    )
    p.add_argument(
        "--tile", type=metres, metavar="M", help="of scenes: metres along a tile (default: tiles only where needed)"
    )
    p.add_argument(
        "--halo",
        type=metres,
        metavar="M",
        help="of tiles: metres around one that are run with it (default: what exact answers need, else what fits)",
    )
    p.add_argument("--memory", type=count, metavar="MB", help="of scenes: what a tile may take, about (default: 1024)")
    p.add_argument("--category", metavar="NAME", help=CATEGORY_HELP)
    _add_engine(p)
    add_json(p)
    p = command(
        commands,
        "show",
        show,
        "draw clouds and what the model answers as a PNG",
        SHOW,
        "  popcloud show shapes.popc one.ply two.npy --truth cone tube --out answers.png\n"
        "  popcloud show shapes.popc --dataset shapes --seed 7 --out answers.png",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="the packed model")
    p.add_argument("files", nargs="*", type=Path, metavar="FILE", help="clouds; none: those of a data set")
    p.set_defaults(more=("files", Path))
    p.add_argument("--out", type=Path, required=True, metavar="PICTURE.png", help="the file to write")
    p.add_argument("--truth", nargs="+", metavar="NAME", help="the right class of each file; of points: label")
    p.add_argument("--category", metavar="NAME", help=CATEGORY_HELP)
    p.add_argument("--columns", type=count, metavar="N", help="clouds in a row")
    p.add_argument("--seed", type=int, metavar="N", help="of made-up clouds (default: the one of its training)")
    numbers = f"{SHOWN}; of objects with parts {answering_points.OBJECTS_SHOWN}, scenes {answering_points.SCENES_SHOWN}"
    add_dataset(p, clouds=f"how many clouds of the data set (default: {numbers})")
    p.set_defaults(split=None)
    _add_engine(p)


def _add_engine(parser: Any) -> None:
    parser.add_argument("--threads", type=count, metavar="N", help=THREADS_HELP)
    parser.add_argument("--kernels", metavar="NAME", help=KERNELS_HELP)


@dataclass(frozen=True)
class Answer:
    """What is said about one file: its points and probabilities (classes,), or the error."""

    path: Path
    points: int = 0
    probabilities: NDArray[np.float64] | None = None
    error: PopcloudError | None = None


def run(args: argparse.Namespace) -> int:
    """Print an answer per file; return 0, or the exit code of the first file that can't be used."""
    session = open_session(args)
    _check(args, session)
    if session.per_point:
        return answering_points.run(args, session)
    answers = [
        found
        for rows in batches(len(args.files), AT_ONCE)
        for found in answer(session, args.files[rows], args.category)
    ]
    if args.json:
        show_json([_record(a, session.classes, args.top or 1) for a in answers])
    else:
        _print(answers, session.classes, args.top or 1)
    return complain([a.error for a in answers if a.error is not None])


def _check(args: argparse.Namespace, session: Session) -> None:
    """Raise RecipeError for arguments that this model has no use for, and for a category that it needs."""
    kinds = {"out": "that answer for each point"} if not session.per_point else {}
    kinds |= dict.fromkeys(("tile", "halo", "memory"), "for scenes") if session.scenes is None else {}
    given = next((name for name in kinds if getattr(args, name) is not None), None)
    if given is not None:
        raise RecipeError(f"--{given} is for models {kinds[given]}; leave it out")
    check_category(args.category, session)


def check_category(category: str | None, session: Session) -> None:
    """Raise RecipeError unless the category is one of the model's, or none where it takes none."""
    told = () if session.objects is None else session.objects.categories
    if category is None and told:
        raise RecipeError(f"--category NAME is missing: what are the objects? valid: {', '.join(told)}")
    if category is not None and not told:
        raise RecipeError("--category: this model is not told what an object is; leave it out")
    if category is not None and category not in told:
        raise RecipeError(f"--category: {unknown('category', category, told)}")


def open_session(args: argparse.Namespace) -> Session:
    """Return the model, ready to answer."""
    from popcloud.runtime.session import Session

    memory = getattr(args, "memory", None)
    limit = {} if memory is None else {"memory": memory * 1_000_000}
    return Session(args.model, kernels=args.kernels, threads=args.threads, **limit)


def answer(session: Session, files: Sequence[Path], category: str | None = None) -> list[Answer]:
    """Return an answer per file, in order; all clouds that can be used are run together.

    category  of the objects in all files, for a model that is told it
    """
    clouds: dict[int, PointCloud] = {}
    errors: dict[int, PopcloudError] = {}
    for at, path in enumerate(files):
        try:
            clouds[at] = answering_points.read(session, path)
        except CloudError as error:
            errors[at] = error
            continue
        if len(clouds[at]) < session.points:
            note(f"{path}: {len(clouds[at])} points, the model takes {session.points}: they are repeated")
    found, refused = _probabilities(session, clouds, files, category)
    errors |= refused
    return [
        Answer(path, error=errors[at]) if at in errors else Answer(path, len(clouds[at]), found[at])
        for at, path in enumerate(files)
    ]


def _probabilities(
    session: Session, clouds: dict[int, PointCloud], files: Sequence[Path], category: str | None
) -> tuple[dict[int, NDArray[np.float64]], dict[int, PopcloudError]]:
    """Return the probabilities of the clouds by their files' places, and why there are none of the others."""
    found: dict[int, NDArray[np.float64]] = {}
    errors: dict[int, PopcloudError] = {}
    try:
        if clouds:
            found = dict(zip(clouds, session.probabilities(list(clouds.values()), category=category), strict=True))
    except CloudError:  # the network itself can't use one of them, such as one with fewer points than neighbours
        for at, cloud in clouds.items():
            try:
                found[at] = session.probabilities(cloud, category=category)
            except CloudError as error:
                errors[at] = CloudError(f"{files[at]}: {error}")
    return found, errors


def _best(probabilities: NDArray[np.float64], top: int) -> list[int]:
    """Return the `top` most probable classes; the first of equal ones comes first."""
    return [int(c) for c in np.argsort(-probabilities, kind="stable")[:top]]


def _record(found: Answer, classes: Sequence[str], top: int) -> dict[str, Any]:
    if found.probabilities is None:
        return {"file": found.path, "error": str(found.error)}
    p = found.probabilities
    best = [{"class": classes[c], "probability": float(p[c])} for c in _best(p, top)]
    return {"file": found.path, "points": found.points, **best[0], "top": best}


def _print(answers: Sequence[Answer], classes: Sequence[str], top: int) -> None:
    rows = []
    for found in answers:
        if found.probabilities is None:
            continue
        for place, c in enumerate(_best(found.probabilities, top)):
            name, points = (str(found.path), f"{found.points:,}") if place == 0 else ("", "")
            rows.append([name, classes[c], points, f"{found.probabilities[c]:.1%}"])
    if rows:
        print(text_table(["file", "class", "points", "probability"], rows, left=2))


def show(args: argparse.Namespace) -> None:
    """Write the picture."""
    from popcloud.show import picture

    session = open_session(args)
    if args.files:
        check_category(args.category, session)
    elif args.category is not None:
        raise RecipeError("--category belongs to files; the data set knows what its objects are")
    if session.per_point:
        answering_points.show(args, session)
        return
    clouds, truth = _from_files(args, session) if args.files else _from_dataset(args)
    probabilities = session.probabilities(clouds, category=args.category)
    answers = [session.classes[c] for c in probabilities.argmax(axis=1)]
    xyz = [cloud.xyz for cloud in clouds]
    picture(xyz, answers, args.out, truth, probabilities.max(axis=1).tolist(), args.columns)
    right = "" if truth is None else f", {sum(a == t for a, t in zip(answers, truth, strict=True))} right"
    plural = "" if len(clouds) == 1 else "s"
    print(f"{args.out}: {len(clouds)} cloud{plural}{right}")


def _from_files(args: argparse.Namespace, session: Session) -> tuple[list[PointCloud], list[str] | None]:
    if args.truth is not None and len(args.truth) != len(args.files):
        raise RecipeError(f"--truth: expected {len(args.files)} names, one per file, found {len(args.truth)}")
    return [answering_points.read(session, path) for path in args.files], args.truth


def _from_dataset(args: argparse.Namespace) -> tuple[list[PointCloud], list[str]]:
    from popcloud.packed.file import read

    if args.truth is not None:
        raise RecipeError("--truth belongs to files; the data set knows the right classes")
    program = read(args.model)
    source, points = source_of(args, SHOWN), program.points or 1024
    source = replace(source, split=source.split or "test")
    clouds = load_clouds(source, recipe_of(program.meta), points=points, classes=program.classes)
    return [PointCloud(xyz) for xyz in clouds.xyz], [clouds.classes[label] for label in clouds.labels]
