"""popcloud pack, popcloud verify."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcloud import __version__
from popcloud.cli import objects, proving_scenes
from popcloud.cli.common import (
    THREADS_HELP,
    Commands,
    Source,
    add_dataset,
    add_json,
    command,
    count,
    load_clouds,
    note,
    show_json,
    source_of,
)
from popcloud.errors import RecipeError, VerifyError
from popcloud.packed.program import Array, Grid, Program
from popcloud.runtime.session import REFERENCE

if TYPE_CHECKING:
    from popcloud.learn.checkpoint import Trained
    from popcloud.learn.export import Exported
    from popcloud.verify import Report, Verification

NORMALIZE = "unit_sphere"  # what every data set does to its clouds, so what a network expects
IGN = "trained on IGN LiDAR HD (source: IGN), Licence Ouverte / Etalab 2.0: any use, with the source named"
LICENCES = {  # data set: what its owners allow, as far as a model trained on it may be concerned
    "shapes": "trained on made-up shapes that popcloud generates; no rights of others",
    "modelnet40": "trained on ModelNet40 (Wu et al., CVPR 2015): for academic research only, as its owners ask",
    "rooms": "trained on made-up rooms that popcloud generates; no rights of others",
    "scannet": "trained on ScanNet (Dai et al., CVPR 2017): non-commercial research and education only",
    "nyu_depth_v2": "trained on NYU Depth v2 (Silberman et al., ECCV 2012): no licence stated; research, with citation",
    "s3dis": "trained on S3DIS (Armeni et al., CVPR 2016): for research, on the terms of its request form",
    "semantic_kitti": "trained on SemanticKITTI (Behley et al., ICCV 2019): CC BY-NC-SA 3.0 (scans) and 4.0 (labels)",
    "parts": "trained on made-up objects that popcloud generates; no rights of others",
    "shapenet_part": "trained on ShapeNetPart (Yi et al., 2016): ShapeNet's terms, non-commercial research",
    "s3dis_blocks": "trained on S3DIS (Armeni et al., CVPR 2016): for research, on the terms of its request form",
    "ign_lidarhd_dense": IGN,
    "ign_lidarhd_sparse": IGN,
}
YOURS = ("root", "teacher", "start")  # fields of recipes that name folders
CLOUDS = 50

PACK = """\
CHECKPOINT is what `popcloud train` made: a file, or the folder of a run (then its best network).
Signs become bits, 64 in a word; batch norm and sign become one integer threshold per channel. The file keeps
the recipe, the measured accuracy and a licence note; `popcloud summary` shows what it holds. Needs PyTorch."""

VERIFY = """\
Two things are shown. The file holds the program that the checkpoint exports to now. And over clouds of its
data set, layer by layer, the engine computes what PyTorch computes: signs equal bit for bit when fed with
PyTorch's values, floats within 1e-5 (of the largest, or of 1), and in whole runs the same class for every
cloud, or for 99.9 % of a scene's points. Of scenes every active site of every layer is compared, and the
engine's own sites with those of training. Exit code 10 if anything differs; the first layer that does is
named. Needs PyTorch."""


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    p = command(
        commands,
        "pack",
        pack_command,
        "write a checkpoint as a small model file that runs without PyTorch",
        PACK,
        "  popcloud pack runs/shapes shapes.popc --note 'first try'",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="file, or folder of a run")
    p.add_argument("model", type=Path, metavar="MODEL.popc", help="the file to write; an old one is replaced")
    p.add_argument("--note", metavar="TEXT", default="", help="a line of yours to keep in the file")
    add_json(p)
    p = command(
        commands,
        "verify",
        verify_command,
        "prove that a model file answers what its checkpoint answers",
        VERIFY,
        "  popcloud verify runs/shapes shapes.popc\n"
        "  popcloud verify runs/shapes shapes.popc --clouds 200 --kernels all",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="file, or folder of a run")
    p.add_argument("model", type=Path, metavar="MODEL", help="the packed model")
    add_dataset(p, clouds=f"how many clouds (default: {CLOUDS}), or scenes (default: {proving_scenes.SCENES})")
    p.set_defaults(split=None)
    p.add_argument(
        "--kernels",
        metavar="NAME",
        help="instruction set, 'all' of this machine's, or 'reference' for the numpy reading (default: the fastest)",
    )
    p.add_argument("--threads", type=count, metavar="N", help=THREADS_HELP)
    add_json(p)


@dataclass(frozen=True)
class Packed:
    """What packing came to: the file's size, and that of the float32 parameters of the real-valued twin."""

    path: Path
    bytes: int
    float32_bytes: int
    steps: int
    classes: int

    @property
    def ratio(self) -> float:
        """Return how many times smaller the file is."""
        return self.float32_bytes / self.bytes


def pack_command(args: argparse.Namespace) -> None:
    """Pack, and print the size."""
    packed = pack(args.checkpoint, args.model, args.note)
    if args.json:
        show_json(asdict(packed) | {"ratio": packed.ratio})
        return
    print(f"{packed.path}: {packed.bytes:,} bytes, {packed.steps} steps, {packed.classes} classes")
    print(f"float32 parameters of this network: {packed.float32_bytes:,} bytes, {packed.ratio:.1f} times as many")


def pack(checkpoint: Path, model: Path, text: str = "") -> Packed:
    """Write a checkpoint as a model file. Raises CheckpointError, ExportError, FileError."""
    from popcloud.learn import checkpoint as checkpoints
    from popcloud.packed.file import write

    found = checkpoints.find(checkpoint)
    trained = checkpoints.load(found)
    program = export(trained, meta(trained, found, text)).program
    write(program, model)
    floats = sum(4 * p.numel() for p in _twin(trained).parameters())
    return Packed(model, model.stat().st_size, floats, len(program.steps), len(program.classes))


def _twin(trained: Trained) -> Any:
    """Return the real-valued twin of a trained network, with fresh weights."""
    from popcloud.learn import checkpoint as checkpoints

    change = {"variant": "real", "binarizer": None, "stages": None} if _scenes(trained) else {"binarizer": "real"}
    return checkpoints.build(trained.recipe.model_copy(update=change), len(trained.classes), trained.features)


def _scenes(trained: Trained) -> bool:
    """Return whether a network answers for each point of scenes."""
    from popcloud.learn.scenes.recipe import SceneRecipe

    return isinstance(trained.recipe, SceneRecipe)


def export(trained: Trained, about: dict[str, str] | None = None) -> Exported:
    """Return a trained network as a program that treats clouds as its training did."""
    from popcloud.learn.export import export as written
    from popcloud.learn.scenes.batches import input_names
    from popcloud.packed.program import Grid, Sampling

    model: Any = trained.model
    if trained.recipe.task in objects.NORMALIZE:
        return written(
            model,
            points=trained.recipe.points,
            normalize=objects.NORMALIZE[trained.recipe.task],
            classes=trained.classes,
            meta=about,
            plan=Sampling(),
            features=trained.features,
        )
    if not _scenes(trained):
        return written(model, points=trained.recipe.points, normalize=NORMALIZE, classes=trained.classes, meta=about)
    plan = Grid(trained.recipe.edge, model.levels, model.size)
    features = input_names(trained.recipe.inputs, trained.features)
    return written(model, classes=trained.classes, meta=about, plan=plan, features=features)


def meta(trained: Trained, checkpoint: Path, text: str) -> dict[str, str]:
    """Return what the file says about itself; folders, which are yours, are left out."""
    recipe = {name: None if name in YOURS else v for name, v in trained.recipe.model_dump(mode="json").items()}
    about = {
        "recipe": json.dumps(recipe),
        "accuracy": json.dumps(trained.metrics | _tested(trained, checkpoint)),
        "epoch": str(trained.epoch),
        "licence": LICENCES.get(trained.recipe.dataset, ""),
        "made_by": f"popcloud {__version__}",
    }
    return about | ({"note": text} if text else {})


def _tested(trained: Trained, checkpoint: Path) -> dict[str, float]:
    """Return the test accuracy from the run's result, if this is the network that was tested."""
    from popcloud.learn.folder import RESULT
    from popcloud.learn.tasks import parse

    try:
        whole = json.loads((checkpoint.parent / RESULT).read_text(encoding="utf-8"))
        tested, same = whole["result"], parse(whole["recipe"]) == trained.recipe  # fields added since have defaults
        if same and tested["checkpoint"] == checkpoint.name and tested["best_epoch"] == trained.epoch:
            if _scenes(trained):
                return {f"test_{name}": float(tested["test"][name]) for name in ("mean_iou", "accuracy")}
            shares = {name: share for name, share in tested.items() if name.partition("_")[0] == "test"}
            return {name: share for name, share in shares.items() if isinstance(share, float)}
    except (OSError, ValueError, KeyError, TypeError, RecipeError):
        pass  # a checkpoint alone, of an unfinished run or copied elsewhere, is packed as well
    return {}


@dataclass(frozen=True)
class Proof:
    """What a verification came to.

    reports  one per kernel table
    changed  in words the first constant of the file that is not the checkpoint's, None if it holds its program
    """

    reports: Mapping[str, Report]
    changed: str | None

    @property
    def difference(self) -> str | None:
        """Return the first thing that differs in words, None if nothing does."""
        if self.changed is not None:
            return f"not what the checkpoint exports to: {self.changed}; pack it again"
        bad = ((name, report) for name, report in self.reports.items() if not report.ok)
        return next((f"{name}: {_difference(report)}" for name, report in bad), None)


def verify_command(args: argparse.Namespace) -> None:
    """Verify, print the tables, and raise VerifyError if something differs."""
    proof = verify(args.checkpoint, args.model, source_of(args), args.kernels, args.threads)
    clouds = next(iter(proof.reports.values())).clouds
    if args.clouds is not None and clouds < args.clouds:
        note(f"the split has {clouds} clouds, not {args.clouds}")
    if args.json:
        show_json(
            {
                "ok": proof.difference is None,
                "difference": proof.difference,
                "same_program": proof.changed is None,
                "kernels": {name: _record(report) for name, report in proof.reports.items()},
            }
        )
    else:
        _print(proof)
    if proof.difference is not None:
        raise VerifyError(f"{args.model}: {proof.difference}")


def verify(
    checkpoint: Path, model: Path, source: Source, kernels: str | None = None, threads: int | None = None
) -> Proof:
    """Compare a model file with its checkpoint over the clouds of a data set.

    kernels  a table, "all" of this machine's, "reference", or None for the fastest
    threads  of the engine
    Raises VerifyError if the file's steps are others, so that there is nothing to compare.
    """
    from popcloud.learn import checkpoint as checkpoints
    from popcloud.packed.file import read
    from popcloud.verify import changed_constant, mismatch

    trained, program = checkpoints.load(checkpoint), read(model)
    exported = export(trained)
    different = mismatch(program, exported.program)
    if different is not None:
        raise VerifyError(f"{model}: not what {checkpoint} exports to: {different}; pack it again")
    running = {name: start(model, program, name, threads) for name in kernels_of(kernels)}
    for found in EVIDENCE[trained.recipe.task](trained, exported, chosen(source, trained.recipe.task)):
        for verification in running.values():
            verification.add(*found)
    return Proof({name: v.report() for name, v in running.items()}, changed_constant(program, exported.program))


def chosen(source: Source, task: str) -> Source:
    """Return what verify looks at: as asked for, by default some clouds, objects or rooms of the split test.

    Of scenes the split stays open: not every data set has labels in test.
    """
    split = source.split or (None if task == "scenes" else "test")
    most = proving_scenes.SCENES if task in ("scenes", "blocks") else CLOUDS
    return replace(source, split=split, clouds=source.clouds or most)


def kernels_of(name: str | None) -> list[str]:
    """Return the kernel tables that --kernels means. Raises EngineError where there is no engine."""
    from popcloud import native

    if name == REFERENCE:
        return [name]
    available = native.engine().available()
    return list(available) if name == "all" else [name or available[0]]


def start(model: Path, program: Program, kernels: str, threads: int | None) -> Verification:
    """Return a verification of a model file by one kernel table, or by the reference."""
    from popcloud import native
    from popcloud.runtime import reference
    from popcloud.verify import Verification

    if isinstance(program.plan, Grid):
        return proving_scenes.start(model, program, kernels, threads)
    if kernels == REFERENCE:
        bare = replace(program, points=0, normalize="none")  # the clouds are ready
        return Verification(
            program,
            lambda index, inputs, rows: reference.step(program, index, inputs, rows),
            lambda cloud, _: reference.run(bare, cloud),
        )
    engine = native.engine().Engine(model, kernels=kernels, threads=threads or 0)
    answer: Callable[[Array, Any], Array] = lambda cloud, _: engine.run([cloud])[0]  # noqa: E731, its type is stated
    return Verification(program, engine.step, answer)


def evidence(trained: Trained, exported: Exported, source: Source) -> Iterator[tuple[Array, Mapping[int, Array]]]:
    """Yield clouds, ready for the network, with PyTorch's values."""
    from popcloud.cloud import prepare
    from popcloud.learn.export import observe

    recipe: dict[str, Any] = trained.recipe.model_dump(mode="json")
    for xyz in load_clouds(source, recipe, points=trained.recipe.points, classes=trained.classes).xyz:
        ready = prepare(xyz, trained.recipe.points, NORMALIZE)
        yield ready, observe(exported, ready)


EVIDENCE: dict[str, Callable[..., Iterator[Any]]] = {  # by task
    "classification": evidence,
    "parts": objects.evidence,
    "blocks": objects.evidence,
    "scenes": proving_scenes.evidence,
}


def _print(proof: Proof) -> None:
    from popcloud.verify import table

    for name, report in proof.reports.items():
        print(f"kernels: {name}\n{table(report)}\n")
    print(f"program: {'the one that the checkpoint exports to' if proof.changed is None else proof.changed}")


def _record(report: Report) -> dict[str, Any]:
    lines: Sequence[dict[str, Any]] = [asdict(line) | {"ok": line.ok} for line in report.lines]
    first = None if report.first is None else report.first.name
    counts = {"clouds": report.clouds, "answers": report.answers, "agreeing": report.agreeing}
    return {"ok": report.ok, **counts, "first": first, "steps": lines}


def _difference(report: Report) -> str:
    if report.first is not None:
        return f"{report.first.name} ({report.first.op}) is the first layer that differs from PyTorch"
    return f"{report.answers - report.agreeing} of {report.answers} answers differ from PyTorch's"
