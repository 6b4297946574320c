"""What run and show do with a model that answers for each point."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    counts: NDArray[np.int64] | None = None
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
    how = {"tile": args.tile, "halo": args.halo}
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


def answer(session: Session, path: Path, target: Path | None, how: Mapping[str, float | None]) -> Answer:
    """Return the answer for one file, and write its classes to `target` if there is one.

    how  tile and halo, as Session.labels takes them
    """
    try:
        cloud = _read(session, path)
        began = time.perf_counter()
        labels, how = _labels(session, cloud, how, TileProgress(sys.stderr, path.name))
        seconds, peak = time.perf_counter() - began, session.peak
        seams = None if how["halo"] is None else session.seams(cloud, labels, **how)
    except CloudError as error:
        known = error if str(path) in str(error) else CloudError(f"{path}: {error}")
        return Answer(path, error=known)
    if seams is not None:
        _note_seams(path, session, seams)
    if target is not None:
        np.save(target, labels)
    counts = np.bincount(labels, minlength=len(session.classes))
    return Answer(path, counts, target, seconds, peak, seams)


def _labels(
    session: Session, cloud: PointCloud, how: Mapping[str, float | None], progress: TileProgress
) -> tuple[NDArray[np.int64], Mapping[str, float | None]]:
    """Return the class of each point, and how they were found.

    Where no halo was asked for and the exact one does not fit memory, it is the widest that does.
    """
    try:
        return session.labels(cloud, progress=progress, tile=how["tile"], halo=how["halo"]), how
    except CloudError:
        assert session.scenes is not None
        halo = session.scenes.fitting_halo(cloud.xyz, how["tile"]) if how["halo"] is None else None
        if halo is None:
            raise
    return session.labels(cloud, progress=progress, tile=how["tile"], halo=halo), {**how, "halo": halo}


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


def _read(session: Session, path: Path) -> PointCloud:
    from popcloud.data.files import read_features

    return read_features(path, _own(session))


def _own(session: Session) -> list[str]:
    """Return the names of the features that a cloud must have; the others follow from its points."""
    from popcloud.geometry.inputs import COMPUTED

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


def show(args: argparse.Namespace, session: Session, scenes: int) -> None:
    """Write the picture; `scenes` of a data set where no files are given."""
    from popcloud.show_scenes import scenes_picture

    if args.files:
        clouds, names = [_read(session, path) for path in args.files], [path.name for path in args.files]
        truth = None if args.truth is None else _truth(args, clouds)
    else:
        if args.truth is not None:
            raise RecipeError("--truth belongs to files; the data set knows the right classes")
        clouds, names = _of_dataset(args, session, scenes)
        truth = [cloud.labels for cloud in clouds if cloud.labels is not None]
    answers = session.labels(clouds)
    xyz = [cloud.xyz for cloud in clouds]
    scenes_picture(xyz, answers, session.classes, args.out, truth, names, args.columns)
    plural = "" if len(clouds) == 1 else "s"
    print(f"{args.out}: {len(clouds)} scene{plural}{'' if truth is None else _right(answers, truth)}")


def _truth(args: argparse.Namespace, clouds: Sequence[PointCloud]) -> list[NDArray[np.int64]]:
    """Return the labels that came with the files."""
    if args.truth != ["label"]:
        raise RecipeError(f"--truth: expected label, as the model answers for each point, found {' '.join(args.truth)}")
    for path, cloud in zip(args.files, clouds, strict=True):
        if cloud.labels is None:
            raise CloudError(f"{path}: expected a column label, found none; leave --truth out")
    return [cloud.labels for cloud in clouds if cloud.labels is not None]


def _of_dataset(args: argparse.Namespace, session: Session, scenes: int) -> tuple[list[PointCloud], list[str]]:
    from popcloud.packed.file import read

    own = _own(session)
    _, found = scenes_of(source_of(args, scenes), recipe_of(read(args.model).meta), session.classes, own or None)
    return list(found.clouds), list(found.names)


def _right(answers: Sequence[NDArray[np.int64]], truth: Sequence[NDArray[np.int64]]) -> str:
    found, true = np.concatenate(answers), np.concatenate(truth)
    known = true >= 0
    return f", {np.mean(found[known] == true[known]):.1%} of the points right" if known.any() else ""
