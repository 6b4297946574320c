"""Write programs in which every Op occurs, and with each a cloud and what each step makes of it.

    python tests/golden/make_golden.py NAME ...

tiny    of whole clouds (version 1)
points  on points (version 4)
Run it only when the format or the meaning of an op changes on purpose, and say so in CHANGELOG.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from popcloud.packed.file import write
from popcloud.runtime import reference

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from point_programs import every_point_op  # noqa: E402 - it lies beside this folder, which is no package
from programs import every_op  # noqa: E402

SEED = 7


def main(names: list[str]) -> None:
    for name in names:
        program = {"tiny": every_op, "points": every_point_op}[name](SEED)
        width = len(program.features) or 3
        cloud = np.random.default_rng(SEED).normal(size=(37, width)).astype(np.float32)
        write(program, HERE / f"{name}.popc")
        found = reference.values(program, cloud)
        steps = {value.name: array for value, array in zip(program.values[1:], found[1:], strict=True)}
        # "cloud" is value 0, the cloud made ready; "points" is what went in.
        np.savez_compressed(HERE / f"{name}.npz", points=cloud, cloud=found[0], **steps)


if __name__ == "__main__":
    main(sys.argv[1:])
