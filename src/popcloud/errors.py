"""The errors a user can meet, each with its cause.

A message is one line: what is wrong, what was expected, what was found, and the way out.
The command line prints it as it stands and ends with the class's exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PopcloudError(Exception):
    """The root of every error that a user's input can cause."""

    exit_code = 1


class RecipeError(PopcloudError):
    """A recipe or an argument that can't be carried out."""

    exit_code = 2


class CloudError(PopcloudError):
    """A point cloud that can't be used: empty, not finite, of the wrong width."""

    exit_code = 3


class DatasetError(PopcloudError):
    """A data set that is missing, half written or not what its loader reads."""

    exit_code = 4


class FileError(PopcloudError):
    """A model file that is no model file, damaged, or of another version; a path that can't be written."""

    exit_code = 5


class CheckpointError(PopcloudError):
    """A checkpoint that is missing, damaged, or of another network."""

    exit_code = 6


class ExportError(PopcloudError):
    """A network that can't be written as a program without changing what it answers."""

    exit_code = 7


class TrainingError(PopcloudError):
    """A training run that can't go on, for example after a loss that is not finite."""

    exit_code = 8


class EngineError(PopcloudError):
    """The engine can't do what was asked: unknown kernels, or none built."""

    exit_code = 9


class VerifyError(PopcloudError):
    """A model file that does not answer what its checkpoint answers."""

    exit_code = 10


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the line that says `name` is no `what`, with the nearest name and all the valid ones."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}; {hint}valid: {', '.join(names)}"
