"""How the C library treats the memory of tensors that are gone."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
_MOST = 2**31 - 1  # they are C ints
_MOST_OF_OLD = 1 << 25  # what glibc allowed for the mapping threshold before 2.35


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back to the system; return whether it could.

    By default glibc maps every buffer of some megabytes anew, and a training step frees and asks for hundreds: the
    page faults of first touches cost a quarter of a step on CPUs. It holds for the process and lasts to its end, and
    the process stays as large as it was at its largest. Other C libraries have no such setting: then nothing changes.
    """
    try:
        library = ctypes.CDLL(None)
        if not hasattr(library, "gnu_get_libc_version"):
            return False
        mapped = library.mallopt(_MMAP_THRESHOLD, _MOST) or library.mallopt(_MMAP_THRESHOLD, _MOST_OF_OLD)
        return bool(mapped and library.mallopt(_TRIM_THRESHOLD, _MOST))
    except (OSError, TypeError, AttributeError):  # a system that can't open the running program as a library
        return False
