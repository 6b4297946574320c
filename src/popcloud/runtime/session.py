"""Session: a model file, ready to answer. numpy in, numpy out, no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcloud import native
from popcloud.cloud import PointCloud, prepare
from popcloud.errors import CloudError

Floats = NDArray[np.float32]
Clouds = ArrayLike | PointCloud | Sequence[ArrayLike | PointCloud]

REFERENCE = "reference"  # the name that chooses the numpy reading instead of the engine


class Session:
    """A loaded model.

    path     a model file (*.popc)
    kernels  a name of `popcloud.native.engine().available()`, "reference" for the slow numpy reading, None for the best
    threads  how many threads work; None: one per physical core
    Raises FileError for a file that can't be used, EngineError for unknown kernels or where no engine was built.

    The answers are the same bits whatever kernels and threads are chosen. Sessions may be shared between threads.
    A model on a voxel grid answers for each point (`per_point`); only "reference" runs it so far. Its `features` name
    what it reads of a point: clouds must be PointCloud with those in that order, but for "one" and "height", which
    are computed. Of other models they are ().
    """

    def __init__(self, path: str | os.PathLike[str], *, kernels: str | None = None, threads: int | None = None):
        self.kernels: str
        self.threads: int
        self.features: tuple[str, ...] = ()
        self.per_point = False
        self._answer: Callable[[list[Any]], Sequence[Floats] | Floats]
        if kernels == REFERENCE:
            self._read(path)
        else:
            self._load(path, kernels, threads or 0)

    def _load(self, path: str | os.PathLike[str], kernels: str | None, threads: int) -> None:
        engine = native.engine().Engine(path, kernels=kernels, threads=threads)
        self.points, self.normalize, self.classes = engine.points, engine.normalize, tuple(engine.classes)
        self.kernels, self.threads = engine.kernels, engine.threads
        self._answer = engine.run

    def _read(self, path: str | os.PathLike[str]) -> None:
        from dataclasses import replace

        from popcloud.packed.file import read
        from popcloud.runtime import reference, sites

        program = read(path)
        self.points, self.normalize, self.classes = program.points, program.normalize, program.classes
        self.kernels, self.threads = REFERENCE, 1
        self.features, self.per_point = program.features, program.plan is not None
        if self.per_point:
            self._answer = lambda clouds: [sites.run(program, cloud) for cloud in clouds]
            return
        prepared = replace(program, points=0, normalize="none")  # run() has done both
        empty = np.zeros((0, len(self.classes)), np.float32)
        self._answer = lambda clouds: np.stack([reference.run(prepared, c) for c in clouds]) if clouds else empty

    def run(self, points: Clouds) -> Any:
        """Return the answer of the network, float32 before any softmax.

        points  one cloud (N, 3): the answer is (classes,); many, (B, N, 3) or a list of (N, 3) of different
                sizes: (B, classes). Clouds may be PointCloud; they are resampled and normalised as the model says.
        A model on a voxel grid answers (N, classes) for one cloud, for many with a list of such.
        Raises CloudError if a cloud is empty, not finite or of another width, or has not the model's features.
        """
        clouds, single = split(points)
        if self.per_point:
            answers = self._answer(clouds)
            return answers[0] if single else answers
        names = ["cloud"] if single else [f"cloud {i}" for i in range(len(clouds))]
        ready = [prepare(_xyz(c), self.points, self.normalize, n) for c, n in zip(clouds, names, strict=True)]
        answers = self._answer(ready)
        return answers[0] if single else answers

    def labels(self, points: Clouds) -> Any:
        """Return the index of the most probable class, int64: () for one cloud or (B,); names are in `classes`.

        A model on a voxel grid gives (N,) for one cloud, for many a list of such.
        """
        return _each(lambda answer: np.asarray(answer.argmax(axis=-1), np.int64), self.run(points))

    def probabilities(self, points: Clouds) -> Any:
        """Return the softmax of the answer in float64, of the same shape."""
        return _each(softmax, self.run(points))


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Return the softmax over the last axis, in float64."""
    wide = logits.astype(np.float64)
    powers: NDArray[np.float64] = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _each(function: Callable[[Floats], Any], answers: Floats | list[Floats]) -> Any:
    return [function(answer) for answer in answers] if isinstance(answers, list) else function(answers)


def _xyz(cloud: ArrayLike | PointCloud) -> ArrayLike:
    return cloud.xyz if isinstance(cloud, PointCloud) else cloud


def split(points: Clouds) -> tuple[list[ArrayLike | PointCloud], bool]:
    """Return the clouds in `points` and whether it was a single one. Raises CloudError for other shapes."""
    if isinstance(points, PointCloud):
        return [points], True
    if isinstance(points, (list, tuple)) and all(isinstance(p, PointCloud) or np.ndim(p) == 2 for p in points):
        return list(points), False
    try:
        array = np.asarray(points)
    except ValueError as error:
        raise CloudError(f"expected (N, 3), (B, N, 3) or a list of (N, 3), found something else ({error})") from error
    if array.ndim == 3:
        return list(array), False
    return [array], True  # of any other shape: prepare() says what is wrong with it
