"""A run in progress: its data, its network, its place, and how all of it is saved and found again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popcloud.cloud import CloudSet
from popcloud.data import DATASETS
from popcloud.errors import CheckpointError, RecipeError, TrainingError
from popcloud.learn import batches, checkpoint
from popcloud.learn.distillation import load_teacher, start_from
from popcloud.learn.layers import initialise, weight_signs
from popcloud.learn.recipe import Augmentation, Recipe, differing
from popcloud.learn.stop import Stopped

MAY_DIFFER = {"root", "tensorboard", "save_every"}  # fields that a resumed run may change: they leave the weights alone
SIGNS = "signs."  # prefix of the tensors in `last` that hold the weights' signs at the start of the epoch


@dataclass(frozen=True)
class Data:
    """The clouds of a run, and who else to learn from; the validation set is empty if the recipe wants none."""

    training: CloudSet
    validation: CloudSet
    test: CloudSet
    teacher: nn.Module | None = None


@dataclass
class Place:
    """Where a run stands, in plain values.

    epoch, batch         finished epochs, and finished batches of the next one
    loss, right, clouds  sums over those batches; of scenes it is their labelled sites that are counted, not clouds
    best, best_epoch     highest validation accuracy (of scenes: mean IoU, in the present stage), and after how many
                         epochs it was first reached
    threads              with another number the sums of floats would round differently
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    right: int = 0
    clouds: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best: float = -1.0
    best_epoch: int = 0
    threads: int = field(default_factory=torch.get_num_threads)

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.seconds += self.epoch_seconds
        self.epoch += 1
        self.batch = self.right = self.clouds = 0
        self.loss = self.epoch_seconds = 0.0


@dataclass
class Run:
    """All that training changes, and what it reads; of any kind of recipe.

    data   what is learnt from, as the recipe's kind has it
    about  what the record of every checkpoint says besides the recipe: the classes, and what its kind needs
    signs  of the binary weights when the epoch began, by layer
    saved  the (epoch, batch) of `last`
    """

    recipe: Any
    out: Path
    data: Any
    about: dict[str, Any]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    place: Place
    signs: dict[str, Tensor]
    saved: tuple[int, int] = (0, 0)

    @property
    def last(self) -> Path:
        """Return the path of the file that holds this run's state."""
        return self.out / checkpoint.LAST

    def save(self) -> None:
        """Write `last`. Raises TrainingError, and leaves it as it was, if a weight is not finite."""
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():
                raise TrainingError(f"{self.where()}: {name} is not finite; {self.advice()}")
        tensors = checkpoint.model_tensors(self.model) | checkpoint.optimizer_tensors(self.optimizer)
        tensors |= checkpoint.rng_tensors(torch.device(self.recipe.device))
        tensors |= {SIGNS + name: signs for name, signs in self.signs.items()}
        state = {"place": asdict(self.place), "optimizer": checkpoint.optimizer_groups(self.optimizer)}
        checkpoint.write(self.last, tensors, self.record(self.place.epoch, {}) | state)
        self.saved = (self.place.epoch, self.place.batch)

    def save_best(self, metrics: dict[str, float], name: str = checkpoint.BEST) -> None:
        """Write `best`: the network alone, as it is after the epoch that just ended."""
        record = self.record(self.place.epoch + 1, metrics)
        checkpoint.write(self.out / name, checkpoint.model_tensors(self.model), record)

    def record(self, epoch: int, metrics: dict[str, float]) -> dict[str, Any]:
        """Return what every checkpoint's record has."""
        return {"recipe": self.recipe.model_dump(mode="json"), **self.about, "epoch": epoch, "metrics": metrics}

    def where(self) -> str:
        """Return the place in words, counted from 1."""
        return f"epoch {self.place.epoch + 1}, batch {self.place.batch + 1}"

    def advice(self) -> str:
        """Return what to try when numbers are no longer finite."""
        return (
            f"try a smaller lr (now {self.optimizer.param_groups[0]['lr']:.3g}), a larger batch, or another seed; "
            f"{self.last} holds the last good state, after {self.saved[0]} epochs and {self.saved[1]} batches"
        )

    def stopped(self) -> Stopped:
        """Return the error that ends a run which was asked to stop."""
        epochs, steps = self.saved
        return Stopped(
            f"stopped; saved after {epochs} epochs and {steps} batches in {self.out}; resume to go on from there"
        )


def rows(run: Run) -> list[batches.Rows]:
    """Return the clouds of each batch of the current epoch."""
    return batches.order(len(run.data.training), run.recipe.batch, run.recipe.seed, run.place.epoch)


def load_split(recipe: Recipe, split: str) -> CloudSet:
    """Return a split of the recipe's data set, "train" or "test"."""
    return DATASETS[recipe.dataset](
        None if recipe.root is None else Path(recipe.root),
        split,
        points=recipe.points,
        seed=recipe.data_seed,
        classes=recipe.classes,
        clouds=recipe.train_size if split == "train" else recipe.test_size,
    )


def load_data(recipe: Recipe) -> Data:
    """Return the clouds of a run. The test set is read now, so that its absence shows before the training."""
    clouds, test = load_split(recipe, "train"), load_split(recipe, "test")
    training, validation = batches.split(clouds, recipe.validation, recipe.validation_seed)
    if len(training) < 2:
        raise RecipeError(f"training needs 2 clouds or more, {recipe.dataset} has {len(training)}; raise train_size")
    return Data(training, validation, test, load_teacher(recipe, {"task": recipe.task, "classes": training.classes}))


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over all of a network's parameters."""
    settings: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **settings)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](model.parameters(), **settings)


def make_batch(recipe: Recipe, clouds: CloudSet, rows: batches.Rows, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return the clouds at `rows`, augmented, as (B, N, 3) float32, and their labels (B,), on the recipe's device."""
    xyz = clouds.xyz[rows]
    if recipe.augment != Augmentation():
        rng = batches.augment_rng(recipe.seed, epoch, batch)
        xyz = np.ascontiguousarray(recipe.augment.build().apply(xyz, rng), dtype=np.float32)
    return torch.from_numpy(xyz).to(recipe.device), torch.from_numpy(clouds.labels[rows]).to(recipe.device)


def begin(recipe: Recipe, out: Path) -> Run:
    """Return the run in `out`: as its `last` left it, or fresh (and saved) if there is none yet."""
    found = read_last(recipe, out, MAY_DIFFER)
    data = load_data(recipe)
    model = checkpoint.build(recipe, len(data.training.classes)).to(recipe.device)
    if found is None:
        if recipe.start is not None:
            start_from(model, recipe.start)
        first = batches.order(len(data.training), recipe.batch, recipe.seed, 0)[0]
        initialise(model, make_batch(recipe, data.training, first, 0, 0)[0])
    about = {"classes": data.training.classes}
    run = Run(recipe, out, data, about, model, make_optimizer(recipe, model), Place(), weight_signs(model))
    if found is None:
        run.save()
    else:
        restore(run, *found)
    return run


def read_last(recipe: Any, out: Path, may_differ: set[str]) -> tuple[checkpoint.Tensors, checkpoint.Record] | None:
    """Return what `last` holds, None if there is none yet.

    Raises RecipeError if `recipe` is not the one that made it, but for the fields in `may_differ`.
    """
    last = out / checkpoint.LAST
    if not last.exists():
        return None
    tensors, record = checkpoint.read(last)
    made = checkpoint.recipe_of(last, record)
    other = ["task"] if made.task != recipe.task else differing(made, recipe)
    changed = [name for name in other if name not in may_differ]
    if changed:
        raise RecipeError(
            f"{last}: made by another recipe, different in {', '.join(changed)}; "
            f"resume with the recipe beside it, or train into another folder"
        )
    return tensors, record


def restore(run: Run, tensors: checkpoint.Tensors, record: checkpoint.Record) -> None:
    """Put back what `last` holds into a run whose network and optimiser are those that were saved."""
    for name, value in run.about.items():
        if json.loads(json.dumps(value)) != record[name]:
            raise CheckpointError(
                f"{run.last}: trained with other {name} than the data set has now; train into another folder"
            )
    checkpoint.load_model(run.model, tensors, run.last)
    checkpoint.load_optimizer(run.optimizer, tensors, record["optimizer"])
    checkpoint.load_rng(tensors, torch.device(run.recipe.device))
    run.place = Place(**record["place"])
    torch.set_num_threads(run.place.threads)
    signs = {name.removeprefix(SIGNS): t for name, t in tensors.items() if name.startswith(SIGNS)}
    run.signs = {name: t.to(run.recipe.device) for name, t in signs.items()}
    run.saved = (run.place.epoch, run.place.batch)
