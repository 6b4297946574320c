"""Batches made ahead of time by other processes, in the order they are asked for, or by this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event

from popcloud.errors import TrainingError
from popcloud.learn.scenes.batches import Order, Sample, Workshop, make

AHEAD = 2  # batches per worker that are asked for before the first is taken

_shop: Workshop | None = None  # of a worker process: set once, when it starts
_closing: Event | None = None  # of a worker process: set when nobody wants its batches any more


class Loader:
    """Makes batches of a workshop with so many processes; 0: in this one. The same bits with any number.

    To be closed, or used as a context: then the processes end.
    """

    def __init__(self, shop: Workshop, workers: int):
        self.shop, self.workers = shop, workers
        self.pool: ProcessPoolExecutor | None = None
        if workers:
            # Not forked: PyTorch's threads would be lost in the child. A fresh process reads numpy alone.
            context = multiprocessing.get_context("spawn")
            self.closing = context.Event()
            self.pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(shop, self.closing))

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; what they are at is finished, what they were to do is not begun."""
        if self.pool is not None:
            self.closing.set()
            self.pool.shutdown(wait=True, cancel_futures=True)
            self.pool = None

    def samples(self, orders: Iterable[Order]) -> Iterator[Sample]:
        """Yield a batch per order, in their order. Raises what making them raises; TrainingError if a process died."""
        if self.pool is None:
            for order in orders:
                yield make(self.shop, order)
            return
        waiting: deque[Future[Sample]] = deque()
        try:
            for order in orders:
                waiting.append(self._submit(order))
                if len(waiting) > AHEAD * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "a loader process died, perhaps for want of memory; resume with fewer workers, or with workers=0"
            ) from error
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, order: Order) -> Future[Sample]:
        """Ask for a batch; a process that starts now is deaf to Ctrl-C from its first instruction on."""
        assert self.pool is not None
        if not hasattr(signal, "pthread_sigmask"):
            return self.pool.submit(_make, order)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits the mask
        try:
            return self.pool.submit(_make, order)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(shop: Workshop, closing: Event) -> None:
    """Set up a worker process: Ctrl-C is the parent's business, and without a parent there is none."""
    global _shop, _closing
    _shop, _closing = shop, closing
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent's end, then end too: a parent that was killed can't close its pool."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(order: Order) -> Sample:
    assert _shop is not None
    assert _closing is not None
    if _closing.is_set():  # the pool has handed on more than it can take back
        raise CancelledError
    return make(_shop, order)
