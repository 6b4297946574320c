"""The whole path in one go: train, pack, verify, run, measure, draw. This is what `make demo` runs.

Three networks of one architecture, PointNet without T-Nets, learn to tell made-up solids apart: a real-valued one,
BiPointNet (1-bit weights and activations, entropy-maximizing pooling) and a plain binary one, whose max pooling lets
nearly every feature become +1 so that nothing is left to learn from (BiPointNet, Qin et al. 2021, section 3.2).
BiPointNet is packed, proved equal to PyTorch and run by the engine on clouds that no network has seen.
Then demo_rooms.py does the like with scenes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import demo_parts as parts
import demo_rooms
from popcloud import Session, native
from popcloud.cli import packing
from popcloud.cloud import CloudSet, prepare
from popcloud.data.shapes import load as shapes
from popcloud.errors import PopcloudError
from popcloud.learn import checkpoint
from popcloud.learn.recipe import load
from popcloud.learn.stop import Stopped
from popcloud.learn.train import train
from popcloud.show import picture

RECIPE_FILE = Path(__file__).resolve().parent.parent / "recipes" / "shapes_bipointnet.yaml"
UNSEEN = 20231  # seed of clouds that no training has drawn
DRAWN = 12


@dataclass(frozen=True)
class Network:
    """One of the three: its folder, what the table calls it, binarizer and pool."""

    folder: str
    title: str
    binarizer: str
    pool: str


FLOAT = Network("float", "float32 PointNet", "real", "max")
BIPOINTNET = Network("bipointnet", "BiPointNet, 1 bit", "lsr", "ema-max")
PLAIN = Network("bnn", "plain BNN, 1 bit", "bnn", "max")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the choices; the defaults take some minutes on two cores."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of all results (default: runs/demo)")
    p.add_argument("--again", action="store_true", help="train again what is trained already")
    p.add_argument("--clouds", type=int, default=700, help="unseen clouds that the engine answers (default: 700)")
    p.add_argument("--verify", type=int, default=100, help="clouds of the proof (default: 100)")
    p.add_argument("--repeat", type=int, default=100, help="how often each network is timed (default: 100)")
    p.add_argument("--verify-scenes", type=int, default=2, help="scenes of the proof of the second part (default: 2)")
    p.add_argument("--only", choices=("shapes", "rooms"), help="one part alone")
    p.add_argument("--rooms", nargs="*", default=[], metavar="field=value", help="changes to the recipes of scenes")
    p.add_argument(
        "changes", nargs="*", metavar="field=value", help="changes to the recipe of the three networks for clouds"
    )
    return p.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    args = arguments(argv)
    try:
        for part in [args.only] if args.only else PARTS:
            PARTS[part](args)
    except Stopped as stopped:
        print(f"demo: {stopped}: start the demo once more", file=sys.stderr)
        return stopped.exit_code
    except PopcloudError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def demo(args: argparse.Namespace) -> None:
    """Train, pack, verify, run, measure, draw, and print the table."""
    began = time.monotonic()
    accuracies = {network: trained(network, args) for network in (FLOAT, BIPOINTNET, PLAIN)}
    model = args.out / "bipointnet.popc"
    packed = packing.pack(args.out / BIPOINTNET.folder, model, "made by the demo")
    proof = parts.exactness(args.out / BIPOINTNET.folder, model, args.verify, "clouds")
    session = Session(model)
    count = max(args.clouds, len(session.classes))
    unseen = shapes(None, "test", points=session.points, seed=UNSEEN, classes=session.classes, clouds=count)
    right = float((session.labels(unseen.xyz) == unseen.labels).mean())
    float_ms, engine_ms = timed(args, model, unseen)
    drawing = drawn(args.out / "answers.png", session, unseen)
    print(
        "\n"
        + parts.table(
            [
                ("", FLOAT.title, BIPOINTNET.title, PLAIN.title),
                ("test accuracy", *(f"{share:.1%}" for share in accuracies.values())),
                ("on unseen clouds, engine", "", f"{right:.1%}", ""),
                ("bytes", f"{packed.float32_bytes:,}", f"{packed.bytes:,} ({packed.ratio:.1f} x smaller)", ""),
                ("ms per cloud, one thread", f"{float_ms:.2f}", f"{engine_ms:.3f} ({float_ms / engine_ms:.0f} x)", ""),
            ]
        )
    )
    print(f"\n{proof}")
    print(f"float32 is run by PyTorch, the packed model by the engine ({session.kernels}); medians, in turns")
    print(f"model    {model}\npicture  {drawing}\ntook     {time.monotonic() - began:.0f} s")


def trained(network: Network, args: argparse.Namespace) -> float:
    """Train a network, or find it trained; return its accuracy on the test clouds."""
    recipe = load(RECIPE_FILE, [f"binarizer={network.binarizer}", f"pool={network.pool}", *args.changes])
    result = parts.trained(network.title, recipe, recipe.epochs, args.out / network.folder, args.again, train)
    return float(result["test"])


def timed(args: argparse.Namespace, model: Path, clouds: CloudSet) -> tuple[float, float]:
    """Return the median milliseconds per cloud of the float network in PyTorch and of the engine, one thread each."""
    network = checkpoint.load(args.out / FLOAT.folder).model
    engine = native.engine().Engine(model, threads=1)
    ready = [prepare(xyz, engine.points, engine.normalize) for xyz in clouds.xyz[:16]]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return interleaved(
            lambda i: forward(network, ready[i % len(ready)]),
            lambda i: engine.run([ready[i % len(ready)]]),
            args.repeat,
        )
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def forward(network: nn.Module, cloud: np.ndarray) -> torch.Tensor:
    """Answer one cloud (n, 3) in PyTorch."""
    return network(torch.from_numpy(cloud)[None])


def interleaved(one: Callable[[int], object], other: Callable[[int], object], repeat: int) -> tuple[float, float]:
    """Time two calls in turns, after two rounds that do not count; return their median milliseconds."""
    spent: tuple[list[float], list[float]] = ([], [])
    for i in range(repeat + 2):
        for call, times in zip((one, other), spent, strict=True):
            began = time.perf_counter()
            call(i)
            times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(spent[0][2:])), float(np.median(spent[1][2:]))


def drawn(path: Path, session: Session, clouds: CloudSet) -> Path:
    """Draw some unseen clouds with the engine's answers; return the picture's path."""
    some = clouds.subset(np.arange(min(DRAWN, len(clouds))))
    probabilities = session.probabilities(some.xyz)
    answers = [session.classes[c] for c in probabilities.argmax(axis=1)]
    truth = [some.classes[label] for label in some.labels]
    picture(list(some.xyz), answers, path, truth, probabilities.max(axis=1).tolist())
    return path


PARTS = {"shapes": demo, "rooms": demo_rooms.demo}


if __name__ == "__main__":
    sys.exit(main())
