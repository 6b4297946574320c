"""What run and show do with a model that answers for each point: of scenes, of objects, of rooms in blocks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcloud.cli import objects
from popcloud.cli.common import complain, note, recipe_of, show_json, size_of, source_of, text_table
from popcloud.cli.progress import TileProgress
from popcloud.cli.scenes import scenes_of
from popcloud.errors import CloudError, FileError, PopcloudError, RecipeError

if TYPE_CHECKING:
    from popcloud.cloud import PointCloud
    from popcloud.runtime.session import Session
    from popcloud.runtime.tiles import Seams

ENDING = ".labels.npy"  # no file that was read is called so by chance
CLASSES = "classes.txt"
SCENES_SHOWN, OBJECTS_SHOWN = 3, 8
Y_UP = ("shapenet_part",)  # data sets whose objects stand along y, not z

Labels = NDArray[np.int64]


class How(NamedTuple):
    """How a model is asked: in tiles, with a halo, with a category; as Session.labels takes them."""

    tile: float | None = None
    halo: float | None = None
    category: str | None = None


@dataclass(frozen=True)
class Answer:
    """What is said about one file.

    counts   how many points each class has, (classes,)
    labels   where they are, if they were written
    seconds  from points to labels
    peak     bytes that the engine held above points and labels, None of the reference
    seams    what a narrow halo did, None where there are no seams or it is exact
    error    why there is nothing of all that
    """

    path: Path
    counts: Labels | None = None
    labels: Path | None = None
    seconds: float = 0.0
    peak: int | None = None
    seams: Seams | None = None
    error: PopcloudError | None = None


def run(args: argparse.Namespace, session: Session) -> int:
    """Print the shares of the classes in each file, write the classes of points if a folder is given.

    Returns 0, or the exit code of the first file that can't be used.
    """
    targets = _targets(args.files, args.out, session.classes)
    how = How(args.tile, args.halo, args.category)
    answers = [answer(session, path, target, how) for path, target in zip(args.files, targets, strict=True)]
    if args.json:
        show_json([_record(a, session.classes) for a in answers])
    else:
        _print(answers, session, args.top)
    return complain([a.error for a in answers if a.error is not None])


def _targets(files: Sequence[Path], out: Path | None, classes: Sequence[str]) -> list[Path | None]:
    """Return where each file's classes go, and make that folder. Raises RecipeError where two would be one."""
    if out is None:
        return [None] * len(files)
    names = [path.stem for path in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"--out: two files would be written to {out / twice}{ENDING}; run them one after the other")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / CLASSES).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    except OSError as error:
        raise FileError(f"{out}: can't be written ({error.strerror}); choose another folder") from error
    return [out / f"{name}{ENDING}" for name in names]


def answer(session: Session, path: Path, target: Path | None, how: How) -> Answer:
    """Return the answer for one file, and write its classes to `target` if there is one."""
    try:
        cloud = read(session, path)
        began = time.perf_counter()
        labels, how = _labels(session, cloud, how, TileProgress(sys.stderr, path.name))
        seconds, peak = time.perf_counter() - began, session.peak
        seams = None if how.halo is None else session.seams(cloud, labels, tile=how.tile, halo=how.halo)
    except CloudError as error:
        known = error if str(path) in str(error) else CloudError(f"{path}: {error}")
        return Answer(path, error=known)
    if seams is not None:
        _note_seams(path, session, seams)
    if target is not None:
        np.save(target, labels)
    counts = np.bincount(labels, minlength=len(session.classes))
    return Answer(path, counts, target, seconds, peak, seams)


def _labels(session: Session, cloud: PointCloud, how: How, progress: TileProgress) -> tuple[Labels, How]:
    """Return the class of each point, and how they were found.

    Where no halo was asked for and the exact one does not fit memory, it is the widest that does.
    """
    try:
        return session.labels(cloud, progress=progress, **how._asdict()), how
    except CloudError:
        if session.scenes is None or how.halo is not None:
            raise
        halo = session.scenes.fitting_halo(cloud.xyz, how.tile)
        if halo is None:
            raise
    how = how._replace(halo=halo)
    return session.labels(cloud, progress=progress, **how._asdict()), how


def _note_seams(path: Path, session: Session, seams: Seams) -> None:
    """Tell what a halo costs that is narrower than exact answers need."""
    assert session.scenes is not None
    edge, exact = session.scenes.plan.edge, session.scenes.exact_halo
    if seams.halo >= exact:
        return
    against = (
        "exact ones" if seams.wide == exact else f"those of a halo of {edge * seams.wide:g} m, the widest that fits"
    )
    near = edge * session.scenes.cube
    note(
        f"{path}: a halo of {edge * seams.halo:g} m gives up exact answers, which need {edge * exact:g} m; on the tile "
        f"with the longest seams {seams.share:.2%} of the {seams.points:,} labels within {near:g} m of them differ "
        f"from {against}"
    )


def read(session: Session, path: Path) -> PointCloud:
    """Return the cloud of a file with the features that the model reads of it. Raises CloudError."""
    from popcloud.data.files import read_features

    return read_features(path, _own(session))


def _own(session: Session) -> list[str]:
    """Return the names of the features that a cloud must have; the others follow from its points or its category."""
    from popcloud.geometry.inputs import COMPUTED

    if session.objects is not None:
        return list(session.objects.own)
    return [name for name in session.features if name not in COMPUTED]


def _record(found: Answer, classes: Sequence[str]) -> dict[str, Any]:
    if found.counts is None:
        return {"file": found.path, "error": str(found.error)}
    points = int(found.counts.sum())
    shares = {name: int(n) / points for name, n in zip(classes, found.counts, strict=True)}
    cost = {"seconds": found.seconds, "peak_bytes": found.peak}
    seams = None if found.seams is None else asdict(found.seams) | {"share": found.seams.share}
    return {"file": found.path, "points": points, "shares": shares, "labels": found.labels, **cost, "seams": seams}


def _print(answers: Sequence[Answer], session: Session, top: int | None) -> None:
    """Print the classes that occur, the most frequent first, `top` of them; then what it took."""
    rows = []
    for found in answers:
        if found.counts is None:
            continue
        points = int(found.counts.sum())
        most = [c for c in np.argsort(-found.counts, kind="stable")[:top] if found.counts[c]]
        for place, c in enumerate(most):
            name, count = (str(found.path), f"{points:,}") if place == 0 else ("", "")
            rows.append([name, session.classes[c], count, f"{found.counts[c] / points:.1%}"])
    if not rows:
        return
    print(text_table(["file", "class", "points", "share"], rows, left=2))
    print(f"\ntime         {sum(found.seconds for found in answers):.2f} s, points to labels, {_by(session)}")
    peaks = [found.peak for found in answers if found.peak is not None]
    if peaks:
        print(f"peak memory  {size_of(max(peaks))} above points and labels")


def _by(session: Session) -> str:
    """Return who answered."""
    return f"{session.kernels}, {session.threads} thread{'' if session.threads == 1 else 's'}"


class Drawn(NamedTuple):
    """What a picture is made of: clouds, their names, a class per point of each, and the right ones if known."""

    clouds: list[PointCloud]
    names: list[str]
    answers: list[Labels]
    truth: list[Labels] | None


def show(args: argparse.Namespace, session: Session) -> None:
    """Write the picture of the files, or of a data set where no files are given."""
    if args.truth is not None and not args.files:
        raise RecipeError("--truth belongs to files; the data set knows the right classes")
    if args.files:
        found = _of_files(args, session)
    else:
        found = _scenes(args, session) if session.objects is None else _objects(args, session)
    parts = session.objects is not None and session.objects.normalize != "blocks"
    _draw_parts(args, session, found) if parts else _draw_scenes(args, session, found)
    what = f"{'object' if parts else 'scene'}{'' if len(found.clouds) == 1 else 's'}"
    print(f"{args.out}: {len(found.clouds)} {what}{'' if found.truth is None else _right(found.answers, found.truth)}")


def _draw_scenes(args: argparse.Namespace, session: Session, found: Drawn) -> None:
    from popcloud.show_scenes import scenes_picture

    xyz = [cloud.xyz for cloud in found.clouds]
    scenes_picture(xyz, found.answers, session.classes, args.out, found.truth, found.names, args.columns)


def _draw_parts(args: argparse.Namespace, session: Session, found: Drawn) -> None:
    from popcloud.show_parts import parts_picture

    known = args.dataset or (_recipe(args) or {}).get("dataset")
    up, xyz = "y" if known in Y_UP else "z", [cloud.xyz for cloud in found.clouds]
    parts_picture(xyz, found.answers, session.classes, args.out, found.truth, found.names, args.columns, up)


def _of_files(args: argparse.Namespace, session: Session) -> Drawn:
    """Return the clouds of files, and their own labels as the truth where that is asked for."""
    clouds = [read(session, path) for path in args.files]
    truth = None if args.truth is None else _truth(args, clouds)
    answers = session.labels(clouds, category=args.category)
    return Drawn(clouds, [path.name for path in args.files], answers, truth)


def _truth(args: argparse.Namespace, clouds: Sequence[PointCloud]) -> list[Labels]:
    """Return the labels that came with the files."""
    if args.truth != ["label"]:
        raise RecipeError(f"--truth: expected label, as the model answers for each point, found {' '.join(args.truth)}")
    for path, cloud in zip(args.files, clouds, strict=True):
        if cloud.labels is None:
            raise CloudError(f"{path}: expected a column label, found none; leave --truth out")
    return [cloud.labels for cloud in clouds if cloud.labels is not None]


def _scenes(args: argparse.Namespace, session: Session) -> Drawn:
    """Return scenes of a data set."""
    own = _own(session)
    _, found = scenes_of(source_of(args, SCENES_SHOWN), _recipe(args), session.classes, own or None)
    truth = [cloud.labels for cloud in found.clouds if cloud.labels is not None]
    clouds = list(found.clouds)
    return Drawn(clouds, list(found.names), session.labels(clouds), truth)


def _objects(args: argparse.Namespace, session: Session) -> Drawn:
    """Return objects, rooms or ready-made blocks of a data set."""
    assert session.objects is not None
    rooms = session.objects.normalize == "blocks"
    shown = source_of(args, SCENES_SHOWN if rooms else OBJECTS_SHOWN)
    _, found = objects.samples(shown, _recipe(args), session.objects)
    answers = [objects.answer(session.objects, sample) for sample in found]
    truth = [sample.labels for sample in found]
    names = [sample.name if rooms else objects.category_of(sample, session.classes) for sample in found]
    return Drawn([sample.cloud for sample in found], names, answers, truth)


def _recipe(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the recipe that trained the model, if it says so."""
    from popcloud.packed.file import read as read_model

    return recipe_of(read_model(args.model).meta)


def _right(answers: Sequence[Labels], truth: Sequence[Labels]) -> str:
    found, true = np.concatenate(answers), np.concatenate(truth)
    known = true >= 0
    return f", {np.mean(found[known] == true[known]):.1%} of the points right" if known.any() else ""
