from __future__ import annotations

import signal
import threading

import pytest

from popcloud.learn.stop import interrupts


def test_the_first_interrupt_is_a_flag_and_the_second_is_not():
    with interrupts() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handler_is_put_back():
    with interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_stays():
    mine = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts() as pressed:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert not pressed()
    finally:
        signal.signal(signal.SIGINT, mine)


def test_another_thread_changes_nothing():
    seen = []

    def work() -> None:
        with interrupts() as pressed:
            seen.append((pressed(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.default_int_handler)]
