"""Write tiny.popc, a program in which every Op occurs, and tiny.npz: a cloud and what each step makes of it.

    python tests/golden/make_golden.py

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

from programs import every_op  # noqa: E402 - it lies beside this folder, which is no package

SEED = 7


def main() -> None:
    program = every_op(SEED)
    cloud = np.random.default_rng(SEED).normal(size=(37, 3)).astype(np.float32)
    write(program, HERE / "tiny.popc")
    found = dict(zip((value.name for value in program.values), reference.values(program, cloud), strict=True))
    # "cloud" is value 0, the cloud made ready; "points" is what went in.
    np.savez_compressed(HERE / "tiny.npz", points=cloud, **found)


if __name__ == "__main__":
    main()
