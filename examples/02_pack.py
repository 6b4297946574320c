"""Turn a trained network into a model file, and see that the engine computes what PyTorch computed."""

import argparse
from pathlib import Path

from popcloud import native
from popcloud.cloud import prepare
from popcloud.learn import checkpoint
from popcloud.learn.classification import load_split
from popcloud.learn.export import export, observe
from popcloud.packed.file import write
from popcloud.verify import Verification, table


def main(argv=None):
    """Export, write, verify."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("run", nargs="?", type=Path, default=Path("runs/first"), help="what 01_train.py wrote")
    p.add_argument("--model", type=Path, default=Path("runs/first.popc"), help="the file to write")
    p.add_argument("--clouds", type=int, default=20, help="how many clouds to compare (default: 20)")
    args = p.parse_args(argv)

    trained = checkpoint.load(args.run)
    points = trained.recipe.points
    exported = export(trained.model, points=points, normalize="unit_sphere", classes=trained.classes)
    write(exported.program, args.model)
    print(f"{args.model}: {args.model.stat().st_size:,} bytes, {len(exported.program.steps)} steps\n")

    # Each step gets PyTorch's values: signs must come out equal bit for bit, floats but for rounding.
    engine = native.engine().Engine(args.model)
    verification = Verification(exported.program, engine.step, lambda cloud, _: engine.run([cloud])[0])
    for xyz in load_split(trained.recipe, "test").xyz[: args.clouds]:
        cloud = prepare(xyz, points, "unit_sphere")
        verification.add(cloud, observe(exported, cloud))
    print(table(verification.report()))


if __name__ == "__main__":
    main()
