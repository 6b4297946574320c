"""Training on scenes: from a recipe to a folder with the best network, the last state and a log, through all stages.

    out/recipe.json              the recipe, written first: it marks the folder as a run
    out/last.safetensors         everything to go on from, in whatever stage
    out/best_STAGE.safetensors   the best network of each stage but the last
    out/best.safetensors         that of the last stage: the run's result
    out/log.jsonl                a line per epoch, see `_line`
    out/result.json              what came out, written last

The promise is that of popcloud.learn.train: a run killed at any moment goes on from `last` and ends with the same bits,
with any number of loader processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from popcloud.cloud import IGNORE
from popcloud.errors import TrainingError
from popcloud.learn import checkpoint, journal
from popcloud.learn.determinism import check_device, settings
from popcloud.learn.distillation import distillation
from popcloud.learn.folder import RESULT, open_folder, write_json
from popcloud.learn.layers import after_step, positive_shares, set_progress, weight_signs
from popcloud.learn.progress import Reporter, Silent
from popcloud.learn.run import Run
from popcloud.learn.scenes import losses, stages
from popcloud.learn.scenes.batches import Sample
from popcloud.learn.scenes.evaluate import Whole, evaluate, measured, operands
from popcloud.learn.scenes.loader import Loader
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.learn.scenes.run import begin, hand_over, orders
from popcloud.learn.shifted import confidence
from popcloud.learn.stop import interrupts

Table = dict[str, Any]


@dataclass(frozen=True)
class SceneResult:
    """What a run came to; of the best network of the last stage.

    best_epoch    after how many epochs of the run: the first of the stage's best on the validation scenes
    validation    `measured` of the validation scenes, whole, with the recipe's views; None without any
    test          the same of the test scenes
    stages        name, epochs, seconds and best validation mean IoU of each stage
    seconds       of training and validation, over all resumed parts
    checkpoint    path of the best network
    """

    best_epoch: int
    validation: Table | None
    test: Table | None
    stages: list[Table]
    seconds: float
    checkpoint: Path


def train(
    recipe: SceneRecipe,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Reporter | None = None,
    stop: Callable[[], bool] | None = None,
) -> SceneResult:
    """Train as the recipe says, stage after stage, and write everything to the folder `out`.

    resume    go on with the run in `out`; its recipe must be this one (but for the fields in run.MAY_DIFFER)
    progress  who is told how it goes
    stop      asked after each batch; once it says True the run is saved and ends with Stopped, as after Ctrl-C
    Raises FileError if `out` can't be written or has a run already, RecipeError for another recipe than the run's,
    CheckpointError if there is nothing to resume, DatasetError and CloudError for scenes that can't be used,
    TrainingError if the loss is not finite, Stopped.
    """
    folder, reporter = Path(out), progress or Silent()
    check_device(recipe.device)
    if recipe.tensorboard:
        journal.check_tensorboard()
    open_folder(folder, recipe, resume)
    with interrupts() as pressed, settings(seed=recipe.seed, threads=recipe.threads, device=recipe.device):
        run = begin(recipe, folder)
        try:
            with Loader(run.data.shop, recipe.workers) as loader:
                _epochs(run, loader, reporter, lambda: pressed() or (stop is not None and stop()))
            return _finish(run)
        except KeyboardInterrupt:  # a second Ctrl-C, or one where we could install no handler: `last` is still whole
            raise run.stopped() from None
        finally:
            reporter.close()


def _epochs(run: Run, loader: Loader, reporter: Reporter, stopped: Callable[[], bool]) -> None:
    """Train until the last epoch of the last stage is done or `stopped` says True."""
    place, epochs, steps = run.place, stages.total_epochs(run.recipe), len(orders(run, 0))
    log = journal.Journal(run.out, keep=place.epoch, tensorboard=run.recipe.tensorboard)
    reporter.start(epochs, steps, place.epoch * steps + place.batch)
    samples = loader.samples(_remaining(run, epochs))
    try:
        while place.epoch < epochs:
            _train_epoch(run, samples, steps, reporter, stopped)
            line = _close_epoch(run)
            log.add(line)
            ended = stages.now(run.recipe, place.epoch).last_epoch
            place.next_epoch()
            if ended and place.epoch < epochs:
                hand_over(run)
            run.signs = weight_signs(run.model)
            run.save()
            reporter.epoch(line)
    finally:
        log.close()


def _remaining(run: Run, epochs: int) -> Iterator[Any]:
    """Yield what is left to do as batches to make, from the run's place at the first call to its end."""
    first, done = run.place.epoch, run.place.batch
    for epoch in range(first, epochs):
        yield from orders(run, epoch)[done if epoch == first else 0 :]


def _train_epoch(
    run: Run, samples: Iterator[Sample], steps: int, reporter: Reporter, stopped: Callable[[], bool]
) -> None:
    """Take the steps of the current epoch that are not done yet."""
    place, recipe = run.place, run.recipe
    at = stages.now(recipe, place.epoch)
    set_progress(run.model, at.epoch, at.epochs)
    stages.set_rates(run.optimizer, stages.rate_factor(recipe, at))
    run.model.train()
    while place.batch < steps:
        began = time.monotonic()
        _step(run, next(samples), at)
        place.batch += 1
        place.epoch_seconds += time.monotonic() - began
        seen = max(place.clouds, 1)
        reporter.batch(place.epoch, place.batch - 1, place.loss / seen, place.right / seen)
        if stopped():
            run.save()
            raise run.stopped()
        if recipe.save_every and place.batch % recipe.save_every == 0:
            run.save()


def _step(run: Run, made: Sample, at: stages.Now) -> None:
    """Take one step on a batch and count what the network answered for its labelled sites."""
    place, recipe, data = run.place, run.recipe, run.data
    x, pyramid = operands(made, recipe.device)
    labels = torch.from_numpy(made.labels).to(recipe.device)
    logits = run.model(x, pyramid)
    loss = losses.cross_entropy(logits, labels, data.weights, recipe.label_smoothing)
    if at.stage.search:
        loss = loss + recipe.confidence_weight * confidence(run.model, recipe.confidence_kind)
    if data.teacher is not None:
        with torch.no_grad():
            taught = data.teacher(x, pyramid)
        loss = loss + recipe.distill * distillation(logits, taught, recipe.temperature)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(f"{run.where()}: the loss is {value}; {run.advice()}")
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    after_step(run.model, run.optimizer)
    if at.stage.weights == "binary":
        stages.clip_weights(run.model)
    known = int((labels != IGNORE).sum())
    place.loss += value * known
    place.right += int((logits.detach().argmax(dim=1) == labels).sum())
    place.clouds += known


def _close_epoch(run: Run) -> Table:
    """Validate, keep the network if it is the stage's best so far, and return the epoch's line of the log."""
    began, place, recipe, validation = time.monotonic(), run.place, run.recipe, run.data.validation
    at = stages.now(recipe, place.epoch)
    checked: dict[str, float] = {}
    if len(validation):
        metrics = evaluate(run.model, validation)
        checked = {"validation": metrics.mean_iou, "validation_accuracy": metrics.overall}
    # Without validation scenes the stage's last epoch counts: choosing by the training scenes would choose by noise.
    if checked["validation"] > place.best if checked else at.last_epoch:
        run.save_best(checked, stages.best_file(recipe, at.number))
        place.best, place.best_epoch = checked.get("validation", -1.0), place.epoch + 1
    shares = positive_shares(run.model, *operands(_seen(run), recipe.device))
    place.epoch_seconds += time.monotonic() - began
    return _line(run, at, checked, shares)


def _seen(run: Run) -> Sample:
    """Return the scene on which inputs of binary layers are watched."""
    whole = run.data.validation if len(run.data.validation) else Whole(run.data.shop, run.data.shop.scenes)
    return whole.sample(0)


def _line(run: Run, at: stages.Now, checked: dict[str, float], shares: dict[str, float]) -> Table:
    """Return the log's line of the epoch that just ended.

    epoch counts from 1 through all stages; loss and train (accuracy) are means over labelled sites, while the weights
    moved; validation (mean IoU), validation_accuracy and best (validation of the stage so far) are over points, and
    left out without validation scenes; flipped, positive as popcloud.learn.train has them; in a search undecided is
    the mean entropy of the choices, and shifts is what each group of each layer would choose now.
    """
    place = run.place
    now = weight_signs(run.model)
    seen = max(place.clouds, 1)
    return {
        "epoch": place.epoch + 1,
        "stage": at.stage.name,
        "loss": place.loss / seen,
        "train": place.right / seen,
        **checked,
        **({"best": place.best} if checked else {}),
        "lr": run.optimizer.param_groups[0]["lr"],
        "seconds": round(place.epoch_seconds, 3),
        "flipped": {name: float((signs != run.signs[name]).float().mean()) for name, signs in now.items()},
        "positive": shares,
        **(stages.search_state(run.model) if at.stage.search else {}),
    }


def _finish(run: Run) -> SceneResult:
    """Measure the best network, and write and return the result."""
    path = run.out / checkpoint.BEST
    best = checkpoint.load(path)
    model, views = best.model.to(run.recipe.device), run.recipe.views
    result = SceneResult(
        best_epoch=best.epoch,
        validation=measured(model, run.data.validation, views),
        test=measured(model, run.data.test, views),
        stages=_stages(run),
        seconds=round(run.place.seconds, 3),
        checkpoint=path,
    )
    plain = asdict(result) | {"checkpoint": path.name}
    full = {"recipe": run.recipe.model_dump(mode="json"), "result": plain, "torch": str(torch.__version__)}
    write_json(run.out / RESULT, full | {"threads": run.place.threads})
    return result


def _stages(run: Run) -> list[Table]:
    """Return what each stage came to, read off the log."""
    lines = journal.read(run.out / journal.LOG)
    table: list[Table] = []
    for stage in run.recipe.plan():
        own = [line for line in lines if line["stage"] == stage.name]
        best = max((line["validation"] for line in own if "validation" in line), default=None)
        epochs, seconds = len(own), round(sum(line["seconds"] for line in own), 3)
        table.append({"name": stage.name, "epochs": epochs, "seconds": seconds, "validation": best})
    return table
