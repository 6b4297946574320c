"""The command line: every command on a small trained network, and every mistake a user can make."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from popcloud import Session, __version__, native
from popcloud.cli import main
from popcloud.data import DATASETS
from popcloud.learn import checkpoint, progress
from popcloud.packed.file import read, write
from programs import sealed

COMMANDS = ("train", "eval", "pack", "verify", "run", "show", "bench", "summary")
CLASSES = ("sphere", "plate", "cross")
POINTS = 64
TINY = [
    "dataset=shapes",
    f"classes=[{', '.join(CLASSES)}]",
    f"points={POINTS}",
    "train_size=90",
    "test_size=30",
    "epochs=4",
    "batch=10",
    "threads=1",
    "lr=0.003",
]
QUICK = ["train_size=12", "test_size=6", "epochs=2", "batch=5"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So small networks only lose by a second thread of PyTorch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained run, its packed model, and some clouds as files."""
    folder = tmp_path_factory.mktemp("cli")
    assert main(["train", *TINY, "--out", str(folder / "run")]) == 0
    assert main(["pack", str(folder / "run"), str(folder / "model.popc"), "--note", "of the tests"]) == 0
    clouds = DATASETS["shapes"](None, "test", points=200, seed=5, classes=CLASSES, clouds=3)
    files = []
    for i, xyz in enumerate(clouds.xyz):
        files.append(folder / f"cloud{i}.npy")
        np.save(files[-1], xyz)
    truth = [CLASSES[label] for label in clouds.labels]
    return SimpleNamespace(folder=folder, run=folder / "run", model=folder / "model.popc", files=files, truth=truth)


@pytest.fixture
def call(capsys):
    """Return a function that runs a command and returns its exit code, stdout and stderr."""

    def run(*argv):
        capsys.readouterr()
        code = main([str(word) for word in argv])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


def complaint(done, code: int, words: str) -> None:
    """Assert that a command ended with a code and one line on stderr."""
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("popcloud: note: ")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("popcloud: ")
    assert re.search(words, lines[0]), lines[0]


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    assert f"usage: popcloud {command}" in text
    assert f"  popcloud {command} " in text.partition("example:")[2]
    assert "exit codes:" in text
    assert "None" not in text


def test_the_top_names_all_commands_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    assert all(re.search(rf"^    {command} ", text, re.M) for command in COMMANDS)
    codes = [int(line.split()[0]) for line in text.partition("exit codes:")[2].splitlines() if line.strip()]
    assert codes == [*range(11), 130, 141]


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"popcloud {__version__}\n"


def test_it_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "popcloud", "summary", "none.popc"], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.startswith("popcloud: none.popc: ")


# --- train and eval ---------------------------------------------------------------------------------------------------


def test_train_writes_a_run_and_says_what_is_next(call, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("\n".join(field.replace("=", ": ", 1) for field in TINY))
    done = call("train", recipe, *QUICK[:2], "--out", tmp_path / "run", *QUICK[2:])
    assert done.code == 0
    assert "best epoch" in done.out
    assert f"popcloud pack {tmp_path / 'run'} model.popc" in done.out
    assert len(done.err.splitlines()) == 2  # a line an epoch, as this is no terminal
    made = checkpoint.load(tmp_path / "run")
    assert (made.recipe.epochs, made.recipe.points, made.classes) == (2, POINTS, CLASSES)


def test_train_gives_json_to_a_script(call, tmp_path):
    done = call("train", *TINY, *QUICK, "--out", tmp_path / "run", "--json")
    found = json.loads(done.out)
    assert found["test"] == json.loads((tmp_path / "run" / "result.json").read_text())["result"]["test"]
    assert Path(found["checkpoint"]).is_file()


def test_train_lists_the_fields_of_a_recipe(call):
    done = call("train", "--fields")
    assert done.code == 0
    assert "| binarizer | lsr |" in done.out
    assert "augment.jitter" in done.out


def test_ctrl_c_saves_and_the_command_it_names_goes_on(call, tmp_path, monkeypatch):
    class Pressed(progress.Silent):
        def batch(self, epoch, batch, loss, accuracy):
            if (epoch, batch) == (1, 0):
                signal.raise_signal(signal.SIGINT)

    out = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(progress, "reporter", lambda stream: Pressed())
        stopped = call("train", *TINY, *QUICK, "--out", out)
    complaint(stopped, 130, "saved after 1 epochs and 1 batches.*: popcloud train --resume --out '")
    assert call("train", "--resume", "--out", out).code == 0
    assert call("train", *TINY, *QUICK, "--out", tmp_path / "straight").code == 0
    one, other = (checkpoint.read(folder / "last.safetensors")[0] for folder in (out, tmp_path / "straight"))
    assert one.keys() == other.keys()
    assert all(one[name].numpy().tobytes() == other[name].numpy().tobytes() for name in one)


def test_ctrl_c_elsewhere_says_so(call, made, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("popcloud.summary.summarize", interrupted)
    complaint(call("summary", made.model), 130, "stopped")


def test_eval_of_a_model_is_that_of_its_checkpoint(call, made):
    by_torch, by_engine = (json.loads(call("eval", path, "--json").out) for path in (made.run, made.model))
    assert by_torch["by"] == "PyTorch"
    assert by_engine["by"].startswith("the engine")
    assert by_torch["clouds"] == by_engine["clouds"] == 30
    assert by_torch["overall"] == by_engine["overall"] > 0.4  # a third is chance
    assert by_torch["classes"] == by_engine["classes"]
    result = json.loads((made.run / "result.json").read_text())["result"]
    assert by_torch["overall"] == pytest.approx(result["test"])
    assert by_torch["mean_class"] == pytest.approx(result["test_mean_class"])


def test_eval_takes_other_splits_and_fewer_clouds(call, made):
    assert json.loads(call("eval", made.model, "--split", "train", "--json").out)["clouds"] == 90
    done = call("eval", made.run, "--clouds", 2)
    assert "on 2 clouds of the test split" in done.out
    assert "mean-class accuracy" in done.out


# --- pack and verify --------------------------------------------------------------------------------------------------


def test_pack_keeps_what_one_must_know(call, made, tmp_path):
    done = json.loads(call("pack", made.run, tmp_path / "m.popc", "--json").out)
    program = read(tmp_path / "m.popc")
    assert done["bytes"] == (tmp_path / "m.popc").stat().st_size
    # conv and fc weights, gain and shift of batch norm, the classifier's bias: 4 bytes each
    weights = 3 * 64 + 64 * 128 + 128 * 1024 + 1024 * 512 + 512 * 256 + 256 * 3
    assert done["float32_bytes"] == 4 * (weights + 2 * (64 + 128 + 1024 + 512 + 256) + 3)
    assert done["ratio"] == pytest.approx(done["float32_bytes"] / done["bytes"])
    assert (program.points, program.normalize, program.classes) == (POINTS, "unit_sphere", CLASSES)
    assert json.loads(program.meta["recipe"])["epochs"] == 4
    assert "note" not in program.meta
    assert read(made.model).meta["note"] == "of the tests"
    result = json.loads((made.run / "result.json").read_text())["result"]
    assert json.loads(program.meta["accuracy"])["test"] == result["test"]
    assert "made-up shapes" in program.meta["licence"]


def test_pack_of_the_last_state_claims_no_test_accuracy(call, made, tmp_path):
    assert call("pack", made.run / "last.safetensors", tmp_path / "m.popc").code == 0
    assert "test" not in json.loads(read(tmp_path / "m.popc").meta["accuracy"])


def test_pack_twice_gives_the_same_bytes(call, made, tmp_path):
    for name in ("a.popc", "b.popc"):
        assert "times as many" in call("pack", made.run, tmp_path / name).out
    assert (tmp_path / "a.popc").read_bytes() == (tmp_path / "b.popc").read_bytes()


def test_verify_shows_a_table_per_kernels(call, made):
    done = call("verify", made.run, made.model, "--clouds", 4, "--kernels", "all")
    assert done.code == 0
    assert re.findall("^kernels: (.*)", done.out, re.M) == native.engine().available()
    assert "answers: 4 of 4 clouds" in done.out
    assert "program: the one that the checkpoint exports to" in done.out
    assert "DIFFERS" not in done.out


@pytest.mark.parametrize("kernels", ["reference", "portable"])
def test_verify_gives_json_to_a_script(call, made, kernels):
    done = call("verify", made.run, made.model, "--clouds", 2, "--kernels", kernels, "--threads", 2, "--json")
    found = json.loads(done.out)
    assert found["ok"]
    assert found["same_program"]
    report = found["kernels"][kernels]
    assert (report["clouds"], report["agreeing"], report["first"]) == (2, 2, None)
    assert {line["kind"] for line in report["steps"]} == {"bits", "floats"}


def test_verify_says_when_there_are_fewer_clouds(call, made, monkeypatch):
    shapes = DATASETS["shapes"]
    monkeypatch.setitem(DATASETS, "few", lambda root, split, **how: shapes(None, split, **how | {"clouds": 4}))
    done = call("verify", made.run, made.model, "--dataset", "few", "--clouds", 9)
    assert done.code == 0
    assert "the split has 4 clouds, not 9" in done.err
    assert "answers: 4 of 4 clouds" in done.out


def test_verify_reads_another_data_set(call, made):
    done = call("verify", made.run, made.model, "--dataset", "modelnet40", "--root", made.folder)
    complaint(done, 4, "holds no form of ModelNet40")


def test_verify_finds_the_layer_that_differs(call, made, tmp_path):
    program = read(made.model)
    index = next(i for i, step in enumerate(program.steps) if "limit" in step.blobs)
    limit = program.steps[index].blobs["limit"].copy()
    limit[:] = np.where(limit < 32, 64, -1)  # of 64 signs: what mostly was -1 is always +1, and the other way round
    program.steps[index].blobs["limit"] = limit
    write(program, tmp_path / "wrong.popc")
    done = call("verify", made.run, tmp_path / "wrong.popc", "--clouds", 3)
    name = program.values[program.steps[index].output].name
    complaint(done, 10, rf"not what the checkpoint exports to: step {index}, {re.escape(name)} .*limit differs in")
    assert f"first layer that differs: {name}" in done.out
    found = json.loads(call("verify", made.run, tmp_path / "wrong.popc", "--clouds", 3, "--json").out)
    assert not found["ok"]
    assert [report["first"] for report in found["kernels"].values()] == [name]


def test_verify_needs_the_checkpoint_of_the_model(call, made, tmp_path):
    assert call("train", *TINY, *QUICK, "binarizer=real", "pool=max", "--out", tmp_path / "real").code == 0
    complaint(call("verify", tmp_path / "real", made.model), 10, "not what .* exports to: .*; pack it again")
    assert call("train", *TINY, *QUICK, "points=32", "--out", tmp_path / "fewer").code == 0
    complaint(call("verify", tmp_path / "fewer", made.model), 10, "points: the file has 64, the checkpoint 32")


# --- run and show -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", ["reference", "portable"])
def test_run_answers_each_file(call, made, kernels):
    done = call("run", made.model, *made.files, "--top", 2, "--json", "--kernels", kernels, "--threads", 1)
    assert done.code == 0
    session = Session(made.model)
    for found, path in zip(json.loads(done.out), made.files, strict=True):
        wanted = session.probabilities(np.load(path))
        best = np.argsort(-wanted, kind="stable")[:2]
        assert (found["file"], found["points"], found["class"]) == (str(path), 200, session.classes[best[0]])
        assert [entry["class"] for entry in found["top"]] == [session.classes[c] for c in best]
        assert [entry["probability"] for entry in found["top"]] == pytest.approx(wanted[best])


def test_run_prints_a_table(call, made):
    done = call("run", made.model, *made.files)
    lines = done.out.splitlines()
    assert (done.code, done.err, len(lines)) == (0, "", 5)
    assert lines[0].split() == ["file", "class", "points", "probability"]
    assert re.match(rf"{re.escape(str(made.files[0]))}  \w+ +200 +\d+\.\d%", lines[2])


def test_run_goes_on_after_a_bad_file(call, made, tmp_path):
    (tmp_path / "bad.xyz").write_text("1 2 three\n")
    done = call("run", made.model, tmp_path / "bad.xyz", made.files[0], "--json")
    complaint(done, 3, r"bad\.xyz, line 1: expected numbers")
    bad, good = json.loads(done.out)
    assert "expected numbers" in bad["error"]
    assert good["class"] in CLASSES


def test_run_notes_when_points_are_repeated(call, made, tmp_path):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(5, 3)))
    done = call("run", made.model, tmp_path / "few.npy")
    assert done.code == 0
    assert "few.npy: 5 points, the model takes 64: they are repeated" in done.err


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((0, 3)), "at least one point"),
        (np.full((9, 3), np.inf), "9 of 9 points are not finite"),
        (np.zeros((9, 2)), r"bad\.npy: .*\(9, 2\)"),
    ],
    ids=["empty", "not finite", "narrow"],
)
def test_run_refuses_bad_clouds(call, made, tmp_path, points, words):
    np.save(tmp_path / "bad.npy", points)
    complaint(call("run", made.model, tmp_path / "bad.npy"), 3, words)


def test_files_may_stand_anywhere(call, made, tmp_path):
    done = call("run", made.model, made.files[0], "--json", made.files[1], "--top", 1, made.files[2])
    assert [found["file"] for found in json.loads(done.out)] == [str(path) for path in made.files]
    assert "3 clouds\n" in call("show", made.model, "--out", tmp_path / "a.png", *made.files).out


def test_show_draws_files_and_clouds_of_the_data_set(call, made, tmp_path):
    done = call("show", made.model, *made.files, "--truth", *made.truth, "--out", tmp_path / "a.png", "--columns", 2)
    assert done.code == 0
    assert "3 clouds, " in done.out
    assert "2 clouds\n" in call("show", made.model, *made.files[:2], "--out", tmp_path / "b.png").out
    assert "3 clouds, " in call("show", made.model, "--clouds", 3, "--seed", 9, "--out", tmp_path / "c.png").out
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# --- bench and summary ------------------------------------------------------------------------------------------------


def test_bench_measures_each_instruction_set(call, made):
    done = call("bench", made.model, "--repeat", 1, "--threads", 1, "--json")
    found = json.loads(done.out)
    assert (found["points"], found["threads"]) == (POINTS, 1)
    assert list(found["milliseconds"]) == native.engine().available()
    for timing in found["milliseconds"].values():
        assert 0 < timing["first"] <= timing["median"] <= timing["third"]
    assert sum(found["share"].values()) == pytest.approx(1)
    assert [step["op"] for step in found["steps"]] == [step.op.name for step in read(made.model).steps]


def test_bench_prints_tables(call, made):
    done = call("bench", made.model, "--repeat", 1, "--points", 100, "--kernels", "portable")
    assert done.code == 0
    assert "portable" in done.out
    assert "binary product and pool" in done.out
    assert not any(name in done.out for name in native.engine().available() if name != "portable")


def test_summary_adds_up_to_the_file(call, made):
    found = json.loads(call("summary", made.model, "--json").out)
    assert found["total"]["bytes"] == made.model.stat().st_size == sum(step["bytes"] for step in found["steps"])
    assert found["classes"] == list(CLASSES)
    text = call("summary", made.model).out
    assert "OPs per cloud" in text
    assert "note       of the tests" in text


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["binarizer=bnnn"], 2, "unknown binarizer 'bnnn'; did you mean 'bnn'\\? valid: .*lsr"),
        (["backbone=resnet"], 2, "unknown backbone 'resnet'; .*pointnet_vanilla"),
        (["dataset=shape"], 2, "unknown dataset 'shape'; did you mean 'shapes'"),
        (["epoch=3"], 2, "unknown recipe field 'epoch'; did you mean 'epochs'"),
        (["epochs=0"], 2, "epochs: .*1.*found 0"),
        (["lr=fast"], 2, "lr: .*'fast'"),
        (["none.yaml"], 2, "none.yaml: recipe can't be read"),
        (["a.yaml", "b.yaml"], 2, "expected one recipe, found a.yaml, b.yaml"),
        (["dataset=modelnet40"], 4, "expected the data set's folder, found none"),
        (["dataset=modelnet40", "root=no/such/folder"], 4, "no/such/folder: no such folder"),
        (["dataset=shapes", "classes=[sphere, cubes]"], 4, "unknown class 'cubes'; did you mean 'cube'"),
        (["--resume"], 6, "no run to resume"),
        (["--nonsense"], 2, "--nonsense; see popcloud"),
    ],
)
def test_mistakes_in_a_recipe(call, tmp_path, words, code, message):
    complaint(call("train", *words, "--out", tmp_path / "run"), code, message)


def test_train_asks_for_its_folder(call):
    complaint(call("train", "epochs=1"), 2, "--out DIR is missing")


def test_a_half_written_data_set(call, tmp_path):
    np.savez(tmp_path / "modelnet40_1024_train.npz", xyz=np.zeros((2, 8, 3), np.int16))
    done = call("train", "dataset=modelnet40", f"root={tmp_path}", "--out", tmp_path / "run")
    complaint(done, 4, "missing: the folder is half written")


def test_an_output_folder_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    complaint(call("train", *TINY, "--out", tmp_path / "file" / "run"), 5, "can't be written")


def test_a_run_is_not_overwritten(call, made):
    before = (made.run / "best.safetensors").read_bytes()
    complaint(call("train", *TINY, "--out", made.run), 5, "has a run already; resume it, or choose another folder")
    assert (made.run / "best.safetensors").read_bytes() == before


def test_a_run_is_not_resumed_by_another_recipe(call, made):
    complaint(call("train", "--resume", "epochs=9", "--out", made.run), 2, "another recipe, different in epochs")


def damaged(data: bytes, how: str) -> bytes:
    """Return a model file with something wrong."""
    if how == "truncated":
        return data[:-100]
    if how == "flipped":
        return data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]
    if how == "newer":
        return sealed(data[:8] + (9).to_bytes(4, "little") + data[12:])
    return b"" if how == "empty" else b"solid cube\n" * 99


@pytest.mark.parametrize("command", ["summary", "run", "bench", "show", "eval"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "bytes|truncated|cut"),
        ("flipped", "damaged|checksum"),
        ("newer", "newer version: .*9"),
        ("empty", "not a model file"),
        ("text", "not a model file"),
    ],
)
def test_bad_model_files(call, made, tmp_path, command, how, message):
    path = tmp_path / "bad.popc"
    path.write_bytes(damaged(made.model.read_bytes(), how))
    more = {"run": [made.files[0]], "show": [made.files[0], "--out", tmp_path / "a.png"]}.get(command, [])
    complaint(call(command, path, *more), 5, rf"bad\.popc: .*({message})")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("pack {folder}/none {tmp}/m.popc", 6, "no checkpoint"),
        ("pack {model} {tmp}/m.popc", 6, "no checkpoint, or a damaged one"),
        ("pack {run} {tmp}/none/m.popc", 5, "can't be written"),
        ("verify {run} {tmp}/none.popc", 5, "can't be read"),
        ("verify {folder} {model}", 6, "no checkpoint"),
        ("verify {run} {model} --kernels mmx", 9, "unknown kernels 'mmx'"),
        ("run {tmp}/none.popc {file}", 5, "none.popc"),
        ("run {model} {tmp}/none.npy", 3, "nothing there"),
        ("run {model} {model}", 3, "unknown ending '.popc'; valid: .npy"),
        ("run {model}", 2, "FILE; see popcloud run --help"),
        ("run {model} {file} --tops 3", 2, "unrecognized arguments: --tops 3"),
        ("summary {model} {model}", 2, "unrecognized arguments: "),
        ("run {model} {file} --kernels mmx", 9, "unknown kernels 'mmx'"),
        ("run {model} {file} --top 0", 2, "--top: expected a whole number of at least 1, found '0'"),
        ("run {model} {file} --threads many", 2, "--threads: expected a whole number"),
        ("show {model} {file} --truth a b --out {tmp}/a.png", 2, "expected 1 names, one per file, found 2"),
        ("show {model} --truth a --out {tmp}/a.png", 2, "the data set knows the right classes"),
        ("show {model} {file} --out {tmp}/none/a.png", 5, "can't be written"),
        ("show {model} {file}", 2, "--out; see popcloud show --help"),
        ("bench {model} --kernels reference", 2, "leave it out"),
        ("bench {model} --kernels mmx", 9, "unknown kernels 'mmx'"),
        ("eval {tmp}/none", 6, "no checkpoint"),
        ("eval {model} --dataset shape", 4, "unknown dataset 'shape'; did you mean 'shapes'"),
        ("eval {model} --split validation", 4, "unknown split 'validation'"),
        ("eval {model} --dataset modelnet40 --root {folder}", 4, "holds no form of ModelNet40"),
        ("evaluate {model}", 2, "'evaluate'"),
        ("", 2, "COMMAND; see popcloud --help"),
    ],
)
def test_mistakes_in_arguments(call, made, tmp_path, words, code, message):
    names = {"folder": made.folder, "run": made.run, "model": made.model, "tmp": tmp_path, "file": made.files[0]}
    complaint(call(*(word.format(**names) for word in words.split())), code, message)


def test_a_damaged_checkpoint(call, made, tmp_path):
    data = bytearray((made.run / "best.safetensors").read_bytes())
    data[-9] ^= 4
    (tmp_path / "bad.safetensors").write_bytes(data)
    complaint(call("pack", tmp_path / "bad.safetensors", tmp_path / "m.popc"), 6, "damaged, its digest does not match")


def test_a_checkpoint_of_another_network(call, made, tmp_path):
    tensors, record = checkpoint.read(made.run / "best.safetensors")
    record["recipe"]["backbone"] = "pointnet"
    record.pop("format")
    checkpoint.write(tmp_path / "odd.safetensors", tensors, record)
    complaint(call("eval", tmp_path / "odd.safetensors"), 6, "checkpoint of another network: .* is missing")


def test_a_model_of_unknown_training_asks_for_the_data_set(call, made, tmp_path):
    program = read(made.model)
    program.meta.clear()
    write(program, tmp_path / "bare.popc")
    complaint(call("eval", tmp_path / "bare.popc"), 2, "pass --dataset NAME")
    assert call("eval", tmp_path / "bare.popc", "--dataset", "shapes", "--clouds", 6).code == 0


def test_a_file_without_the_usual_name_is_known_by_its_first_bytes(call, made, tmp_path):
    (tmp_path / "model").write_bytes(made.model.read_bytes())
    assert json.loads(call("eval", tmp_path / "model", "--json").out)["by"].startswith("the engine")


def test_no_memory_is_one_line(call, made, monkeypatch):
    def enormous(*_):
        raise MemoryError

    monkeypatch.setattr("popcloud.summary.summarize", enormous)
    complaint(call("summary", made.model), 1, "not enough memory")


def test_trouble_of_the_system_is_one_line(call, made, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr("popcloud.summary.summarize", full)
    complaint(call("summary", made.model), 5, "disk: No space left on device")


def test_our_own_mistakes_are_not_hidden(call, made, monkeypatch):
    def broken(*_):
        raise ModuleNotFoundError("No module named 'popcloud.sumary'", name="popcloud.sumary")

    monkeypatch.setattr("popcloud.summary.summarize", broken)
    with pytest.raises(ModuleNotFoundError):
        call("summary", made.model)


def without(package: str, *argv) -> subprocess.CompletedProcess[str]:
    """Run a command in a process where a package is missing."""
    code = f"import sys; sys.modules[{package!r}] = None\nfrom popcloud.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command", ["train --out {tmp}", "pack {run} {tmp}/m.popc", "verify {run} {model}", "eval {run}"]
)
def test_without_torch_learning_says_what_to_install(made, tmp_path, command):
    words = command.format(run=made.run, model=made.model, tmp=tmp_path).split()
    done = without("torch", *words)
    assert done.returncode == 1
    assert done.stderr == "popcloud: this command needs the package torch; pip install popcloud[learn]\n"


@pytest.mark.parametrize(
    "command", ["run {model} {file}", "summary {model}", "eval {model}", "bench {model} --repeat 1"]
)
def test_without_torch_the_rest_works(made, command):
    done = without("torch", *command.format(model=made.model, file=made.files[0]).split())
    assert (done.returncode, done.stderr) == (0, "")


def test_without_matplotlib_show_says_what_to_install(made, tmp_path):
    done = without("matplotlib", "show", made.model, made.files[0], "--out", tmp_path / "a.png")
    assert done.returncode == 1
    assert "popcloud[show]" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_reader_that_leaves_is_no_trouble(made):
    command = [sys.executable, "-m", "popcloud", "summary", str(made.model)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
