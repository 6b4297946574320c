"""Runs through all stages: what they write, and that resume equals uninterrupted wherever they were cut."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch

from popcloud.cloud import IGNORE, PointCloud, SceneSet
from popcloud.data import LABELLED_SPLITS, SCENES
from popcloud.errors import CheckpointError, DatasetError, FileError, RecipeError, TrainingError
from popcloud.learn import checkpoint, journal
from popcloud.learn.folder import RESULT
from popcloud.learn.scenes import train as training
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.learn.scenes.run import load_scenes
from popcloud.learn.scenes.train import train
from popcloud.learn.stop import Stopped

from .conftest import corner, corners

VARIANTS = {"real": 1, "xnor": 1, "bireal": 1, "react": 1, "baseline": 2, "manual": 2, "net": 3}


class Killed(BaseException):
    """Stands for a kill: nothing in the library catches it."""


def contents(out) -> dict[str, object]:
    """Everything that has to be the same; what depends on the clock is left out."""
    found: dict[str, object] = {}
    for path in sorted(out.glob("*.safetensors")):
        tensors, record = checkpoint.read(path)
        found[path.name] = {key: (t.dtype, tuple(t.shape), t.numpy().tobytes()) for key, t in tensors.items()}
        place = {k: v for k, v in record.get("place", {}).items() if "seconds" not in k}
        recipe = {k: v for k, v in record["recipe"].items() if k != "workers"}
        found[path.name + " record"] = record | {"place": place, "recipe": recipe}
    found["log"] = [{k: v for k, v in line.items() if k != "seconds"} for line in journal.read(out / journal.LOG)]
    result = json.loads((out / RESULT).read_text())["result"]
    table = [{k: v for k, v in stage.items() if k != "seconds"} for stage in result["stages"]]
    found["result"] = {k: v for k, v in result.items() if k != "seconds"} | {"stages": table}
    return found


def stop_after(count: int):
    """Return a stop function that says True at its `count`-th call and after."""
    calls: list[int] = []
    return lambda: len(calls.append(1) or calls) >= count


@pytest.mark.parametrize(("variant", "count"), VARIANTS.items())
def test_each_variant_goes_through_its_stages(tiny, tmp_path, variant, count):
    recipe = tiny(variant=variant, epochs=1)
    result = train(recipe, tmp_path)
    names = [stage.name for stage in recipe.plan()]
    assert len(names) == count
    assert [line["stage"] for line in journal.read(tmp_path / journal.LOG)] == names
    assert [stage["name"] for stage in result.stages] == names
    assert sorted(path.name for path in tmp_path.glob("best*")) == sorted(
        ["best.safetensors", *(f"best_{name}.safetensors" for name in names[:-1])]
    )
    best = checkpoint.load(tmp_path)
    assert best.recipe == recipe
    assert best.features == ("red", "other")
    assert best.metrics["validation"] == result.validation["mean_iou"]
    assert result.test["points"] == 81


@pytest.mark.parametrize(("variant", "cuts"), [("net", (1, 4, 3, 2)), ("baseline", (3, 1, 2)), ("real", (2, 1))])
def test_stopped_and_resumed_equals_uninterrupted(tiny, tmp_path, variant, cuts):
    recipe = tiny(variant=variant)
    train(recipe, tmp_path / "whole")
    cut = tmp_path / "cut"
    for number, count in enumerate(cuts):
        with pytest.raises(Stopped):
            train(recipe, cut, resume=number > 0, stop=stop_after(count))
    train(recipe, cut, resume=True)
    assert contents(cut) == contents(tmp_path / "whole")


def test_a_kill_around_any_file_is_survived_also_between_stages(tiny, tmp_path, monkeypatch):
    recipe = tiny(variant="baseline", epochs=1, train_scenes=2, test_scenes=1)
    train(recipe, tmp_path / "whole")
    wanted = contents(tmp_path / "whole")
    replace = os.replace
    for number in range(2, 100):  # the first file is recipe.json: before it there is no run
        calls: list[int] = []

        def killing(source, target, number=number, calls=calls):
            calls.append(1)
            replace(source, target)
            if len(calls) == number:
                raise Killed

        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killing)
            try:
                train(recipe, out)
            except Killed:
                pass
            else:
                break
        train(recipe, out, resume=True)
        assert contents(out) == wanted, number
    assert number == 9  # recipe, last, log, a best and a last a stage, result; the ninth is never written


def test_workers_change_no_bit_and_may_change_at_resume(tiny, tmp_path):
    train(tiny(variant="baseline"), tmp_path / "none")
    with pytest.raises(Stopped):
        train(tiny(variant="baseline", workers=2), tmp_path / "two", stop=stop_after(5))
    train(tiny(variant="baseline", workers=1), tmp_path / "two", resume=True)
    assert contents(tmp_path / "two") == contents(tmp_path / "none")


def test_a_stage_starts_from_the_best_of_the_one_before(tiny, tmp_path, monkeypatch):
    scores = iter([0.5, 0.2, 0.3, 0.1])
    monkeypatch.setattr(training, "evaluate", lambda *_: Scored(next(scores)))
    seen: list[dict[str, torch.Tensor]] = []
    hand_over = training.hand_over

    def watched(run):
        hand_over(run)
        seen.append({name: tensor.clone() for name, tensor in run.model.state_dict().items()})

    monkeypatch.setattr(training, "hand_over", watched)
    result = train(tiny(variant="baseline"), tmp_path)
    first = checkpoint.read(tmp_path / "best_real_weights.safetensors")
    assert first[1]["epoch"] == 1
    assert first[1]["metrics"]["validation"] == 0.5
    assert all(torch.equal(seen[0][name.removeprefix("model.")], tensor) for name, tensor in first[0].items())
    assert result.best_epoch == 3  # the first of its stage, though 0.5 before it was higher
    assert [stage["validation"] for stage in result.stages] == [0.5, 0.3]


class Scored:
    """Metrics of which the mean IoU is given."""

    def __init__(self, mean_iou: float):
        self.mean_iou = self.overall = mean_iou


def test_it_learns(tiny, tmp_path):
    stages = "stages=[{name: quick, lr: 0.02, weights: real}]"
    recipe = tiny(stages, "augment.crop=0", variant="real", epochs=8, repeat=4)
    assert train(recipe, tmp_path).test["mean_iou"] > 0.8  # one feature gives the class away; chance is below 0.25


def test_the_search_tells_how_undecided_it_is(tiny, tmp_path):
    train(tiny(variant="net", candidates="faces", epochs=1, logits_lr=0.1), tmp_path)
    search, *others = journal.read(tmp_path / journal.LOG)
    assert 0 < search["undecided"] <= np.log(7) + 1e-6
    assert all(len(shifts) == 2 and len(shifts[0]) == 3 for shifts in search["shifts"].values())
    assert not any("undecided" in line for line in others)
    assert all(0 <= share <= 1 for line in others for share in line["flipped"].values())


def test_weights_stay_in_range_in_the_binary_stage(tiny, tmp_path):
    train(tiny("stages=[{name: b, lr: 1.0}]", variant="baseline", schedule="constant", validation=0), tmp_path)
    tensors, _ = checkpoint.read(tmp_path / "best.safetensors")
    latent = tensors["model.encoder.0.layers.0.conv.weight"]
    assert latent.abs().max() == 1


def test_a_teacher_changes_what_is_learnt(tiny, tmp_path):
    train(tiny(variant="real", epochs=1), tmp_path / "teacher")
    train(tiny(variant="net", epochs=1), tmp_path / "alone")
    train(tiny(variant="net", epochs=1, teacher=tmp_path / "teacher"), tmp_path / "taught")
    alone, taught = (checkpoint.read(tmp_path / name / "best.safetensors")[0] for name in ("alone", "taught"))
    assert any(not torch.equal(alone[name], taught[name]) for name in alone)


def test_a_teacher_must_be_a_twin(tiny, tmp_path):
    train(tiny(variant="real", epochs=1), tmp_path / "teacher")
    with pytest.raises(RecipeError, match=r"teacher .*: expected edge 0\.5, found 0\.25"):
        train(tiny(edge=0.5, teacher=tmp_path / "teacher"), tmp_path / "taught")


def test_without_validation_scenes_the_last_epoch_counts(tiny, tmp_path):
    result = train(tiny(variant="baseline", validation=0), tmp_path)
    assert (result.best_epoch, result.validation) == (4, None)
    assert "best" not in journal.read(tmp_path / journal.LOG)[0]


@pytest.mark.parametrize(
    ("splits", "validation", "expected"),
    [
        (("train", "val", "test"), None, (3, "val", "test")),
        (("train", "val", "test"), 0.3, (2, "train", "test")),
        (("train", "val"), None, (3, "val", None)),
        (("train", "val"), 0.3, (2, "train", "val")),
        (("train", "test"), None, (2, "train", "test")),
        (("train", "test"), 0, (3, None, "test")),
    ],
)
def test_which_scenes_choose_the_epoch_and_which_test(tiny, monkeypatch, splits, validation, expected):
    recipe = tiny() if validation is None else tiny(validation=validation)
    monkeypatch.setitem(LABELLED_SPLITS, "corners", splits)
    training_scenes, chosen, tested = load_scenes(recipe)
    found = tuple(scenes.names[0].rstrip("0123456789") if len(scenes) else None for scenes in (chosen, tested))
    assert (len(training_scenes), *found) == expected
    assert not set(chosen.names) & set(training_scenes.names)


def test_a_batch_without_a_label_is_survived(tiny, tmp_path, monkeypatch):
    def sparse(root, split, **how):
        scenes = corners(root, split, **how)
        cloud = corner(np.random.default_rng(0), 30)
        labels = np.where(np.arange(30) == 0, 1, IGNORE)  # its one label is lost in the majority of no votes, or drops
        lonely = PointCloud(cloud.xyz, cloud.features, labels)
        return SceneSet((*scenes.clouds, lonely), (*scenes.names, "lonely"), scenes.classes, scenes.features)

    monkeypatch.setitem(SCENES, "corners", sparse)
    result = train(tiny("augment.dropout=0.99", "augment.crop=0", variant="real", batch=1), tmp_path)
    assert np.isfinite(result.test["mean_iou"])


def test_a_scene_without_labels_is_named_before_any_time_is_spent(tiny, tmp_path, monkeypatch):
    def unlabelled(root, split, **how):
        scenes = corners(root, split, **how)
        bare = tuple(PointCloud(cloud.xyz, cloud.features) for cloud in scenes.clouds)
        return scenes if split != "test" else SceneSet(bare, scenes.names, scenes.classes, scenes.features)

    monkeypatch.setitem(SCENES, "corners", unlabelled)
    with pytest.raises(DatasetError, match="test scene test0: has no labels"):
        train(tiny(), tmp_path)


def test_a_group_count_that_does_not_divide_is_refused(tiny, tmp_path):
    with pytest.raises(RecipeError, match="groups: expected a divisor of the 4 output channels, found 3"):
        train(tiny(variant="net", groups=3), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training.losses, "cross_entropy", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"epoch 1, batch 1: the loss is nan; try a smaller lr"):
        train(tiny(), tmp_path)
    assert checkpoint.read(tmp_path / checkpoint.LAST)[1]["place"]["epoch"] == 0


def test_folders_and_recipes_of_other_runs_are_refused(tiny, tmp_path):
    train(tiny(variant="real", epochs=1), tmp_path / "run")
    with pytest.raises(FileError, match="has a run already"):
        train(tiny(), tmp_path / "run")
    with pytest.raises(RecipeError, match="different in variant, edge"):
        train(tiny(variant="xnor", epochs=1, edge=0.3), tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(tiny(), tmp_path / "none", resume=True)


def test_ctrl_c_saves_after_the_batch(tiny, tmp_path, monkeypatch):
    recipe = tiny(variant="baseline", workers=1)
    step, calls = training._step, []

    def pressing(*args):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step", pressing)
        with pytest.raises(Stopped, match="saved after 1 epochs and 1 batches"):
            train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut", resume=True)
    train(recipe, tmp_path / "whole")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_run_resumes_to_itself(tiny, tmp_path):
    recipe: SceneRecipe = tiny(variant="real")
    first = train(recipe, tmp_path)
    before = contents(tmp_path)
    assert train(recipe, tmp_path, resume=True) == first
    assert contents(tmp_path) == before
