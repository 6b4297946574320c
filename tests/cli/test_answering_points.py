"""The commands run and show with a model that answers for each point."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from commands import complaint
from grid_programs import GridBuilder, every_grid_op, surface
from popcloud import Session
from popcloud.cli.progress import TileProgress
from popcloud.cloud import PointCloud, SceneSet
from popcloud.data import LABELLED_SPLITS, SCENES
from popcloud.errors import CloudError
from popcloud.packed.file import write
from popcloud.packed.program import Grid, Program

NAMES = ("red", "green", "blue")


@pytest.fixture
def grid(tmp_path):
    """A model that reads colours."""
    plain = every_grid_op(4)
    meta = {"recipe": json.dumps({"dataset": "sheets", "data_seed": 5})}
    program = Program(plain.values, plain.steps, 0, "none", plain.classes, meta, plain.plan, NAMES)
    write(program, tmp_path / "grid.popc")
    return tmp_path / "grid.popc"


@pytest.fixture
def files(tmp_path, rng):
    """Two clouds with colours and labels."""
    paths = []
    for name, points in (("one", 60), ("two", 30)):
        cloud = surface(rng, points, 3)
        paths.append(tmp_path / f"{name}.npz")
        labels = np.arange(points) % 4
        np.savez(paths[-1], xyz=cloud.xyz, labels=labels, **dict(zip(NAMES, cloud.features.T, strict=True)))
    return paths


def wanted(model, path) -> np.ndarray:
    """The answer for a file, from Python."""
    with np.load(path) as found:
        features = np.stack([found[name] for name in NAMES], axis=1).astype(np.float32)
        return Session(model, kernels="reference").labels(PointCloud(found["xyz"], features))


def test_run_prints_shares_and_writes_labels(call, grid, files, tmp_path):
    done = call("run", grid, *files, "--out", tmp_path / "out", "--json")
    assert (done.code, done.err) == (0, "")
    classes = (tmp_path / "out" / "classes.txt").read_text().split("\n")[:-1]
    assert classes == [f"class {i}" for i in range(4)]
    for record, path in zip(json.loads(done.out), files, strict=True):
        labels, right = np.load(record["labels"]), wanted(grid, path)
        assert record["labels"] == str(tmp_path / "out" / f"{path.stem}.labels.npy")
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, right)
        assert (record["file"], record["points"]) == (str(path), len(right))
        assert record["shares"] == {name: float(np.mean(right == c)) for c, name in enumerate(classes)}
        assert record["seconds"] > 0
        assert record["peak_bytes"] > 0
        assert record["seams"] is None


@pytest.mark.parametrize("kernels", ["reference", "portable"])
def test_run_prints_a_table_and_what_it_took(call, grid, files, kernels):
    done = call("run", grid, *files, "--kernels", kernels, "--threads", 1)
    counts = [np.bincount(wanted(grid, path), minlength=4) for path in files]
    told = 2 if kernels == "reference" else 3
    lines = done.out.splitlines()
    assert (done.code, done.err, len(lines)) == (0, "", 2 + sum((one > 0).sum() for one in counts) + told)
    assert re.match(rf"time +[\d.]+ s, points to labels, {kernels}, 1 thread$", lines[1 - told])
    assert kernels == "reference" or re.match(r"peak memory +[\d.]+ MB above points and labels$", lines[-1])
    assert lines[0].split() == ["file", "class", "points", "share"]
    assert re.match(rf"{re.escape(str(files[0]))} +class {counts[0].argmax()} +60 +[\d.]+%$", lines[2])
    assert len(call("run", grid, files[0], "--kernels", kernels, "--top", 1).out.splitlines()) == 3 + told


def test_run_in_tiles_shows_how_far_it_is_and_what_a_narrow_halo_costs(call, grid, tmp_path, rng):
    cloud = surface(rng, 800, 3)
    path = tmp_path / "large.npz"
    np.savez(path, xyz=cloud.xyz * 12, **dict(zip(NAMES, cloud.features.T, strict=True)))
    whole = call("run", grid, path, "--out", tmp_path / "whole")
    done = call("run", grid, path, "--tile", 4, "--out", tmp_path / "tiled", "--json")
    assert (whole.code, done.code, whole.err) == (0, 0, "")
    labels = [np.load(tmp_path / name / "large.labels.npy") for name in ("whole", "tiled")]
    np.testing.assert_array_equal(*labels)
    shown = re.findall(r"^large\.npz: (\d+) of (\d+) tiles(?:, \d+:\d\d left)?$", done.err, re.M)
    count = int(shown[0][1])
    assert shown == [(str(i), str(count)) for i in range(1, count + 1)]
    assert count > 4
    assert len(done.err.splitlines()) == count
    narrow = call("run", grid, path, "--tile", 4, "--halo", 0, "--json")
    told = re.search(
        r"note: .*large\.npz: a halo of 0 m gives up exact answers, which need ([\d.]+) m; on the tile with the "
        r"longest seams ([\d.]+)% of the (\d+) labels within ([\d.]+) m of them differ from exact ones",
        narrow.err,
    )
    seams = json.loads(narrow.out)[0]["seams"]
    assert told, narrow.err
    assert (told[2], told[3]) == (f"{100 * seams['share']:.2f}", str(seams["points"]))
    assert seams["share"] == seams["differing"] / seams["points"]
    wide = call("run", grid, path, "--tile", 4, "--halo", 50, "--json")
    assert "note" not in wide.err
    assert json.loads(wide.out)[0]["seams"]["differing"] == 0


@pytest.fixture
def far(tmp_path):
    """A model whose answers see far: five levels."""
    build = GridBuilder(np.random.default_rng(0), Grid(0.1, 5, 3), 3)
    x = 0
    for step in (1, 1, 1, 1, 0, 0, -1, -1, -1, -1):
        x = build.conv(x, 16, step=step)
    plain = build.program(4)
    write(replace(plain, features=NAMES), tmp_path / "far.popc")
    return tmp_path / "far.popc"


def test_run_takes_the_widest_halo_that_fits_memory_and_tells_what_it_costs(call, far, tmp_path, rng):
    cloud = surface(rng, 40000, 3)
    path = tmp_path / "large.npz"
    np.savez(path, xyz=cloud.xyz * 20, **dict(zip(NAMES, cloud.features.T, strict=True)))
    done = call("run", far, path, "--memory", 1, "--json")
    assert done.code == 0, done.err
    seams = json.loads(done.out)[0]["seams"]
    assert seams["halo"] == 16  # sites; exact answers need 32
    assert "a halo of 1.6 m gives up exact answers, which need 3.2 m" in done.err
    with pytest.raises(CloudError, match="smaller halo"):
        Session(far, memory=1_000_000).labels(PointCloud(cloud.xyz * 20, cloud.features))


def test_a_bar_is_shown_on_a_terminal_alone():
    class Terminal(StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), StringIO()
    for stream in (terminal, pipe):
        shown = TileProgress(stream, "town.ply")
        for done in range(4):
            shown(done, 3)
        TileProgress(stream, "small.ply")(1, 1)
    drawn = terminal.getvalue().split("\r")
    assert drawn[1].startswith("[..............................] town.ply: 0 of 3 tiles")
    assert re.match(r"\[#{20}\.{10}\] town\.ply: 2 of 3 tiles, 0:00 left", drawn[3])
    assert drawn[4:] == ["\x1b[K"]
    assert [line.split(",")[0] for line in pipe.getvalue().splitlines()] == [
        f"town.ply: {done} of 3 tiles" for done in (1, 2, 3)
    ]


def test_run_names_the_columns_that_a_file_lacks_and_goes_on(call, grid, files, tmp_path):
    np.savez(tmp_path / "bare.npz", xyz=np.zeros((4, 3)), red=np.zeros(4))
    np.savez(tmp_path / "wrong.npz", xyz=np.zeros((4, 3)), **{name: np.full(4, np.nan) for name in NAMES})
    done = call("run", grid, tmp_path / "bare.npz", files[0], "--json")
    complaint(done, 3, r"bare\.npz: expected the columns red, green, blue, found x, y, z, red without green, blue")
    bad, good = json.loads(done.out)
    assert "without green, blue" in bad["error"]
    assert good["points"] == 60
    complaint(call("run", grid, tmp_path / "wrong.npz"), 3, r"wrong\.npz: features: 4 of 4 points have some that")


def test_run_refuses_what_would_be_lost(call, grid, files, made, tmp_path):
    (tmp_path / "other").mkdir()
    twin = (tmp_path / "other" / "one.npz").write_bytes(files[0].read_bytes())
    assert twin
    complaint(call("run", grid, files[0], tmp_path / "other" / "one.npz", "--out", tmp_path), 2, "two files would be")
    complaint(call("run", grid, files[0], "--out", files[1]), 5, "two.npz: can't be written")
    complaint(
        call("run", made.model, *made.files, "--out", tmp_path), 2, "--out is for models that answer for each point"
    )
    for option in ("--tile", "--halo"):
        complaint(call("run", made.model, *made.files, option, 2), 2, f"{option} is for models for scenes")
    complaint(call("run", grid, files[0], "--tile", "wide"), 2, "--tile: expected a number of metres, found 'wide'")
    complaint(call("run", grid, files[0], "--tile", "0"), 2, "tile of 0 m: expected a number of metres above 0")


def test_run_says_where_memory_ends(call, grid, files, monkeypatch):
    def ends(*_):
        raise MemoryError("out of memory: 800000000000 bytes could not be had; run the cloud in smaller tiles")

    monkeypatch.setattr("popcloud.runtime.scenes.Scenes.labels", ends)
    complaint(call("run", grid, files[0]), 1, "^popcloud: out of memory: 800000000000 bytes .* smaller tiles$")


@pytest.mark.parametrize(
    ("xyz", "message"),
    [
        (np.zeros((0, 3)), "at least one point"),
        (np.array([[0, 0, 0], [1e7, -1e7, 1e7]]), "an edge of .* m fits"),
    ],
)
def test_run_of_a_bad_scene_is_one_line(call, grid, tmp_path, xyz, message):
    np.savez(tmp_path / "bad.npz", xyz=xyz, **{name: np.zeros(len(xyz)) for name in NAMES})
    for kernels in ("reference", "portable"):
        complaint(call("run", grid, tmp_path / "bad.npz", "--kernels", kernels), 3, rf"bad\.npz: .*{message}")


def test_show_draws_files_and_scenes_of_the_data_set(call, grid, files, tmp_path, monkeypatch):
    def sheets(root, split, *, seed=0, classes=None, scenes=None):
        rng = np.random.default_rng(seed)
        clouds = [surface(rng, 40, 3) for _ in range(scenes)]
        labelled = tuple(PointCloud(c.xyz, c.features, np.full(40, seed % 4)) for c in clouds)
        return SceneSet(labelled, tuple(f"{split} {i}" for i in range(scenes)), classes, NAMES)

    monkeypatch.setitem(SCENES, "sheets", sheets)
    monkeypatch.setitem(LABELLED_SPLITS, "sheets", ("train", "val"))
    shares = [wanted(grid, path) == np.arange(points) % 4 for path, points in zip(files, (60, 30), strict=True)]
    right = f"{np.concatenate(shares).mean():.1%}"
    assert call("show", grid, *files, "--out", tmp_path / "a.png").out == f"{tmp_path / 'a.png'}: 2 scenes\n"
    done = call("show", grid, *files, "--truth", "label", "--out", tmp_path / "b.png", "--columns", 1)
    assert done.out == f"{tmp_path / 'b.png'}: 2 scenes, {right} of the points right\n"
    done = call("show", grid, "--clouds", 1, "--seed", 2, "--out", tmp_path / "c.png")
    assert re.search(r"1 scene, [\d.]+% of the points right\n", done.out), done.err
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_show_says_what_is_wrong_with_the_truth(call, grid, files, tmp_path):
    np.savez(tmp_path / "bare.npz", xyz=np.zeros((4, 3)), **{name: np.zeros(4) for name in NAMES})
    out = ("--out", tmp_path / "a.png")
    complaint(call("show", grid, files[0], "--truth", "chair", *out), 2, "--truth: expected label, .* found chair")
    complaint(call("show", grid, tmp_path / "bare.npz", "--truth", "label", *out), 3, "expected a column label")
    complaint(call("show", grid, "--truth", "label", *out), 2, "--truth belongs to files")
    complaint(call("show", grid, "--dataset", "roms", *out), 4, "roms")
