"""Batches from other processes are those this process would make."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from popcloud.data.augment_scenes import AugmentScenes
from popcloud.errors import CloudError, TrainingError
from popcloud.geometry.plan import GridPlan
from popcloud.learn.scenes.batches import Workshop, orders
from popcloud.learn.scenes.loader import Loader


@pytest.fixture
def shop(scenes):
    augment = AugmentScenes(crop=1.5, rotate_z=True, elastic=((0.3, 0.1),), colour=0.1)
    return Workshop(scenes, GridPlan(0.25, 2, 5), 1 << 20, ("features",), augment, seed=3)


def bits(sample):
    """Return all of a batch as bytes."""
    maps = [level.same for level in sample.pyramid.levels] + list(sample.pyramid.down)
    parts = [sample.x, sample.labels, sample.pyramid.point_to_site]
    parts += [array for one in maps for array in (one.inputs, one.outputs, one.ranges)]
    return [part.tobytes() for part in parts]


def test_two_processes_give_the_bits_of_none_in_the_same_order(shop):
    epoch = [order for number in range(2) for order in orders(3, 2, 2, 0, 0, number)]
    with Loader(shop, 0) as here, Loader(shop, 2) as there:
        expected = [bits(made) for made in here.samples(epoch)]
        assert [bits(made) for made in there.samples(epoch)] == expected
    assert len(expected) == 6


def test_what_goes_wrong_in_a_process_is_said_here(shop):
    fine = replace(shop, plan=GridPlan(0.001, 2), max_sites=20)
    with Loader(fine, 1) as loader, pytest.raises(CloudError, match=r"scene train\d: voxel edge"):
        list(loader.samples(orders(3, 1, 1, 0, 0, 0)))


def test_a_dead_process_is_no_riddle(shop):
    with Loader(shop, 1) as loader:
        samples = loader.samples(orders(3, 8, 1, 0, 0, 0))
        next(samples)
        assert loader.pool is not None
        for process in list(loader.pool._processes.values()):
            process.kill()
        with pytest.raises(TrainingError, match="fewer workers"):
            list(samples)


def test_leaving_early_ends_the_processes(shop):
    with Loader(shop, 2) as loader:
        next(loader.samples(orders(3, 50, 1, 0, 0, 0)))
        assert loader.pool is not None
        processes = list(loader.pool._processes.values())
    assert processes
    assert not any(process.is_alive() for process in processes)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")
def test_ctrl_c_is_not_for_the_processes_also_while_they_start(shop):
    epoch = orders(3, 4, 1, 0, 0, 0)
    with Loader(shop, 1) as loader:
        first = loader._submit(epoch[0])
        assert loader.pool is not None
        (process,) = loader.pool._processes.values()
        os.kill(process.pid, signal.SIGINT)
        assert first.result().x.shape[1] == 2
        os.kill(process.pid, signal.SIGINT)
        assert len(list(loader.samples(epoch))) == len(epoch)


CHILD = """
import sys, time
from popcloud.cloud import SceneSet
from popcloud.geometry.plan import GridPlan
from popcloud.learn.scenes.batches import Workshop
from popcloud.learn.scenes.loader import Loader
if __name__ == "__main__":
    loader = Loader(Workshop(SceneSet((), (), (), ()), GridPlan(1.0, 1), 8, ("one",), None, 0), 1)
    loader.pool.submit(int).result()
    print(*(process.pid for process in loader.pool._processes.values()), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_processes_do_not_outlive_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    source = str(Path(__file__).parents[3] / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    # Python's resource tracker, which outlives the kill too, says on stderr what it cleans up: as it should.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, str(script)], text=True, env=environment, **pipes) as child:
        assert child.stdout is not None
        workers = [int(word) for word in child.stdout.readline().split()]
        child.kill()
    assert len(workers) == 1
    deadline = time.monotonic() + 30
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(running(pid) for pid in workers)


def running(pid: int) -> bool:
    """Return whether a process is there and no zombie that nobody has buried."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
