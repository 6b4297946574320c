"""popcloud train, popcloud eval."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcloud.cli import objects, scenes
from popcloud.cli.common import (
    KERNELS_HELP,
    THREADS_HELP,
    Commands,
    Labels,
    accuracy,
    add_dataset,
    add_json,
    batches,
    command,
    count,
    is_model,
    load_clouds,
    recipe_of,
    show_json,
    source_of,
    text_table,
)
from popcloud.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from popcloud.cloud import CloudSet
    from popcloud.learn.checkpoint import Trained
    from popcloud.learn.tasks import AnyRecipe
    from popcloud.packed.program import Program

TRAIN = """\
RECIPE.yaml holds the choices of a run; each can be changed by field=value, and all have defaults.
task=scenes learns a class per point of scenes in place of one per cloud, in one or more stages; task=parts the
parts of objects; task=blocks a class per point of rooms, block by block.
`popcloud train --fields` lists them. The folder DIR gets best.safetensors (the network of the epoch that
was best on the validation clouds), last.safetensors (all that --resume needs), log.jsonl and result.json.
Ctrl-C saves and says how to go on; a run that was killed goes on from its last epoch. Needs PyTorch."""

EVAL = """\
THING is a checkpoint (a file, or the folder of a run) and is run by PyTorch, or a packed model (*.popc)
and is run by the engine. The clouds are those of the data set it was trained on, unless you name another.
Of scenes it is the mean IoU over points that is measured, on the split test, or val where there is no test; of
parts of objects category and instance mIoU; of rooms in blocks mean IoU: each over every point of the split."""


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    p = command(
        commands,
        "train",
        train,
        "train a network as a recipe says",
        TRAIN,
        "  popcloud train recipes/shapes_bipointnet.yaml --out runs/shapes\n"
        "  popcloud train binarizer=bnn pool=max epochs=5 --out runs/bnn\n"
        "  popcloud train recipes/rooms_unet_s_net.yaml --out runs/rooms\n"
        "  popcloud train --resume --out runs/shapes",
    )
    p.add_argument("what", nargs="*", metavar="RECIPE.yaml | field=value", help="a recipe, and changes to it")
    p.set_defaults(more=("what", str))
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the run, made if it is absent")
    p.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    p.add_argument("--fields", action="store_true", help="print every field of a recipe with its default and meaning")
    add_json(p)
    p = command(
        commands,
        "eval",
        evaluate,
        "measure the accuracy of a checkpoint or a packed model",
        EVAL,
        "  popcloud eval runs/shapes\n  popcloud eval zoo/model.popc --root data/modelnet40 --split test --json",
    )
    p.add_argument("thing", type=Path, metavar="THING", help="checkpoint or model")
    add_dataset(p, clouds="at most so many clouds or scenes (default: all)")
    p.add_argument(
        "--views", type=count, metavar="N", help="of a checkpoint for scenes: turned and mirrored views to average"
    )
    p.add_argument(
        "--folds",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="of a finished run on blocks of S3DIS: the runs of the other five areas, to measure all six as one",
    )
    p.set_defaults(split=None)
    p.add_argument("--threads", type=count, metavar="N", help=f"of a model: {THREADS_HELP}")
    p.add_argument("--kernels", metavar="NAME", help=f"of a model: {KERNELS_HELP}")
    add_json(p)


def train(args: argparse.Namespace) -> None:
    """Train, or print the fields of a recipe."""
    from popcloud.learn.progress import reporter
    from popcloud.learn.scenes.recipe import SceneRecipe
    from popcloud.learn.scenes.stages import total_epochs
    from popcloud.learn.scenes.train import train as run_scenes
    from popcloud.learn.stop import Stopped
    from popcloud.learn.tasks import document
    from popcloud.learn.train import train as run

    if args.fields:
        print(document(), end="")
        return
    if args.out is None:
        raise RecipeError("train: --out DIR is missing; name the folder that the run is written to")
    recipe = _recipe(args)
    how: dict[str, Any] = {"resume": args.resume, "progress": reporter(sys.stderr)}
    try:
        if isinstance(recipe, SceneRecipe):
            found = run_scenes(recipe, args.out, **how)
            show_json(asdict(found)) if args.json else scenes.show_result(found, total_epochs(recipe), args.out)
            return
        result = run(recipe, args.out, **how)
    except Stopped as stopped:
        raise Stopped(f"{stopped}: popcloud train --resume --out {shlex.quote(str(args.out))}") from None
    if args.json:
        show_json(result.plain())
        return
    checked = "" if result.validation is None else f", {result.validation:.1%} on the validation clouds"
    more = [
        f"{name.replace('_', ' ')} {share:.1%}" for name, share in result.figures.items() if isinstance(share, float)
    ]
    print(f"best epoch   {result.best_epoch} of {recipe.epochs}{checked}")
    print(f"test         {', '.join(more)}")
    print(f"time         {result.seconds:.0f} s")
    print(f"checkpoint   {result.checkpoint}")
    print(f"next         popcloud pack {shlex.quote(str(args.out))} model.popc")


def _recipe(args: argparse.Namespace) -> AnyRecipe:
    """Return the recipe that the arguments ask for; a resumed run has its own in its folder."""
    from popcloud.learn.folder import RECIPE
    from popcloud.learn.tasks import load

    files = [word for word in args.what if "=" not in word or Path(word).is_file()]
    changes = [word for word in args.what if word not in files]
    if len(files) > 1:
        raise RecipeError(f"train: expected one recipe, found {', '.join(files)}; changes are written field=value")
    if args.resume and not files:
        own = args.out / RECIPE
        if not own.is_file():
            raise CheckpointError(f"{args.out}: no run to resume; start one without --resume, or check the path")
        files = [str(own)]
    return load(files[0] if files else None, changes)


def evaluate(args: argparse.Namespace) -> None:
    """Print overall and mean-class accuracy; of scenes mean IoU, accuracy and the IoU of each class."""
    from popcloud.packed.file import read
    from popcloud.packed.program import Grid, Rows

    if args.folds:
        objects.evaluate_folds(args)
        return
    if is_model(args.thing):
        program = read(args.thing)
        if isinstance(program.plan, Grid):
            scenes.evaluate_model(args, program)
            return
        if program.values[program.steps[-1].output].rows is Rows.POINT:
            objects.evaluate_model(args, program)
            return
        args.split = args.split or "test"
        clouds, answers, by = _answers_of_model(args, program)
    else:
        trained = _trained(args.thing)
        if trained.recipe.task == "scenes":
            scenes.evaluate(args, trained)
            return
        if trained.recipe.task in objects.NORMALIZE:
            objects.evaluate(args, trained)
            return
        args.split = args.split or "test"
        clouds, answers, by = _answers_of_checkpoint(args, trained)
    found = accuracy(clouds.labels, answers, len(clouds.classes))
    if args.json:
        per_class = _per_class(clouds, answers)
        show_json({"path": args.thing, "by": by, "split": args.split, "clouds": len(clouds), **found, **per_class})
        return
    rows = [[name, f"{share:.1%}"] for name, share in _per_class(clouds, answers)["classes"].items()]
    print(text_table(["class", "right"], rows))
    print(f"\n{args.thing}, run by {by}, on {len(clouds):,} clouds of the {args.split} split")
    print(f"overall accuracy     {found['overall']:.1%}")
    print(f"mean-class accuracy  {found['mean_class']:.1%}")


def _per_class(clouds: CloudSet, answers: Labels) -> dict[str, dict[str, float]]:
    right = answers == clouds.labels
    rows = {name: clouds.labels == label for label, name in enumerate(clouds.classes)}
    return {"classes": {name: float(right[at].mean()) for name, at in rows.items() if at.any()}}


def _answers_of_model(args: argparse.Namespace, program: Program) -> tuple[CloudSet, Labels, str]:
    from popcloud.runtime.session import Session

    session = Session(args.thing, kernels=args.kernels, threads=args.threads)
    recipe = recipe_of(program.meta)
    clouds = load_clouds(source_of(args), recipe, points=program.points or 1024, classes=program.classes)
    answers = [session.labels(clouds.xyz[rows]) for rows in batches(len(clouds), 64)]
    return clouds, np.concatenate(answers), f"the engine ({session.kernels})"


def _trained(path: Path) -> Trained:
    from popcloud.learn import checkpoint

    return checkpoint.load(path)


def _answers_of_checkpoint(args: argparse.Namespace, trained: Trained) -> tuple[CloudSet, Labels, str]:
    from popcloud.learn.metrics import answers

    recipe: dict[str, Any] = trained.recipe.model_dump(mode="json")
    clouds = load_clouds(source_of(args), recipe, points=trained.recipe.points, classes=trained.classes)
    return clouds, answers(trained.model, clouds, trained.recipe.batch), "PyTorch"
