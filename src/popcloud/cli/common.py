"""What several commands share: arguments, tables, clouds of a data set, accuracy."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from popcloud import errors
from popcloud.cloud import CloudSet
from popcloud.errors import FileError, PopcloudError, RecipeError

Handler = Callable[[argparse.Namespace], int | None]
Commands = Any  # argparse's type of add_subparsers has no public name
Labels = NDArray[np.int64]

JSON_HELP = "print one JSON object for a script instead"
THREADS_HELP = "threads of the engine (default: one per physical core)"
KERNELS_HELP = "instruction set of the engine, or 'reference' for the slow numpy reading (default: the fastest)"


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line like every other error's."""

    def error(self, message: str) -> NoReturn:
        """Raise RecipeError instead of printing the usage and ending the process."""
        raise RecipeError(f"{message}; see {self.prog} --help")


def command(commands: Commands, name: str, handler: Handler, what: str, more: str, example: str) -> Any:
    """Add a command and return its parser.

    what     one sentence
    more     what a newcomer must know besides, wrapped by hand
    example  command lines
    """
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.\n\n{more}",
        epilog=f"example:\n{example}\n\n{exit_codes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=handler)
    return parser


def exit_codes() -> str:
    """Return the list of exit codes as help prints it, read off the error classes."""
    classes = sorted(PopcloudError.__subclasses__(), key=lambda kind: kind.exit_code)
    named = [kind for kind in classes if kind.__module__ == errors.__name__]
    lines = ["exit codes:", "    0  all is well", "    1  any other trouble, such as a missing package"]
    lines += [f"  {kind.exit_code:3}  {(kind.__doc__ or '').splitlines()[0]}" for kind in named]
    lines.append("  130  Stopped by Ctrl-C; a training run is saved and says how to resume.")
    lines.append("  141  Whoever read the output closed it.")
    return "\n".join(lines)


def count(text: str) -> int:
    """Read an integer of at least 1: the type of an argument."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return value


def metres(text: str) -> float:
    """Read a length, 0 or more: the type of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of metres, found {text!r}")
    return value


def size_of(count: float) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def add_json(parser: Any) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def add_dataset(parser: Any, *, clouds: str | None = None) -> None:
    """Add the arguments that choose clouds of a data set; `clouds` is the help of --clouds, None leaves it out."""
    parser.add_argument("--dataset", metavar="NAME", help="data set (default: the one it was trained on)")
    parser.add_argument("--root", metavar="DIR", type=Path, help="folder of the data set, for those that have one")
    parser.add_argument(
        "--split", default="test", metavar="NAME", help="train or test, of scenes also val (default: test)"
    )
    if clouds is not None:
        parser.add_argument("--clouds", type=count, metavar="N", help=clouds)


def show_json(record: object) -> None:
    """Print one JSON object; what is not a number, such as a NaN, becomes null."""
    print(json.dumps(_plain(record), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def note(line: str) -> None:
    """Tell the user something on stderr that is no error."""
    print(f"popcloud: note: {line}", file=sys.stderr)


def complain(failures: Sequence[PopcloudError]) -> int:
    """Print a line on stderr for each file that can't be used; return the first one's exit code, 0 without any."""
    for error in failures:
        print(f"popcloud: {' '.join(str(error).split())}", file=sys.stderr)
    return failures[0].exit_code if failures else 0


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return aligned columns: the first `left` to the left, numbers to the right."""
    lines = [heads, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    aligned = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


@dataclass(frozen=True)
class Source:
    """Which clouds are wanted; what is None is taken from the recipe that trained the network.

    dataset  a name of popcloud.data.DATASETS
    root     folder of the data set
    split    "train" or "test", of scenes also "val"; None: what the command takes
    clouds   how many at most
    seed     of made-up clouds: another than the recipe's gives clouds that nobody has seen
    """

    dataset: str | None = None
    root: Path | None = None
    split: str | None = "test"
    clouds: int | None = None
    seed: int | None = None


def source_of(args: argparse.Namespace, default: int | None = None) -> Source:
    """Return what the arguments of `add_dataset` ask for; `default` clouds where --clouds is not given."""
    return Source(args.dataset, args.root, args.split, args.clouds or default, getattr(args, "seed", None))


def load_clouds(source: Source, recipe: Mapping[str, Any] | None, *, points: int, classes: Sequence[str]) -> CloudSet:
    """Return the clouds of a data set.

    recipe   the fields of the recipe that trained the network, if it is known
    points   per cloud
    classes  of the network: they give the labels their order
    Raises RecipeError if no data set is known, DatasetError as the loader does.
    """
    from popcloud.data import dataset

    fields = dict(recipe or {})
    name = source.dataset or fields.get("dataset")
    if name is None:
        raise RecipeError("the model does not say what it was trained on; pass --dataset NAME")
    if name != fields.get("dataset"):
        fields = {}  # sizes and seeds were meant for another data set
    size = source.clouds or fields.get(f"{source.split}_size")
    root = source.root or fields.get("root")
    clouds = dataset(name)(
        None if root is None else Path(root),
        source.split,
        points=points,
        seed=fields.get("data_seed", 0) if source.seed is None else source.seed,
        classes=tuple(classes),
        clouds=None if size is None else max(size, len(classes)),  # a generated set has one of each class at least
    )
    return clouds if size is None else clouds.subset(np.arange(min(size, len(clouds)), dtype=np.int64))


def recipe_of(meta: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the recipe's fields from a model's meta, or None if it has none."""
    try:
        fields = json.loads(meta["recipe"])
    except (KeyError, ValueError):
        return None
    return fields if isinstance(fields, dict) else None


def accuracy(labels: Labels, answers: Labels, classes: int) -> dict[str, float]:
    """Return {"overall", "mean_class"}: shares of right answers, over clouds and as a mean over classes."""
    right = answers == labels
    present = [c for c in range(classes) if (labels == c).any()]
    per_class = [float(right[labels == c].mean()) for c in present]
    return {"overall": float(right.mean()), "mean_class": float(np.mean(per_class))}


def batches(length: int, size: int) -> Iterator[slice]:
    """Yield slices that cover `length` things, `size` at a time."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def is_model(path: Path) -> bool:
    """Return whether a path means a packed model and not a checkpoint: by its name, else by its first bytes."""
    if path.suffix == ".popc":
        return True
    if not path.is_file():
        return False
    from popcloud.packed.layout import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise FileError(f"{path}: can't be read ({error.strerror})") from error
