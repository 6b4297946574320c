"""The command line as a whole: help, versions, and every mistake a user can make."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from commands import COMMANDS, TINY, complaint
from popcloud import __version__
from popcloud.cli import main
from popcloud.learn import checkpoint
from popcloud.packed.file import read, write
from programs import sealed

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory; try fewer"),
        (MemoryError("Unable to allocate 9 TiB"), r"not enough memory \(Unable to allocate 9 TiB\); try fewer"),
        (MemoryError("out of memory: 9 bytes; smaller tiles"), "popcloud: out of memory: 9 bytes; smaller tiles$"),
    ],
)
def test_no_memory_is_one_line(call, made, monkeypatch, error, words):
    def enormous(*_):
        raise error

    monkeypatch.setattr("popcloud.summary.summarize", enormous)
    complaint(call("summary", made.model), 1, words)


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
