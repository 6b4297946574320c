"""What the commands do with networks that answer for each point of objects or of rooms, block by block."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from popcloud.cli.common import Source, recipe_of, show_json, source_of, text_table
from popcloud.cloud import BlockSet, PartSet, PointCloud, SceneSet
from popcloud.errors import DatasetError, RecipeError
from popcloud.geometry import blocks
from popcloud.packed.program import CATEGORY
from popcloud.runtime.objects import Objects
from popcloud.runtime.session import REFERENCE

if TYPE_CHECKING:
    from popcloud.learn.checkpoint import Trained
    from popcloud.learn.export import Exported
    from popcloud.packed.program import Array, Program

NORMALIZE = {"parts": "unit_sphere", "blocks": "blocks"}  # by task: what a network on points expects

Labels = NDArray[np.int64]
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One object, room or ready-made block of a data set.

    cloud     an object or a room; of a block x, y, z alone
    labels    (N,), IGNORE where there is none
    category  of an object, if the network is told it
    rows      of a ready-made block, as the network reads them
    """

    name: str
    cloud: PointCloud
    labels: Labels
    category: str | None = None
    rows: Array | None = None


def samples(source: Source, fields: Fields | None, model: Program | Trained | Objects) -> tuple[str, list[Sample]]:
    """Return the split that is wanted, default "test", and what is in it.

    fields  of the recipe that trained the network, if it is known: what the source leaves open
    model   whose classes and features the data set must have; blocks of rooms have a column room_x
    Raises RecipeError if no data set is known, DatasetError for other parts, classes or features.
    """
    known, name = dict(fields or {}), source.dataset or (fields or {}).get("dataset")
    if name is None:
        raise RecipeError("the model does not say what it was trained on; pass --dataset NAME")
    known = known if name == known.get("dataset") else {}
    split = source.split or "test"
    sizes = {"train": "train_size", "val": "validation_size", "test": "test_size"}
    chosen = {
        "root": source.root or known.get("root"),
        "seed": known.get("data_seed", 0) if source.seed is None else source.seed,
        "size": source.clouds or known.get(sizes.get(split, "")) or None,
    }
    if model.features != blocks.FEATURES:
        return split, _objects(_part_set(name, split, chosen, categories_of(model.classes)), model, source.clouds)
    area = {"test_area": f"Area_{known.get('area', 5)}"} if name.startswith("s3dis") else {}
    return split, _rooms(_room_set(name, split, area | chosen, model.classes), source.clouds)


def _root(chosen: Fields) -> Path | None:
    return None if chosen["root"] is None else Path(chosen["root"])


def _part_set(name: str, split: str, chosen: Fields, categories: tuple[str, ...]) -> PartSet:
    from popcloud.data import PARTS
    from popcloud.errors import unknown

    if name not in PARTS:
        raise DatasetError(unknown("data set of parts", name, PARTS))
    size = chosen["size"] and max(chosen["size"], len(categories))  # a generated set has one of each at least
    return PARTS[name](_root(chosen), split, seed=chosen["seed"], categories=categories, clouds=size)


def _objects(found: PartSet, model: Program | Trained | Objects, most: int | None) -> list[Sample]:
    told = [name.removeprefix(CATEGORY) for name in model.features if name.startswith(CATEGORY)]
    own = tuple(name for name in model.features[3:] if not name.startswith(CATEGORY))
    if found.parts != model.classes or (told and tuple(told) != found.categories):
        raise DatasetError(
            f"expected the parts that the network was trained on, {', '.join(model.classes[:3])} ..., found "
            f"{', '.join(found.parts[:3])} ...; choose its data set and categories"
        )
    if own and own != found.features:
        raise DatasetError(
            f"expected the features {', '.join(own)} that the network was trained on, found "
            f"{', '.join(found.features) or 'none'}; choose a data set that has them"
        )
    clouds = [cloud if own else PointCloud(cloud.xyz, None, cloud.labels) for cloud in found.clouds[:most]]
    names = [found.categories[c] for c in found.category]
    return [
        Sample(name, cloud, _labels(cloud, name), category if told else None)
        for cloud, name, category in zip(clouds, found.names, names, strict=False)
    ]


def _room_set(name: str, split: str, chosen: Fields, classes: Sequence[str]) -> SceneSet | BlockSet:
    from popcloud.data import BLOCKS, SCENES
    from popcloud.errors import unknown

    given = {"seed": chosen["seed"], "classes": tuple(classes)}
    given |= {key: chosen[key] for key in ("test_area",) if key in chosen}
    if name in BLOCKS:
        return BLOCKS[name](_root(chosen), split, blocks=chosen["size"], **given)
    if name not in SCENES:
        raise DatasetError(unknown("data set of rooms", name, [*BLOCKS, *SCENES]))
    return SCENES[name](_root(chosen), split, scenes=chosen["size"], **given)


def _rooms(found: SceneSet | BlockSet, most: int | None) -> list[Sample]:
    if isinstance(found, SceneSet):
        pairs = zip(found.clouds[:most], found.names, strict=False)
        return [Sample(name, cloud, _labels(cloud, name)) for cloud, name in pairs]
    blocks = zip(found.blocks[:most], found.labels, found.rooms, strict=False)
    return [Sample(room, PointCloud(rows[:, :3]), labels, None, rows) for rows, labels, room in blocks]


def _labels(cloud: PointCloud, name: str) -> Labels:
    if cloud.labels is None:
        raise DatasetError(f"{name}: expected labels to measure by, found none; choose another split")
    return cloud.labels


def categories_of(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the categories that parts "Category/part" belong to, in order."""
    return tuple(dict.fromkeys(part.rpartition("/")[0] for part in parts))


def category_of(sample: Sample, parts: Sequence[str]) -> str:
    """Return the category that the labels of an object belong to, whether the network is told it or not."""
    return parts[int(sample.labels.max())].rpartition("/")[0]


def answer(objects: Objects, sample: Sample) -> Labels:
    """Return the class of each point of a sample (N,): of an object among its category's parts, as training measures.

    That is so whether the network is told the category or not.
    """
    if sample.rows is not None:
        return objects.chosen(objects.answer([sample.rows])[0])
    own = None if objects.normalize == "blocks" else category_of(sample, objects.classes)
    return objects.chosen(objects.answers(sample.cloud, sample.category, sample.name), own)


def by_torch(trained: Trained) -> Objects:
    """Return a trained network that PyTorch runs."""
    from popcloud.learn.metrics import scores

    def answers(clouds: list[Array]) -> list[Array]:
        return [scores(trained.model, rows) for rows in clouds]

    return Objects(
        trained.features, trained.classes, trained.recipe.points, NORMALIZE[trained.recipe.task], True, answers
    )


def evaluate(args: argparse.Namespace, trained: Trained) -> None:
    """Print the figures of a trained network over every point of a split."""
    fields = trained.recipe.model_dump(mode="json")
    _measure(args, by_torch(trained), samples(source_of(args), fields, trained), "PyTorch")


def evaluate_model(args: argparse.Namespace, program: Program) -> None:
    """Print the same figures of a packed model."""
    from popcloud.runtime.session import Session

    session = Session(args.thing, kernels=args.kernels, threads=args.threads)
    assert session.objects is not None
    by = "the numpy reference" if session.kernels == REFERENCE else f"the engine ({session.kernels})"
    _measure(args, session.objects, samples(source_of(args), recipe_of(program.meta), program), by)


def _measure(args: argparse.Namespace, objects: Objects, found: tuple[str, list[Sample]], by: str) -> None:
    split, given = found
    answers = [answer(objects, sample) for sample in given]
    figures = _room_figures if objects.normalize == "blocks" else _part_figures
    show_figures(args, by, split, figures(given, answers, objects.classes))


def _room_figures(found: Sequence[Sample], answers: Sequence[Labels], classes: tuple[str, ...]) -> dict[str, Any]:
    from popcloud.learn.confusion import Metrics, confusion_matrix, figures

    true = np.concatenate([sample.labels for sample in found])
    confusion = confusion_matrix(true, np.concatenate(answers), len(classes))
    return dict(figures(Metrics(confusion), classes, len(found)))


def _part_figures(found: Sequence[Sample], answers: Sequence[Labels], parts: tuple[str, ...]) -> dict[str, Any]:
    from popcloud.learn.part_metrics import part_metrics

    categories = categories_of(parts)
    category = np.array([categories.index(category_of(sample, parts)) for sample in found], np.int64)
    names = tuple(sample.name for sample in found)
    clouds = tuple(PointCloud(sample.cloud.xyz, None, sample.labels) for sample in found)
    return part_metrics(PartSet(clouds, category, names, categories, parts, ()), answers).figures()


def evaluate_folds(args: argparse.Namespace) -> None:
    """Print the figures of six runs together, one for each area of S3DIS, as they were measured after training."""
    from popcloud.learn.segmentation.folds import six_folds

    show_figures(args, "PyTorch, with the runs of the other areas", "test", six_folds([args.thing, *args.folds]))


def show_figures(args: argparse.Namespace, by: str, split: str, found: Fields) -> None:
    """Print figures of networks with a class per point, as a table or, with --json, as they are."""
    if args.json:
        show_json({"path": args.thing, "by": by, "split": split, **found})
        return
    kind = "categories" if "categories" in found else "iou"
    heads = ["category", "mIoU"] if kind == "categories" else ["class", "IoU"]
    print(text_table(heads, [[name, _percent(share)] for name, share in found[kind].items()]))
    print(f"\n{args.thing}, run by {by}, on the {split} split")
    titles = {"category_miou": "category mIoU", "instance_miou": "instance mIoU", "mean_iou": "mean IoU"}
    for key, title in (titles | {"accuracy": "accuracy"}).items():
        if key in found:
            print(f"{title:<14} {_percent(found[key])}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def evidence(trained: Trained, exported: Exported, source: Source) -> Iterator[tuple[Any, ...]]:
    """Yield rows as the network reads them, of objects or of the blocks of rooms, with PyTorch's values.

    As Verification.add takes them: all sets but the first of an object or room are more points of the same.
    """
    from popcloud.learn.export import observe

    objects = by_torch(trained)
    for sample in samples(source, trained.recipe.model_dump(mode="json"), trained)[1]:
        if sample.rows is not None:
            yield sample.rows, observe(exported, sample.rows)
            continue
        for i, one in enumerate(objects.sets(sample.cloud, sample.category, sample.name)):
            yield one.features, observe(exported, one.features), None, None, i > 0
