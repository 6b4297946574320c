"""The training loop: from a recipe to a folder with the best network, the last state and a log.

    out/recipe.json        the recipe, written first: it marks the folder as a run
    out/last.safetensors   everything to go on from: network, optimiser, place, best so far, random states
    out/best.safetensors   the network of the best epoch
    out/log.jsonl          a line per epoch, see `_line`
    out/result.json        what came out, written last

A run killed at any moment goes on from `last` and ends with the same bits as a run that was not: what a step does
depends on what `last` holds and on (seed, epoch, batch) alone, and each file is replaced in one step. The same bits
hold on one machine with one number of threads; on a GPU PyTorch does not promise them for every kernel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F

from popcloud.cloud import IGNORE
from popcloud.errors import TrainingError
from popcloud.learn import checkpoint, classification, journal
from popcloud.learn.determinism import check_device, settings
from popcloud.learn.distillation import distillation
from popcloud.learn.folder import RECIPE, RESULT, open_folder, write_json
from popcloud.learn.layers import after_step, positive_shares, set_progress, weight_signs
from popcloud.learn.progress import Reporter, Silent
from popcloud.learn.run import Run, Task, begin, rows
from popcloud.learn.segmentation import blocks, parts
from popcloud.learn.stop import interrupts

__all__ = ["RECIPE", "RESULT", "TASKS", "Result", "learning_rate", "train"]

# What this loop trains, by the recipe's field `task`.
TASKS: dict[str, Task] = {"classification": classification, "parts": parts, "blocks": blocks}


@dataclass(frozen=True)
class Result:
    """What a run came to.

    best_epoch  after how many epochs: the first of the best on the validation set, all if there is none
    validation  the task's first figure on the validation set, None without one: share of right answers of classifiers
    test        that figure on the test set, of the best network
    figures     all of the task's figures there
    seconds     of training and validation, over all resumed parts
    checkpoint  path of the best network
    """

    best_epoch: int
    validation: float | None
    test: float
    figures: dict[str, Any]
    seconds: float
    checkpoint: Path

    def plain(self) -> dict[str, Any]:
        """Return all of it by name, the test set's further figures as "test_NAME"."""
        return {
            "best_epoch": self.best_epoch,
            "validation": self.validation,
            **_named("test", self.figures),
            "seconds": self.seconds,
            "checkpoint": str(self.checkpoint),
        }


def train(
    recipe: Any,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Reporter | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """Train as the recipe says and write everything to the folder `out`.

    recipe    of one of TASKS
    resume    go on with the run in `out`; its recipe must be this one (but for the fields in run.MAY_DIFFER)
    progress  who is told how it goes
    stop      asked after each batch; once it says True the run is saved and ends with Stopped, as after Ctrl-C
    Raises FileError if `out` can't be written or has a run already, RecipeError for another recipe than the run's,
    CheckpointError if there is nothing to resume, TrainingError if the loss is not finite, Stopped.
    """
    folder, reporter = Path(out), progress or Silent()
    check_device(recipe.device)
    if recipe.tensorboard:
        journal.check_tensorboard()
    open_folder(folder, recipe, resume)
    with interrupts() as pressed, settings(seed=recipe.seed, threads=recipe.threads, device=recipe.device):
        run = begin(recipe, folder, TASKS[recipe.task])
        try:
            _epochs(run, reporter, lambda: pressed() or (stop is not None and stop()))
            return _finish(run)
        except KeyboardInterrupt:  # a second Ctrl-C, or one where we could install no handler: `last` is still whole
            raise run.stopped() from None
        finally:
            reporter.close()


def learning_rate(recipe: Any, epoch: int) -> float:
    """Return the learning rate of an epoch, from 0: a function of the epoch alone, so there is no state to save."""
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    if recipe.schedule == "step":
        return recipe.lr * recipe.step_factor ** (epoch // recipe.step_epochs)
    return recipe.lr


def _epochs(run: Run, reporter: Reporter, stopped: Callable[[], bool]) -> None:
    """Train until the last epoch is done or `stopped` says True."""
    place, steps = run.place, len(rows(run))
    log = journal.Journal(run.out, keep=place.epoch, tensorboard=run.recipe.tensorboard)
    reporter.start(run.recipe.epochs, steps, place.epoch * steps + place.batch)
    try:
        while place.epoch < run.recipe.epochs:
            _train_epoch(run, reporter, stopped)
            line = _close_epoch(run)
            log.add(line)
            place.next_epoch()
            run.signs = weight_signs(run.model)
            run.save()
            reporter.epoch(line)
    finally:
        log.close()


def _train_epoch(run: Run, reporter: Reporter, stopped: Callable[[], bool]) -> None:
    """Take the steps of the current epoch that are not done yet."""
    place, recipe = run.place, run.recipe
    set_progress(run.model, place.epoch, recipe.epochs)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, place.epoch)
    run.model.train()
    steps = rows(run)
    while place.batch < len(steps):
        began = time.monotonic()
        _step(run, steps[place.batch])
        place.batch += 1
        place.epoch_seconds += time.monotonic() - began
        reporter.batch(place.epoch, place.batch - 1, place.loss / place.clouds, place.right / place.clouds)
        if stopped():
            run.save()
            raise run.stopped()
        if recipe.save_every and place.batch % recipe.save_every == 0:
            run.save()


def _step(run: Run, members: Any) -> None:
    """Take one step on the training set's members at these rows and count what the network answered."""
    place, recipe, data, network = run.place, run.recipe, run.data, cast(Any, run.model)
    x, labels = run.task.make_batch(recipe, data.training, members, place.epoch, place.batch)
    logits, penalty = network.loss_terms(x)
    logits, labels = logits.flatten(0, -2), labels.flatten()  # of points: a row each
    loss = F.cross_entropy(logits, labels, data.weights, ignore_index=IGNORE, label_smoothing=recipe.label_smoothing)
    loss = loss + recipe.transform_penalty * penalty
    if data.teacher is not None:
        with torch.no_grad():
            taught = data.teacher(x).flatten(0, -2)
        loss = loss + recipe.distill * distillation(logits, taught, recipe.temperature)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(f"{run.where()}: the loss is {value}; {run.advice()}")
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    after_step(run.model, run.optimizer)
    known = int((labels != IGNORE).sum())
    place.loss += value * known
    place.right += int((logits.detach().argmax(dim=1) == labels).sum())
    place.clouds += known


def _close_epoch(run: Run) -> dict[str, Any]:
    """Validate, keep the network if it is the best so far, and return the epoch's line of the log."""
    began, place, recipe = time.monotonic(), run.place, run.recipe
    checked: dict[str, Any] = {}
    if len(run.data.validation):
        figures = run.task.measure(recipe, run.model, run.data.validation)
        checked = _named("validation", {name: value for name, value in figures.items() if isinstance(value, float)})
    # Without a validation set the last epoch counts: choosing by training accuracy would choose by noise.
    better = checked["validation"] > place.best if checked else place.epoch + 1 == recipe.epochs
    if better:
        run.save_best(checked)
        place.best, place.best_epoch = checked.get("validation", -1.0), place.epoch + 1
    seen = run.data.validation if checked else run.data.training
    shares = positive_shares(run.model, run.task.sample(recipe, seen))
    place.epoch_seconds += time.monotonic() - began
    return _line(run, checked, shares)


def _named(prefix: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Return a task's figures on a set under the set's name: the first one as PREFIX, the others as PREFIX_NAME."""
    first = next(iter(figures))
    return {prefix if name == first else f"{prefix}_{name}": value for name, value in figures.items()}


def _line(run: Run, checked: dict[str, Any], shares: dict[str, float]) -> dict[str, Any]:
    """Return the log's line of the epoch that just ended.

    epoch counts from 1; loss and train (accuracy) are means over the epoch's steps, while the weights moved;
    validation, validation_NAME of further figures and best (validation so far) are left out without a validation set;
    flipped: share of weights per binary layer whose sign turned since the epoch before; positive: share of its inputs
    that are +1, one half being the most information (BiPointNet 2021, section 3.2).
    """
    place = run.place
    now = weight_signs(run.model)
    return {
        "epoch": place.epoch + 1,
        "loss": place.loss / place.clouds,
        "train": place.right / place.clouds,
        **checked,
        **({"best": place.best} if checked else {}),
        "lr": learning_rate(run.recipe, place.epoch),
        "seconds": round(place.epoch_seconds, 3),
        "flipped": {name: float((signs != run.signs[name]).float().mean()) for name, signs in now.items()},
        "positive": shares,
    }


def _finish(run: Run) -> Result:
    """Test the best network once, and write and return the result."""
    path = run.out / checkpoint.BEST
    best = checkpoint.load(path)
    figures = run.task.measure(run.recipe, best.model.to(run.recipe.device), run.data.test)
    result = Result(
        best_epoch=best.epoch,
        validation=best.metrics.get("validation"),
        test=next(iter(figures.values())),
        figures=figures,
        seconds=round(run.place.seconds, 3),
        checkpoint=path,
    )
    plain = result.plain() | {"checkpoint": path.name}
    full = {"recipe": run.recipe.model_dump(mode="json"), "result": plain, "torch": str(torch.__version__)}
    write_json(run.out / RESULT, full | {"threads": run.place.threads})
    return result
