"""From words to a command: popcloud train | eval | import | pack | verify | run | bench | summary | show.

This file joins the groups of commands and turns a user's mistakes into one line and an exit code.
The commands that need PyTorch import popcloud.learn when they run, so that the others work without it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from popcloud import __version__
from popcloud.cli import answering, importing, measuring, packing, training
from popcloud.cli.common import Parser, exit_codes
from popcloud.errors import FileError, PopcloudError

EXTRAS = {  # package: the extra of popcloud that brings it
    **dict.fromkeys(("torch", "pydantic", "pydantic_core", "yaml", "safetensors", "rich", "h5py"), "learn"),
    "matplotlib": "show",
}
OTHER, INTERRUPTED, BROKEN_PIPE = 1, 130, 141  # the last two as shells have them: 128 + the signal

DESCRIPTION = """\
Binary neural networks for point clouds: train one, pack it into a small file, run it without PyTorch.

From nothing to answers:
  popcloud train recipes/shapes_bipointnet.yaml --out runs/shapes
  popcloud pack runs/shapes shapes.popc
  popcloud verify runs/shapes shapes.popc
  popcloud run shapes.popc cloud.ply"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = Parser(
        prog="popcloud",
        description=DESCRIPTION,
        epilog=exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"popcloud {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (training, importing, packing, answering, measuring):
        group.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` is what follows "popcloud", default: the process's."""
    try:
        args = _arguments(argv)
        code: int = args.handler(args) or 0
        sys.stdout.flush()  # here, so that a pipe that nobody reads any more shows now
        return code
    except PopcloudError as error:
        return _say(str(error), error.exit_code)
    except BrokenPipeError:
        # Python flushes stdout once more as it ends: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except ModuleNotFoundError as error:
        return _missing(error)
    except MemoryError as error:
        return _say(_no_memory(error), OTHER)
    except KeyboardInterrupt:
        return _say("stopped", INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", FileError.exit_code)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments; files and changes may stand before and behind the options.

    argparse gives a list of words to the first place where it fits and does not know those behind an option.
    """
    top = parser()
    args, rest = top.parse_known_args(argv)
    if not rest:
        return args
    if "more" not in args or any(word.startswith("-") for word in rest):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    name, kind = args.more
    setattr(args, name, [*getattr(args, name), *map(kind, rest)])
    return args


def _no_memory(error: MemoryError) -> str:
    """Return what the engine says, which knows a way out, or what numpy says, with one."""
    text = str(error)
    if text.startswith("out of memory"):
        return text
    return f"not enough memory{f' ({text})' if text else ''}; try fewer clouds, points, or a smaller batch"


def _missing(error: ModuleNotFoundError) -> int:
    """Say which extra brings a missing package; any other missing module is our own fault and is raised."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        raise error
    return _say(f"this command needs the package {name}; pip install popcloud[{EXTRAS[name]}]", OTHER)


def _say(line: str, code: int) -> int:
    print(f"popcloud: {' '.join(line.split())}", file=sys.stderr)
    return code
