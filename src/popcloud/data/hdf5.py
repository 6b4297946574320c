"""Arrays from HDF5 files; needs h5py, which comes with the extra [learn]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popcloud.data.scene_files import damaged
from popcloud.errors import DatasetError


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """Return arrays of a file by name, two or more.

    Raises DatasetError for a file that can't be read or lacks one of them, and without h5py.
    """
    open_file = h5py().File
    try:
        with open_file(path, "r") as file:
            return [np.asarray(file[name][()]) for name in names]
    except KeyError as error:
        wanted = f"{', '.join(names[:-1])} and {names[-1]}"
        raise damaged(path, f"expected the arrays {wanted}, at least one is missing") from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise damaged(path, f"not a readable HDF5 file ({' '.join(str(error).split())})") from error


def h5py() -> Any:
    """Return the package h5py. Raises DatasetError that says how to get it."""
    try:
        import h5py  # only this form needs it: the run time gets along without
    except ImportError as error:
        way_out = "pip install 'popcloud[learn]', or use another form of the data set"
        raise DatasetError(f"the HDF5 form needs h5py: {way_out}") from error
    return h5py
