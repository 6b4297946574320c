"""Train a 1-bit PointNet on made-up solids: a recipe in, a folder with the best network out."""

import argparse
import sys
from pathlib import Path

from popcloud.learn.progress import reporter
from popcloud.learn.recipe import load
from popcloud.learn.train import train


def main(argv=None):
    """Train as a recipe says; fields of it can be changed on the command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("changes", nargs="*", metavar="field=value", help="for example epochs=5 points=128")
    p.add_argument("--out", type=Path, default=Path("runs/first"), help="folder of the run (default: runs/first)")
    args = p.parse_intermixed_args(argv)

    # Every choice of a run is in its recipe; what is not said here has a default (popcloud train --fields).
    recipe = load(None, ["dataset=shapes", "points=256", "epochs=10", "lr=0.002", *args.changes])
    result = train(recipe, args.out, progress=reporter(sys.stderr))

    print(f"{result.test:.1%} of the test clouds right, after epoch {result.best_epoch}: {result.checkpoint}")


if __name__ == "__main__":
    main()
