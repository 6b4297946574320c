"""Ask a model file what clouds are. This needs numpy and the engine; PyTorch need not be installed."""

import argparse
from pathlib import Path

import numpy as np

from popcloud import Session
from popcloud.data.shapes import load as shapes


def main(argv=None):
    """Answer clouds from a file, or made-up ones."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("model", nargs="?", type=Path, default=Path("runs/first.popc"), help="what 02_pack.py wrote")
    p.add_argument("--cloud", type=Path, help="a .npy file (N, 3); default: made-up clouds that nobody has seen")
    args = p.parse_args(argv)

    session = Session(args.model)
    if args.cloud is not None:
        probabilities = session.probabilities(np.load(args.cloud))
        best = int(probabilities.argmax())
        print(f"{args.cloud}: {session.classes[best]} ({probabilities[best]:.1%})")
        return

    # Clouds of any size and scale: the session resamples and normalises them as the model was trained.
    clouds = shapes(None, "test", points=1000, seed=7, classes=session.classes, clouds=2 * len(session.classes))
    answers = session.labels(clouds.xyz)
    for answer, truth in zip(answers[:10], clouds.labels[:10], strict=True):
        print(
            f"{session.classes[answer]:<10} {'' if answer == truth else 'in truth ' + session.classes[truth]}".rstrip()
        )
    print(f"{(answers == clouds.labels).mean():.1%} of {len(clouds)} clouds right")


if __name__ == "__main__":
    main()
