"""Stopping a run between two steps, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from popcloud.errors import PopcloudError


class Stopped(PopcloudError):
    """A run that was asked to stop; its message says where it is saved and how to resume."""

    exit_code = 130  # what shells give for Ctrl-C: 128 + SIGINT


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag: yields a function that says whether there was one.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread, where Python allows no signal handlers,
    and where somebody else has installed one, nothing is changed and the flag stays down.
    """
    pressed = threading.Event()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield pressed.is_set
        return

    def press(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
