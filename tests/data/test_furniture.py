"""Every piece stands on the floor, inside its footprint, with the tops it promises, and of its own class."""

from __future__ import annotations

import numpy as np
import pytest

from popcloud.data.furniture import COLOUR_SPREAD, FURNITURE, PALETTE, WOODS, colour, hanging_lamp, table_lamp
from popcloud.data.raycast import Part

MAKERS = FURNITURE | {"table lamp": table_lamp}


def extent(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest corner of a part that is not turned."""
    half = part.size if part.shape != "round" else (max(part.size[:2]), max(part.size[:2]), part.size[2])
    return np.array(part.centre) - half, np.array(part.centre) + half


@pytest.fixture(params=MAKERS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def pieces(kind, rng):
    return [MAKERS[kind](rng) for _ in range(60)]


def test_parts_are_of_the_class_and_of_some_size(kind, pieces):
    assert {part.label for piece in pieces for part in piece.parts} == {kind.removeprefix("table ")}
    for piece in pieces:
        for part in piece.parts:
            assert min(part.size) > 0
            assert part.turn == 0
            assert 0 <= min(part.colour) <= max(part.colour) <= 1


def test_pieces_stand_on_the_floor_inside_their_footprint(pieces):
    for piece in pieces:
        low = np.min([extent(part)[0] for part in piece.parts], axis=0)
        high = np.max([extent(part)[1] for part in piece.parts], axis=0)
        assert 0 <= low[2] + 1e-9 < 0.13
        np.testing.assert_array_less(np.maximum(-low, high)[:2], [piece.half_x + 0.021, piece.half_y + 0.021])


def test_things_can_stand_where_the_tops_are(pieces):
    for piece in pieces:
        for top in piece.tops:
            assert min(top.half_x, top.half_y, top.clearance) > 0
            assert abs(top.x) + top.half_x <= piece.half_x
            assert abs(top.y) + top.half_y <= piece.half_y
            boxes = [extent(part) for part in piece.parts]
            assert any(
                abs(high[2] - top.z) < 1e-9 and (low[:2] <= [top.x, top.y]).all() and (high[:2] >= [top.x, top.y]).all()
                for low, high in boxes
            )


def test_pieces_differ(pieces):
    assert len({piece.parts for piece in pieces}) == len(pieces)


def test_heights_of_classes_overlap(rng):
    """A height alone names no class: seats are as high as low tables, bins as cartons, lamps as shelves."""

    def heights(name):
        pieces = (MAKERS[name](rng) for _ in range(200))
        return [max(extent(part)[1][2] for part in piece.parts) for piece in pieces]

    for one, two in (("chair", "table"), ("bin", "box"), ("lamp", "shelf"), ("ball", "box"), ("sofa", "table")):
        first, second = heights(one), heights(two)
        assert max(min(first), min(second)) < min(max(first), max(second)), (one, two)


def test_a_hanging_lamp_reaches_the_ceiling(rng):
    for _ in range(30):
        lamp = hanging_lamp(rng, 2.4)
        assert max(extent(part)[1][2] for part in lamp.parts) == pytest.approx(2.4)
        assert min(extent(part)[0][2] for part in lamp.parts) > 1.4


def test_a_colour_is_near_one_of_its_materials(rng):
    drawn = np.array([colour(rng, WOODS) for _ in range(200)])
    names = sorted(set(WOODS))
    distance = np.abs(drawn[:, None] - [PALETTE[name] for name in names]).max(axis=2)
    assert distance.min(axis=1).max() < 4 * COLOUR_SPREAD
    assert set(distance.argmin(axis=1)) == set(range(len(names)))
