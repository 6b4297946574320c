"""Draw clouds with the model's answers above them. This needs matplotlib besides numpy."""

import argparse
from pathlib import Path

from popcloud import Session
from popcloud.data.shapes import load as shapes
from popcloud.show import picture


def main(argv=None):
    """Write a contact sheet of one cloud per class."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model", nargs="?", type=Path, default=Path("runs/first.popc"), help="what 02_pack.py wrote")
    p.add_argument("--out", type=Path, default=Path("runs/first.png"), help="the picture (default: runs/first.png)")
    args = p.parse_args(argv)

    session = Session(args.model)
    clouds = shapes(None, "test", points=session.points, seed=8, classes=session.classes, clouds=len(session.classes))
    probabilities = session.probabilities(clouds.xyz)
    answers = [session.classes[c] for c in probabilities.argmax(axis=1)]
    truth = [session.classes[c] for c in clouds.labels]
    picture(list(clouds.xyz), answers, args.out, truth, probabilities.max(axis=1))
    print(f"{args.out}: green is right, red is wrong")


if __name__ == "__main__":
    main()
