"""The demo's second part: a class for each point of made-up rooms, which a scanner has seen in part.

Two networks of one architecture, a U-Net of submanifold sparse convolutions (UNET-S, Graham et al. 2018), learn it: a
real-valued one, and the binary one that BSC-Net (Xu et al. 2023) starts from, which has 1-bit weights and activations
in all but its first and last layers and is trained with real weights first. The binary one is packed and proved equal
to PyTorch; the picture shows rooms that no network has seen, with its answers.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import demo_parts as parts
from popcloud import Session
from popcloud.cli import packing
from popcloud.data.rooms import load as rooms
from popcloud.errors import RecipeError
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.learn.scenes.stages import total_epochs
from popcloud.learn.scenes.train import train
from popcloud.learn.tasks import load
from popcloud.show_scenes import scenes_picture

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
DRAWN = 3
QUICK = [  # the recipes' own choices take an hour
    "edge=0.1",
    "train_scenes=40",
    "test_scenes=10",
    "batch=1",
    "workers=0",
    "schedule=cosine",
    "augment.offset=0.16",
    "augment.colour=0.05",
]


@dataclass(frozen=True)
class Network:
    """One of the two: its folder, what the table calls it, its recipe, and stages for want of time."""

    folder: str
    title: str
    recipe: str
    stages: str


FLOAT = Network("rooms_float", "float32 UNET-S", "rooms_unet_s_real.yaml", "{name: real, lr: 0.003, epochs: 12}")
BINARY = Network(
    "rooms_baseline",
    "BSC-Baseline, 1 bit",
    "rooms_unet_s_baseline.yaml",
    "{name: real_weights, weights: real, lr: 0.003, epochs: 8}, {name: binary, lr: 0.001, epochs: 10}",
)


def demo(args: argparse.Namespace) -> None:
    """Train, pack, verify, draw, and print the table."""
    began = time.monotonic()
    tests = {network: trained(network, args)["test"] for network in (FLOAT, BINARY)}
    model = args.out / "rooms.popc"
    packed = packing.pack(args.out / BINARY.folder, model, "made by the demo")
    proof = parts.exactness(args.out / BINARY.folder, model, args.verify_scenes, "scenes")
    drawing = drawn(args.out / "rooms.png", Session(model))
    sizes = f"{packed.float32_bytes:,}", f"{packed.bytes:,} ({packed.ratio:.1f} x smaller)"
    print(
        "\n"
        + parts.table(
            [
                ("", FLOAT.title, BINARY.title),
                ("test mean IoU", *(f"{test['mean_iou']:.1%}" for test in tests.values())),
                ("test accuracy of points", *(f"{test['accuracy']:.1%}" for test in tests.values())),
                ("bytes", *sizes),
            ]
        )
    )
    print(f"\n{proof}")
    print(f"model    {model}\npicture  {drawing}\ntook     {time.monotonic() - began:.0f} s")


def recipe_of(network: Network, changes: list[str]) -> SceneRecipe:
    """Return the recipe of a network, made quick, with "field=value" changes. Raises RecipeError for a misspelt one."""
    recipe = load(RECIPES / network.recipe, [*QUICK, f"stages=[{network.stages}]", *changes])
    if not isinstance(recipe, SceneRecipe):
        raise RecipeError("--rooms: expected a recipe of task scenes; leave the change of task out")
    return recipe


def trained(network: Network, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train a network, or find it trained; return its result."""
    recipe = recipe_of(network, args.rooms)
    return parts.trained(network.title, recipe, total_epochs(recipe), args.out / network.folder, args.again, train)


def drawn(path: Path, session: Session) -> Path:
    """Draw some test rooms: the truth, the model's answers, and what is wrong; return the picture's path."""
    scenes = rooms(None, "test", classes=session.classes, scenes=DRAWN)
    answers = session.labels(list(scenes.clouds))
    truth = [cloud.labels for cloud in scenes.clouds if cloud.labels is not None]
    scenes_picture([cloud.xyz for cloud in scenes.clouds], answers, session.classes, path, truth, scenes.names)
    return path
