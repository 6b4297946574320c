"""What train and eval say of scenes: mean IoU, accuracy, and the IoU of each class."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcloud.cli.common import Source, recipe_of, show_json, source_of, text_table
from popcloud.cli.progress import TileProgress
from popcloud.errors import DatasetError, RecipeError
from popcloud.geometry.inputs import COMPUTED
from popcloud.runtime.session import REFERENCE

if TYPE_CHECKING:
    from popcloud.cloud import SceneSet
    from popcloud.learn.checkpoint import Trained
    from popcloud.learn.scenes.train import SceneResult
    from popcloud.packed.program import Program

Table = Mapping[str, Any]


def show_result(result: SceneResult, epochs: int, out: Path) -> None:
    """Print what a run came to."""
    rows = [
        [one["name"], str(one["epochs"]), f"{one['seconds']:.0f} s", _percent(one["validation"])]
        for one in result.stages
    ]
    print(text_table(["stage", "epochs", "time", "validation mIoU"], rows))
    print(f"\nbest epoch   {result.best_epoch} of {epochs}")
    for name, found in (("validation", result.validation), ("test", result.test)):
        if found is not None:
            print(f"{name:<12} mIoU {found['mean_iou']:.1%}, accuracy {found['accuracy']:.1%}")
    print(f"time         {result.seconds:.0f} s")
    print(f"checkpoint   {result.checkpoint}")
    print(f"next         popcloud eval {shlex.quote(str(out))}")


def evaluate(args: argparse.Namespace, trained: Trained) -> None:
    """Print the figures of a trained network over the scenes of a split."""
    from popcloud.geometry.plan import GridPlan
    from popcloud.learn.scenes.batches import Workshop, check
    from popcloud.learn.scenes.evaluate import Whole, measured

    recipe, net = trained.recipe, trained.model
    split, scenes = load_scenes(source_of(args), trained)
    plan = GridPlan(recipe.edge, net.levels, net.size)  # type: ignore[arg-type]
    shop = Workshop(check(scenes, split), plan, recipe.max_sites, recipe.inputs, None, recipe.seed)
    found = measured(net, Whole(shop, scenes), args.views or recipe.views)
    assert found is not None  # there is a scene at least
    _show_figures(args, "PyTorch", split, found)


def evaluate_model(args: argparse.Namespace, program: Program) -> None:
    """Print the same figures of a packed model, of one view of each scene."""
    from popcloud.learn.confusion import Metrics, confusion_matrix, figures
    from popcloud.runtime.session import Session

    if args.views is not None:
        raise RecipeError(f"--views: {args.thing} answers for scenes as they are; leave it out, or pass a checkpoint")
    session = Session(args.thing, kernels=args.kernels, threads=args.threads)
    own = [name for name in program.features if name not in COMPUTED]
    split, scenes = scenes_of(source_of(args), recipe_of(program.meta), program.classes, own or None)
    confusion = np.zeros((len(program.classes),) * 2, np.int64)
    for cloud, name in zip(scenes.clouds, scenes.names, strict=True):
        if cloud.labels is None:
            raise DatasetError(f"{name}: expected labels to measure by, found none; choose another split")
        answers = session.labels(cloud, progress=TileProgress(sys.stderr, name))
        confusion += confusion_matrix(cloud.labels, answers, len(program.classes))
    by = "the numpy reference" if session.kernels == REFERENCE else f"the engine ({session.kernels})"
    _show_figures(args, by, split, figures(Metrics(confusion), program.classes, len(scenes)))


def _show_figures(args: argparse.Namespace, by: str, split: str, found: Table) -> None:
    if args.json:
        show_json({"path": args.thing, "by": by, "split": split, **found})
        return
    print(text_table(["class", "IoU"], [[name, _percent(share)] for name, share in found["iou"].items()]))
    count = f"{found['points']:,} points of {found['scenes']} scenes"
    print(f"\n{args.thing}, run by {by}, on {count} of the {split} split")
    print(f"mean IoU   {found['mean_iou']:.1%}")
    print(f"accuracy   {found['accuracy']:.1%}")


def load_scenes(source: Source, trained: Trained) -> tuple[str, SceneSet]:
    """Return the split that is wanted and its scenes, see `scenes_of`."""
    return scenes_of(source, trained.recipe.model_dump(), trained.classes, trained.features)


def scenes_of(
    source: Source, recipe: Mapping[str, Any] | None, classes: Sequence[str], features: Sequence[str] | None
) -> tuple[str, SceneSet]:
    """Return the split that is wanted, "test" where the data set has it, else "val", and its scenes.

    recipe    the fields of the recipe that trained the network, if it is known: what the source leaves open
    features  that the network was trained on, None if it reads none
    Raises RecipeError if no data set is known, DatasetError for other features, or as the loader does.
    """
    from popcloud import data

    fields = dict(recipe or {})
    name = source.dataset or fields.get("dataset")
    if name is None:
        raise RecipeError("the model does not say what it was trained on; pass --dataset NAME")
    known = fields if name == fields.get("dataset") else {}
    split = source.split or ("test" if "test" in data.LABELLED_SPLITS.get(name, ("test",)) else "val")
    root = source.root or known.get("root")
    size = known.get("train_scenes" if split == "train" else "test_scenes")
    scenes = data.scenes(name)(
        None if root is None else Path(root),
        split,
        seed=known.get("data_seed", 0) if source.seed is None else source.seed,
        classes=tuple(classes),
        scenes=source.clouds or size,
    )
    if features is not None and scenes.features != tuple(features):
        raise DatasetError(
            f"{name}: expected the features {', '.join(features) or 'none'} that the network was trained on, "
            f"found {', '.join(scenes.features) or 'none'}; choose a data set that has them"
        )
    return split, scenes


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
