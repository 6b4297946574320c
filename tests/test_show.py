"""The picture: a PNG with a panel per cloud, titles that tell right from wrong, and plain errors."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from popcloud import show
from popcloud.errors import CloudError, FileError, PopcloudError
from popcloud.show import picture, project

pytest.importorskip("matplotlib")


@pytest.fixture
def clouds(rng) -> list[np.ndarray]:
    return [rng.standard_normal((count, 3)).astype(np.float32) for count in (1, 40, 300)]


def size(path) -> tuple[int, int]:
    """Width and height from a PNG's header, after checking that it is one."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content.endswith(b"IEND\xaeB`\x82")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def pixels(path) -> np.ndarray:
    from matplotlib import image

    return (np.asarray(image.imread(str(path)))[..., :3] * 255).round().astype(int)


def near(image: np.ndarray, colour: str) -> int:
    """How many pixels have about this colour, given as #rrggbb."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=2) < 12).sum())


def test_a_sheet_of_clouds_of_any_size(tmp_path, clouds):
    picture(clouds, ["one", "few", "many"], tmp_path / "a.png")
    width, height = size(tmp_path / "a.png")
    assert width > height > 200
    assert np.ptp(pixels(tmp_path / "a.png")) > 200


@pytest.mark.parametrize(("columns", "down"), [(1, 3), (3, 1), (9, 1)])
def test_columns_lay_out_the_sheet(tmp_path, clouds, columns, down):
    picture(clouds, ["a"] * 3, tmp_path / "one.png", columns=columns)
    width, height = size(tmp_path / "one.png")
    across = min(columns, 3)
    assert (width / across) / (height / down) == pytest.approx(show.PANEL / (show.PANEL + 0.35), rel=0.01)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (6, 3), (8, 4), (9, 3), (12, 4), (14, 5)])
def test_few_panels_stay_empty(count, columns):
    assert show._columns(count) == columns


def test_right_titles_are_green_and_wrong_ones_red(tmp_path, clouds):
    picture(clouds, ["cube", "cone", "bowl"], tmp_path / "right.png", truth=["cube", "cone", "bowl"])
    picture(clouds, ["cube", "cone", "bowl"], tmp_path / "wrong.png", truth=["cone", "bowl", "cube"])
    picture(clouds, ["cube", "cone", "bowl"], tmp_path / "plain.png")
    seen = {name: pixels(tmp_path / f"{name}.png") for name in ("right", "wrong", "plain")}
    assert near(seen["right"], show.RIGHT) > 100 > near(seen["right"], show.WRONG)
    assert near(seen["wrong"], show.WRONG) > 100 > near(seen["wrong"], show.RIGHT)
    assert near(seen["plain"], show.NEUTRAL) > 100 > near(seen["plain"], show.RIGHT) + near(seen["plain"], show.WRONG)


def test_probabilities_are_written(tmp_path, clouds):
    picture(clouds[:1], ["cube"], tmp_path / "without.png")
    picture(clouds[:1], ["cube"], tmp_path / "with.png", probabilities=[0.97])
    ink = [near(pixels(tmp_path / f"{name}.png"), show.NEUTRAL) for name in ("without", "with")]
    assert ink[1] > 1.3 * ink[0]


def test_same_clouds_same_bytes(tmp_path, clouds):
    for name in ("a", "b"):
        picture(clouds, ["x", "y", "z"], tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pyplot_is_left_alone(tmp_path, clouds):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    picture(clouds, ["x", "y", "z"], tmp_path / "a.png")
    assert pyplot.get_fignums() == before


def test_projection_is_a_perspective():
    flat, distance = project(np.array([[0, 0, 0], [0, 0, 1], [0, 0, -1.0]]))
    np.testing.assert_allclose(flat[0], 0)
    assert flat[1, 1] > 0 > flat[2, 1]
    assert abs(flat[1, 0]) < 1e-12
    assert distance[1] < distance[0] < distance[2]  # seen from above
    assert flat[1, 1] > -flat[2, 1]  # what is nearer is larger
    turn = np.radians(show.AZIMUTH)
    front = np.array([[np.cos(turn), np.sin(turn), 0]])
    assert project(front)[1] < show.DISTANCE < project(-front)[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"titles": ["a"]}, r"titles: expected one per cloud \(3\), found 1"),
        ({"truth": ["a"]}, "truth: expected one per cloud"),
        ({"probabilities": [0.5] * 4}, "probabilities: expected one per cloud"),
        ({"columns": 0}, "columns: expected at least 1, found 0"),
        ({"clouds": [], "titles": []}, "at least one cloud"),
        ({"clouds": [np.zeros((4, 2))], "titles": ["a"]}, r"cloud 1: expected shape \(N, 3\)"),
        ({"clouds": [np.full((4, 3), np.nan)], "titles": ["a"]}, "cloud 1: 4 of 4 points are not finite"),
    ],
)
def test_what_cant_be_drawn_is_said(tmp_path, clouds, arguments, says):
    given = {"clouds": clouds, "titles": ["a", "b", "c"], "path": tmp_path / "a.png"} | arguments
    with pytest.raises(CloudError, match=says):
        picture(**given)
    assert not (tmp_path / "a.png").exists()


def test_a_path_that_cant_be_written(tmp_path, clouds):
    with pytest.raises(FileError, match="can't be written"):
        picture(clouds, ["a", "b", "c"], tmp_path / "none" / "a.png")


def test_without_matplotlib_the_message_names_the_extra(tmp_path, clouds, monkeypatch):
    plain = builtins.__import__

    def refuse(name, *rest, **named):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(PopcloudError, match=r"pip install 'popcloud\[show\]'"):
        picture(clouds, ["a", "b", "c"], tmp_path / "a.png")
