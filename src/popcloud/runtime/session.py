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
    from popcloud.runtime.objects import Objects
    from popcloud.runtime.scenes import Scenes
    from popcloud.runtime.tiles import Seams

Floats = NDArray[np.float32]
Clouds = ArrayLike | PointCloud | Sequence[ArrayLike | PointCloud]
Category = str | Sequence[str] | None

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
    must be PointCloud with those in that order, but for "one" and "height", which are computed. A model on points reads
    `features` as well, x, y, z first, and may answer for each point: of parts of objects, or of a room, which it cuts
    into blocks itself; see `objects`. Of other models they are ().
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
        self.objects: Objects | None = None  # of one on points
        self._answer: Callable[[list[Floats]], Any]
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
        elif engine.sampling is not None:
            self._on_points(tuple(engine.features), engine.per_point)

    def _read(self, path: str | os.PathLike[str], memory: int) -> None:
        from dataclasses import replace

        from popcloud.packed.file import read
        from popcloud.packed.program import Grid, Rows
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
        if program.plan is None:
            self._answer = lambda clouds: np.stack([reference.run(prepared, c) for c in clouds]) if clouds else empty
        else:
            self._answer = lambda clouds: [reference.run(prepared, c) for c in clouds]  # of any size
            self._on_points(program.features, program.values[program.steps[-1].output].rows is Rows.POINT)

    def _on_points(self, features: tuple[str, ...], per_point: bool) -> None:
        from popcloud.runtime.objects import Objects

        self.features = features
        self.objects = Objects(features, self.classes, self.points, self.normalize, per_point, self._answer)

    @property
    def per_point(self) -> bool:
        """Return whether the model answers for each point."""
        return self.scenes is not None or (self.objects is not None and self.objects.per_point)

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
        category: Category = None,
        tile: float | None = None,
        halo: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Return the answer of the network, float32 before any softmax.

        points    one cloud (N, 3): the answer is (classes,); many, (B, N, 3) or a list of (N, 3) of different
                  sizes: (B, classes). Clouds may be PointCloud; they are resampled and normalised as the model says.
        category  of models that are told what an object is: its name, or one per cloud
        tile      of scenes: run them in tiles, boxes of so many metres at most; None: only those that need it
        halo      of tiles: metres around a box that are run with it. None: as many as exact answers need; with less
                  the answers near the borders may be others, see `seams`
        progress  of tiles: called with how many are done, and how many there are
        A model that answers for each point gives (N, classes) for one cloud, for many a list of such.
        Raises CloudError if a cloud is empty, not finite or of another width, or has not the model's features, or if no
        tile is small enough; RecipeError for tiles of other models, and for a category that the model does not know;
        MemoryError.
        """
        if self.scenes is not None:
            _no_category(category)
            return self._each(self.scenes.scores, points, tile, halo, progress)
        if tile is not None or halo is not None:
            raise RecipeError("tiles are for models of scenes; leave tile and halo out")
        clouds, single = split(points)
        if self.objects is not None:
            given = named(clouds, single, category)
            each = [self.objects.answers(*one) for one in given] if self.per_point else self._many(self.objects, given)
            return each[0] if single else each
        _no_category(category)
        ready = [prepare(_xyz(c), self.points, self.normalize, name) for c, _, name in named(clouds, single, None)]
        answers = self._answer(ready)
        return answers[0] if single else answers

    def _many(self, objects: Objects, given: list[tuple[ArrayLike | PointCloud, str | None, str]]) -> Any:
        """Return the answers to clouds (B, classes), run together so that threads share them."""
        answers = self._answer([objects.ready(*one) for one in given])
        return np.reshape(answers, (len(given), len(self.classes)))

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
        category: Category = None,
        tile: float | None = None,
        halo: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Return the index of the most probable class, int64: () for one cloud or (B,); names are in `classes`.

        A model that answers for each point gives (N,) for one cloud, for many a list of such; of an object with a
        category only its parts are chosen from. The other arguments are `run`'s.
        """
        if self.scenes is not None:
            _no_category(category)
            return self._each(self.scenes.labels, points, tile, halo, progress)
        answers = self.run(points, category=category, tile=tile, halo=halo)
        if self.objects is None or not self.per_point:
            return np.asarray(answers.argmax(axis=-1), np.int64)
        clouds, single = split(points)
        told = [name for _, name, _ in named(clouds, single, category)]
        each = [self.objects.chosen(a, n) for a, n in zip([answers] if single else answers, told, strict=True)]
        return each[0] if single else each

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
            raise RecipeError("tiles are for models of scenes; this one has no seams")
        return self.scenes.seams(cloud, labels, How(tile, halo))

    def probabilities(self, points: Clouds, *, category: Category = None) -> Any:
        """Return the softmax of the answer in float64, of the same shape."""
        answers = self.run(points, category=category)
        return [softmax(answer) for answer in answers] if isinstance(answers, list) else softmax(answers)


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Return the softmax over the last axis, in float64."""
    wide = logits.astype(np.float64)
    powers: NDArray[np.float64] = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _xyz(cloud: ArrayLike | PointCloud) -> ArrayLike:
    return cloud.xyz if isinstance(cloud, PointCloud) else cloud


def _no_category(category: Category) -> None:
    if category is not None:
        raise RecipeError("this model takes no category; leave it out")


def named(
    clouds: list[ArrayLike | PointCloud], single: bool, category: Category
) -> list[tuple[ArrayLike | PointCloud, str | None, str]]:
    """Return each cloud with its category and its name in messages. Raises RecipeError for too few or many."""
    told = [category] * len(clouds) if category is None or isinstance(category, str) else list(category)
    if len(told) != len(clouds):
        raise RecipeError(f"category: expected one name, or {len(clouds)}, one per cloud, found {len(told)}")
    names = ["cloud"] if single else [f"cloud {i}" for i in range(len(clouds))]
    return list(zip(clouds, told, names, strict=True))


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
