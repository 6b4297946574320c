"""Session: a model file, ready to answer. numpy in, numpy out, no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcloud import native
from popcloud.cloud import PointCloud, prepare
from popcloud.errors import CloudError, RecipeError

if TYPE_CHECKING:
    from popcloud.runtime.scenes import Scenes
    from popcloud.runtime.tiles import Seams

Floats = NDArray[np.float32]
Clouds = ArrayLike | PointCloud | Sequence[ArrayLike | PointCloud]

MEMORY = 1 << 30  # bytes that a scene may take without tiles
REFERENCE = "reference"  # the name that chooses the numpy reading instead of the engine


class Session:
    """A loaded model.

    path     a model file (*.popc)
    kernels  a name of `popcloud.native.engine().available()`, "reference" for the slow numpy reading, None for the best
    threads  how many threads work; None: one per physical core
    memory   bytes that a scene may take, about; one that needs more is run in tiles. The cloud, its columns and its
             answers come on top
    Raises FileError for a file that can't be used, EngineError for unknown kernels or where no engine was built.

    The answers are the same bits whatever kernels and threads are chosen. Sessions may be shared between threads.
    A model on a voxel grid answers for each point (`per_point`). Its `features` name what it reads of a point: clouds
    must be PointCloud with those in that order, but for "one" and "height", which are computed. Of other models they
    are ().
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        kernels: str | None = None,
        threads: int | None = None,
        memory: int = MEMORY,
    ):
        self.kernels: str
        self.threads: int
        self.features: tuple[str, ...] = ()
        self.scenes: Scenes | None = None  # of a model on a voxel grid
        self._answer: Callable[[list[Floats]], Floats]
        if kernels == REFERENCE:
            self._read(path, memory)
        else:
            self._load(path, kernels, threads or 0, memory)

    def _load(self, path: str | os.PathLike[str], kernels: str | None, threads: int, memory: int) -> None:
        engine = native.engine().Engine(path, kernels=kernels, threads=threads)
        self.points, self.normalize, self.classes = engine.points, engine.normalize, tuple(engine.classes)
        self.kernels, self.threads = engine.kernels, engine.threads
        self._answer = engine.run
        if engine.grid is not None:
            from popcloud.packed.program import Grid
            from popcloud.runtime.scenes import Scenes, by_engine

            self.features = tuple(engine.features)
            self.scenes = Scenes(path, Grid(*engine.grid), self.features, by_engine(engine), memory)

    def _read(self, path: str | os.PathLike[str], memory: int) -> None:
        from dataclasses import replace

        from popcloud.packed.file import read
        from popcloud.packed.program import Grid
        from popcloud.runtime import reference
        from popcloud.runtime.scenes import Scenes, by_reference

        program = read(path)
        self.points, self.normalize, self.classes = program.points, program.normalize, program.classes
        self.kernels, self.threads = REFERENCE, 1
        if isinstance(program.plan, Grid):
            self.features = program.features
            self.scenes = Scenes(path, program.plan, self.features, by_reference(program), memory)
            return
        prepared = replace(program, points=0, normalize="none")  # run() has done both
        empty = np.zeros((0, len(self.classes)), np.float32)
        self._answer = lambda clouds: np.stack([reference.run(prepared, c) for c in clouds]) if clouds else empty

    @property
    def per_point(self) -> bool:
        """Return whether the model answers for each point."""
        return self.scenes is not None

    @property
    def peak(self) -> int | None:
        """Return the most bytes held at once during the last scene, above its points and answers; None if not known.

        Memory is kept for the next scene, so that of a larger one before counts.
        """
        return None if self.scenes is None else self.scenes.peak

    def run(
        self,
        points: Clouds,
        *,
        tile: float | None = None,
        halo: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Return the answer of the network, float32 before any softmax.

        points    one cloud (N, 3): the answer is (classes,); many, (B, N, 3) or a list of (N, 3) of different
                  sizes: (B, classes). Clouds may be PointCloud; they are resampled and normalised as the model says.
        tile      of scenes: run them in tiles, boxes of so many metres at most; None: only those that need it
        halo      of tiles: metres around a box that are run with it. None: as many as exact answers need; with less
                  the answers near the borders may be others, see `seams`
        progress  of tiles: called with how many are done, and how many there are
        A model on a voxel grid answers (N, classes) for one cloud, for many with a list of such.
        Raises CloudError if a cloud is empty, not finite or of another width, or has not the model's features, or if no
        tile is small enough; RecipeError for tiles of other models; MemoryError.
        """
        if self.scenes is not None:
            return self._each(self.scenes.scores, points, tile, halo, progress)
        if tile is not None or halo is not None:
            raise RecipeError("tiles are for models that answer for each point; leave tile and halo out")
        clouds, single = split(points)
        names = ["cloud"] if single else [f"cloud {i}" for i in range(len(clouds))]
        ready = [prepare(_xyz(c), self.points, self.normalize, n) for c, n in zip(clouds, names, strict=True)]
        answers = self._answer(ready)
        return answers[0] if single else answers

    def _each(
        self,
        answer: Callable[..., Any],
        points: Clouds,
        tile: float | None,
        halo: float | None,
        progress: Callable[[int, int], None] | None,
    ) -> Any:
        """Return what `answer` says of each scene, a list of them for many."""
        from popcloud.runtime.scenes import How

        how = How(tile, halo, progress)
        clouds, single = split(points)
        answers = [answer(cloud, how) for cloud in clouds]
        return answers[0] if single else answers

    def labels(
        self,
        points: Clouds,
        *,
        tile: float | None = None,
        halo: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Return the index of the most probable class, int64: () for one cloud or (B,); names are in `classes`.

        A model on a voxel grid gives (N,) for one cloud, for many a list of such; the other arguments are `run`'s.
        """
        if self.scenes is not None:
            return self._each(self.scenes.labels, points, tile, halo, progress)
        return np.asarray(self.run(points, tile=tile, halo=halo).argmax(axis=-1), np.int64)

    def seams(
        self,
        cloud: ArrayLike | PointCloud,
        labels: NDArray[np.int64],
        *,
        tile: float | None = None,
        halo: float | None = None,
    ) -> Seams | None:
        """Return how many labels near the borders of one tile a wider halo changes; None where there is no border.

        labels  (N,) of the cloud, from `labels` with the same `tile` and `halo`
        Raises RecipeError for other models and for another number of labels, and errors as `run`.
        """
        from popcloud.runtime.scenes import How

        if self.scenes is None:
            raise RecipeError("tiles are for models that answer for each point; this one has no seams")
        return self.scenes.seams(cloud, labels, How(tile, halo))

    def probabilities(self, points: Clouds) -> Any:
        """Return the softmax of the answer in float64, of the same shape."""
        answers = self.run(points)
        return [softmax(answer) for answer in answers] if isinstance(answers, list) else softmax(answers)


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Return the softmax over the last axis, in float64."""
    wide = logits.astype(np.float64)
    powers: NDArray[np.float64] = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


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
