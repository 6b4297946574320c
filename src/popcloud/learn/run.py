"""A run in progress: its data, its network, its place, and how all of it is saved and found again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from popcloud.errors import CheckpointError, RecipeError, TrainingError
from popcloud.learn import batches, checkpoint
from popcloud.learn.distillation import start_from
from popcloud.learn.layers import initialise, weight_signs
from popcloud.learn.recipe import differing
from popcloud.learn.stop import Stopped

MAY_DIFFER = {"root", "tensorboard", "save_every"}  # fields that a resumed run may change: they leave the weights alone
SIGNS = "signs."  # prefix of the tensors in `last` that hold the weights' signs at the start of the epoch


@dataclass(frozen=True)
class Data:
    """What a run reads; the validation set is empty if the recipe wants none.

    training, validation, test  sets of the task's own kind, with a length
    teacher                     the network to learn from besides the labels, None for none
    weights                     of the classes in the loss (C,), None for equal ones
    """

    training: Any
    validation: Any
    test: Any
    teacher: nn.Module | None = None
    weights: Tensor | None = None


class Task(Protocol):
    """What training asks of a kind of recipe; the loop of popcloud.learn.train knows nothing else of it.

    The network has loss_terms(x) -> (logits (..., C), penalty of its feature transform).
    """

    def load_data(self, recipe: Any) -> Data:
        """Return all sets. The test set is read now, so that its absence shows before the training."""

    def about(self, data: Data) -> dict[str, Any]:
        """Return what every checkpoint says besides the recipe: classes, and what the network is built with."""

    def make_batch(self, recipe: Any, some: Any, rows: batches.Rows, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Return x (B, n, F), augmented, and labels (B,) or (B, n) of the members at `rows` of a set."""

    def sample(self, recipe: Any, some: Any) -> Tensor:
        """Return x of some members of a set as evaluation sees them: what the inputs of layers are watched on."""

    def measure(self, recipe: Any, model: nn.Module, some: Any) -> dict[str, Any]:
        """Return figures of a network over a set by name, the one that matters first."""


@dataclass
class Place:
    """Where a run stands, in plain values.

    epoch, batch         finished epochs, and finished batches of the next one
    loss, right, clouds  sums over those batches; where points or sites have labels, those are counted, not clouds
    best, best_epoch     highest validation figure (of scenes: mean IoU, in the present stage), and after how many
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
    task   what it is that is learnt; None of scenes, which have a loop of their own
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
    task: Any = None

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


def make_optimizer(recipe: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over all of a network's parameters."""
    settings: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **settings)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](model.parameters(), **settings)


def begin(recipe: Any, out: Path, task: Task) -> Run:
    """Return the run in `out`: as its `last` left it, or fresh (and saved) if there is none yet."""
    found = read_last(recipe, out, MAY_DIFFER)
    data = task.load_data(recipe)
    about = task.about(data)
    model = checkpoint.build(recipe, len(about["classes"]), tuple(about.get("features", ()))).to(recipe.device)
    if found is None:
        if recipe.start is not None:
            start_from(model, recipe.start)
        first = batches.order(len(data.training), recipe.batch, recipe.seed, 0)[0]
        initialise(model, task.make_batch(recipe, data.training, first, 0, 0)[0])
    optimizer = make_optimizer(recipe, model)
    run = Run(recipe, out, data, about, model, optimizer, Place(), weight_signs(model), task=task)
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
