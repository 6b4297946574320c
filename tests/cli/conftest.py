"""A small trained network for all tests of the command line, and a way to call it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from commands import CLASSES, TINY
from popcloud.cli import main
from popcloud.data import DATASETS


@pytest.fixture(scope="session")
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
