"""Models on points, ready to answer: from clouds to the rows that they read, and back to the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcloud.cloud import PointCloud, check_xyz, prepare_rows
from popcloud.errors import CloudError, RecipeError, unknown
from popcloud.geometry import blocks
from popcloud.packed.program import CATEGORY

Floats = NDArray[np.float32]
Cloud = ArrayLike | PointCloud


@dataclass(frozen=True)
class Objects:
    """What a model on points reads and answers.

    features   names of the columns that it reads, x, y, z first
    classes    the class names; of parts "Category/part"
    points     a cloud is resampled to so many, 0: not; where each point is answered, it is dealt out into sets of at
               most so many, each with every k-th point, as networks are trained on so many
    normalize  as Program has it
    per_point  whether the answer has a row per point
    answer     rows of clouds, ready for the network, to its answers
    """

    features: tuple[str, ...]
    classes: tuple[str, ...]
    points: int
    normalize: str
    per_point: bool
    answer: Callable[[list[Floats]], Sequence[Floats]]

    @property
    def own(self) -> tuple[str, ...]:
        """Return the names of the features that a cloud brings beside x, y, z, in order."""
        if self.normalize == "blocks":
            return blocks.COLOURS
        return tuple(name for name in self.features[3:] if not name.startswith(CATEGORY))

    @property
    def categories(self) -> tuple[str, ...]:
        """Return the categories that must be told apart by the caller; () of models that take none."""
        return tuple(name.removeprefix(CATEGORY) for name in self.features if name.startswith(CATEGORY))

    def answers(self, cloud: Cloud, category: str | None = None, name: str = "cloud") -> Floats:
        """Return the answer to a cloud, (classes,) or (N, classes).

        category  of the object, for models with `categories`
        name      says which cloud in the message
        Raises CloudError for a cloud that can't be used or lacks features, RecipeError for a category that is missing,
        unknown or not asked for.
        """
        if not self.per_point:
            return self.answer([self.ready(cloud, category, name)])[0]
        sets = self.sets(cloud, category, name)
        answer = np.empty((sum(len(one.rows) for one in sets), len(self.classes)), np.float32)
        for one in sets:
            answer[one.rows] = self.answer([one.features])[0]
        return answer

    def sets(self, cloud: Cloud, category: str | None = None, name: str = "cloud") -> list[blocks.Block]:
        """Return the sets of points that the network runs on one after the other; arguments and errors as `answers`."""
        if self.normalize == "blocks":
            self.check_category(category)
            xyz, colours = self._parts(cloud, name)
            return blocks.blocks_of(xyz, colours, most=self.points, name=name)
        whole = self.ready(cloud, category, name)
        count = -(-len(whole) // self.points) if self.points else 1
        rows = np.arange(len(whole), dtype=np.int64)
        return [blocks.Block(rows[at::count], np.ascontiguousarray(whole[at::count])) for at in range(count)]

    def ready(self, cloud: Cloud, category: str | None = None, name: str = "cloud") -> Floats:
        """Return the rows (N, F) that the network reads of a cloud, but of rooms; arguments and errors as `answers`.

        All of them where each point is answered, else `points`.
        """
        self.check_category(category)
        xyz, own = self._parts(cloud, name)
        told = [np.full(len(xyz), feature == f"{CATEGORY}{category}", np.float32) for feature in self.features[3:]]
        brought = dict(zip(self.own, own.T, strict=True))
        columns = [brought.get(feature, other) for feature, other in zip(self.features[3:], told, strict=True)]
        count = 0 if self.per_point else self.points
        return prepare_rows(np.column_stack([xyz, *columns]), count, self.normalize, name)

    def labels(self, cloud: Cloud, category: str | None = None, name: str = "cloud") -> NDArray[np.int64]:
        """Return the class with the largest answer, () or (N,); of a category's object, among its parts alone."""
        return self.chosen(self.answers(cloud, category, name), category)

    def chosen(self, answers: Floats, category: str | None = None) -> NDArray[np.int64]:
        """Return the class with the largest of the answers (..., classes), among those of the category."""
        own = np.array(self.classes_of(category))
        return np.asarray(own[answers[..., own].argmax(axis=-1)], np.int64)

    def classes_of(self, category: str | None) -> list[int]:
        """Return the classes that an object of the category may have: its parts, or all where there are none."""
        parts = [] if category is None else [i for i, c in enumerate(self.classes) if c.startswith(f"{category}/")]
        return parts or list(range(len(self.classes)))

    def check_category(self, category: str | None) -> None:
        """Raise RecipeError unless the category is one that the model was trained for."""
        if category is None and self.categories:
            raise RecipeError(f"category: expected one of {', '.join(self.categories)}, found none; say what it is")
        if category is not None and category not in self.categories:
            if not self.categories:
                raise RecipeError(f"category {category!r}: this model takes none; leave it out")
            raise RecipeError(unknown("category", category, self.categories))

    def _parts(self, cloud: Cloud, name: str) -> tuple[Floats, Floats]:
        """Return the positions (N, 3) and, of its features, those that the model reads, (N, F)."""
        given = cloud.features if isinstance(cloud, PointCloud) else None
        xyz, wanted = check_xyz(cloud.xyz if isinstance(cloud, PointCloud) else cloud, name), self.own
        if not wanted:  # what else a cloud has is not looked at, as without a plan
            return xyz, np.zeros((len(xyz), 0), np.float32)
        if given is None or given.shape != (len(xyz), len(wanted)):
            found = "none" if given is None else f"an array of shape {given.shape}"
            raise CloudError(
                f"{name}: expected the features {', '.join(wanted)} of {len(xyz)} points, found {found}; "
                "pass a PointCloud with them"
            )
        return xyz, given
