from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from popcloud.data import DATASETS
from popcloud.errors import CheckpointError, DatasetError, FileError, RecipeError, TrainingError
from popcloud.learn import checkpoint, classification, journal
from popcloud.learn import train as training
from popcloud.learn.progress import Silent
from popcloud.learn.stop import Stopped
from popcloud.learn.train import RECIPE, RESULT, learning_rate, train


class Seen(Silent):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.began: list[tuple[int, int, int]] = []
        self.batches: list[tuple[int, int]] = []
        self.lines: list[dict] = []
        self.closed = 0

    def start(self, epochs: int, batches: int, done: int) -> None:
        self.began.append((epochs, batches, done))

    def batch(self, epoch: int, batch: int, loss: float, accuracy: float) -> None:
        self.batches.append((epoch, batch))

    def epoch(self, line: dict) -> None:
        self.lines.append(line)

    def close(self) -> None:
        self.closed += 1


def lines(out: Path) -> list[dict]:
    return journal.read(out / journal.LOG)


def test_a_run_learns_and_says_what_it_did(tiny, tmp_path):
    recipe = tiny(epochs=12, train_size=120, test_size=60, lr=0.01)
    seen = Seen()
    result = train(recipe, tmp_path / "run", progress=seen)
    assert result.test > 0.6  # a third is chance
    assert seen.began == [(12, 14, 0)]
    assert seen.batches == [(epoch, batch) for epoch in range(12) for batch in range(14)]
    assert seen.lines == lines(tmp_path / "run")
    assert seen.closed == 1
    assert [line["epoch"] for line in seen.lines] == list(range(1, 13))
    assert seen.lines[-1]["loss"] < seen.lines[0]["loss"]


def test_the_log_has_the_figures_of_each_epoch(tiny, tmp_path):
    train(tiny(), tmp_path / "run")
    for line in lines(tmp_path / "run"):
        assert line["flipped"].keys() == line["positive"].keys() == {"conv2", "fc1"}
        assert all(0 <= share <= 1 for share in [*line["flipped"].values(), *line["positive"].values()])
        assert 0 <= line["validation"] <= line["best"] <= 1
        assert 0 <= line["validation_mean_class"] <= 1
        assert line["seconds"] > 0
    assert lines(tmp_path / "run")[0]["lr"] == 0.001
    assert any(share > 0 for line in lines(tmp_path / "run") for share in line["flipped"].values())


def test_flips_are_counted_from_the_epoch_before(tiny, tmp_path):
    recipe = tiny("schedule=constant", epochs=1, lr=0.05)
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(recipe, out, stop=lambda: True)
    before = checkpoint.read(out / checkpoint.LAST)[0]["signs.fc1"]
    train(recipe, out, resume=True)
    after = checkpoint.read(out / checkpoint.LAST)[0]["signs.fc1"]
    assert lines(out)[0]["flipped"]["fc1"] == pytest.approx(float((before != after).float().mean()))


def test_the_best_epoch_is_the_first_of_the_best(tiny, tmp_path):
    result = train(tiny(epochs=8, lr=0.01), tmp_path / "run")
    accuracies = [line["validation"] for line in lines(tmp_path / "run")]
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    assert result.validation == max(accuracies)
    trained = checkpoint.load(tmp_path / "run")
    assert (trained.epoch, trained.metrics["validation"]) == (result.best_epoch, result.validation)


def test_without_validation_the_last_epoch_counts(tiny, tmp_path):
    result = train(tiny(validation=0), tmp_path / "run")
    assert (result.best_epoch, result.validation) == (3, None)
    assert "validation" not in lines(tmp_path / "run")[0]
    last, _ = checkpoint.read(tmp_path / "run" / checkpoint.LAST)
    best, _ = checkpoint.read(tmp_path / "run" / checkpoint.BEST)
    assert all(torch.equal(last[name], tensor) for name, tensor in best.items())


def test_the_result_holds_the_recipe_that_made_it(tiny, tmp_path):
    recipe = tiny()
    result = train(recipe, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / RESULT).read_text())
    assert stored["recipe"] == recipe.model_dump(mode="json")
    assert stored["result"]["test"] == result.test
    assert stored["result"]["best_epoch"] == result.best_epoch


def test_the_test_set_is_evaluated_once(tiny, tmp_path, monkeypatch):
    sizes = []
    evaluate = classification.evaluate

    def counting(model, clouds, batch):
        sizes.append(len(clouds))
        return evaluate(model, clouds, batch)

    monkeypatch.setattr(classification, "evaluate", counting)
    train(tiny(test_size=17), tmp_path / "run")
    assert sizes == [3, 3, 3, 17]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_moves_the_weights(tiny, tmp_path, optimizer):
    seen = Seen()
    train(tiny(optimizer=optimizer, lr=0.02, weight_decay=0.01, epochs=6), tmp_path / "run", progress=seen)
    assert seen.lines[-1]["loss"] < seen.lines[0]["loss"]


def test_schedules(tiny):
    def rates(schedule: str) -> list[float]:
        recipe = tiny(schedule=schedule, epochs=4, lr=0.1, step_epochs=2, step_factor=0.5)
        return [learning_rate(recipe, epoch) for epoch in range(4)]

    assert rates("constant") == [0.1] * 4
    assert rates("step") == [0.1, 0.1, 0.05, 0.05]
    assert rates("cosine") == pytest.approx([0.1, 0.08535534, 0.05, 0.01464466])


def test_equal_recipes_give_equal_bits_and_another_seed_does_not(tiny, tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        train(tiny(seed=seed), tmp_path / name)
    a, b, c = (checkpoint.read(tmp_path / name / checkpoint.LAST)[0] for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["model.conv1.weight"], c["model.conv1.weight"])


def test_training_leaves_no_global_trace(tiny, tmp_path, threads):
    threads(2)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(tiny(threads=1), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path, monkeypatch):
    step, count = training._step, []

    def poisoned(run, rows):
        count.append(1)
        if len(count) == 6:  # 27 training clouds, 4 batches: the second batch of the second epoch
            with torch.no_grad():
                run.model.classifier.weight[0, 0] = float("nan")
        step(run, rows)

    monkeypatch.setattr(training, "_step", poisoned)
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"epoch 2, batch 2: the loss is nan; try a smaller lr") as caught:
        train(tiny(), out)
    assert "after 1 epochs and 0 batches" in str(caught.value)
    tensors, record = checkpoint.read(out / checkpoint.LAST)
    assert record["place"]["epoch"] == 1
    assert torch.isfinite(tensors["model.classifier.weight"]).all()


def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path, monkeypatch):
    def overflow(model, _):
        with torch.no_grad():
            model.classifier.weight[0, 0] = float("inf")

    monkeypatch.setattr(training, "after_step", overflow)
    with pytest.raises(TrainingError, match=r"classifier\.weight is not finite"):
        train(tiny(save_every=1), tmp_path / "run")
    assert torch.isfinite(checkpoint.read(tmp_path / "run" / checkpoint.LAST)[0]["model.classifier.weight"]).all()


def test_a_path_that_cannot_be_written_is_told_at_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "begin", lambda *_: pytest.fail("training began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't be written"):
        train(tiny(), tmp_path / "file" / "run")
    with pytest.raises(FileError, match="can't be written"):
        train(tiny(), tmp_path / "file")


def test_a_run_is_not_overwritten(tiny, tmp_path):
    train(tiny(), tmp_path / "run")
    before = (tmp_path / "run" / checkpoint.BEST).read_bytes()
    with pytest.raises(FileError, match="has a run already; resume it"):
        train(tiny(seed=1), tmp_path / "run")
    assert (tmp_path / "run" / checkpoint.BEST).read_bytes() == before


def test_a_run_that_found_no_data_can_be_started_again(tiny, tmp_path):
    with pytest.raises(DatasetError):
        train(tiny(dataset="modelnet40", root=tmp_path / "none"), tmp_path / "run")
    train(tiny(), tmp_path / "run")
    assert json.loads((tmp_path / "run" / RECIPE).read_text()) == tiny().model_dump(mode="json")


def test_nothing_to_resume(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(tiny(), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_gpu_that_is_not_there(tiny, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RecipeError, match="set device=cpu"):
        train(tiny(device="cuda"), tmp_path / "run")


def test_too_few_clouds_to_train_on(tiny, tmp_path, monkeypatch):
    full = DATASETS["blobs"]
    one = np.zeros(1, dtype=np.int64)
    monkeypatch.setitem(DATASETS, "blobs", lambda *args, **kwargs: full(*args, **kwargs).subset(one))
    with pytest.raises(RecipeError, match="2 clouds or more"):
        train(tiny(), tmp_path / "run")
