"""What verify does with a network that answers for each point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcloud.cli.common import Source
from popcloud.cloud import PointCloud, check_xyz
from popcloud.errors import VerifyError
from popcloud.packed.program import Array, Program
from popcloud.runtime.session import REFERENCE

if TYPE_CHECKING:
    from popcloud.geometry.pyramid import Pyramid
    from popcloud.learn.checkpoint import Trained
    from popcloud.learn.export import Exported
    from popcloud.verify import Verification

SCENES = 2


@dataclass(frozen=True)
class Place:
    """Where the values of a scene lie: its points with their features, and its sites as numpy has them."""

    cloud: PointCloud
    pyramid: Pyramid


class EngineScenes:
    """Runs steps and whole scenes by the engine; keeps the geometry of the scene that was asked for last."""

    def __init__(self, model: Path, program: Program, kernels: str, threads: int | None):
        from popcloud import native

        self.program, self.kernels = program, kernels
        self.engine = native.engine().Engine(model, kernels=kernels, threads=threads or 0)
        self.place: Place | None = None
        self.scene: Any = None

    def step(self, index: int, inputs: list[Array], place: Place) -> tuple[Array, ...]:
        """Return the outputs of a step alone. Raises VerifyError as `answer`."""
        return tuple(self._at(place).step(index, inputs))

    def answer(self, first: Array, place: Place) -> Array:
        """Return the answer per site of a whole run, from the scene's points.

        Raises VerifyError if the engine finds other sites, or other means of features than `first`.
        """
        scene = self._at(place)
        if not np.array_equal(scene.first, first):
            raise VerifyError(f"{self.kernels}: the features of active sites are not those of training; report this")
        answers: Array = scene.run()
        return answers

    def _at(self, place: Place) -> Any:
        """Return the engine's geometry of a scene."""
        from popcloud.geometry.inputs import own_features

        if self.place is not place:
            own = own_features(place.cloud, self.program.features)
            self.scene = self.engine.scene(place.cloud.xyz, own if own.shape[1] else None)
            wanted = [len(level.sites) for level in place.pyramid.levels]
            same = np.array_equal(self.scene.point_to_site, place.pyramid.point_to_site)
            if list(self.scene.sites) != wanted or not same:
                raise VerifyError(f"{self.kernels}: the active sites are not those of training; report this")
            self.place = place
        return self.scene


def start(model: Path, program: Program, kernels: str, threads: int | None) -> Verification:
    """Return a verification of a model file by one kernel table, or by the reference."""
    from popcloud.runtime import sites
    from popcloud.verify import Verification

    if kernels == REFERENCE:
        last = program.steps[-1].output
        return Verification(
            program,
            lambda index, inputs, place: sites.step(program, index, inputs, place.pyramid),
            lambda first, place: sites.values(program, first, place.pyramid)[last],
        )
    engine = EngineScenes(model, program, kernels, threads)
    return Verification(program, engine.step, engine.answer)


def evidence(
    trained: Trained, exported: Exported, source: Source
) -> Iterator[tuple[Array, Mapping[int, Array], Place, Array]]:
    """Yield scenes as the network reads them: rows of sites, PyTorch's values, the place, the site of each point."""
    from popcloud.cli.scenes import load_scenes
    from popcloud.learn.export import observe
    from popcloud.learn.maps import TensorPyramid
    from popcloud.runtime import sites

    _, scenes = load_scenes(replace(source, clouds=source.clouds or SCENES), trained)
    for cloud in scenes.clouds:
        first, at = sites.ready(exported.program, cloud)
        place = Place(PointCloud(check_xyz(cloud.xyz), cloud.features), at)
        yield first, observe(exported, first, TensorPyramid.of(at)), place, at.point_to_site
