from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from popcloud.learn import memory
from popcloud.learn.memory import keep_freed_memory


def library(monkeypatch, **functions):
    """Let the process's C library be one with these functions alone."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(**functions))


def test_it_works_where_the_library_is_glibc():
    if not (sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")):
        pytest.skip("the C library is not glibc")
    assert keep_freed_memory()
    assert keep_freed_memory()  # again, and nothing happens


def test_both_thresholds_are_set(monkeypatch):
    seen = {}
    library(monkeypatch, gnu_get_libc_version=None, mallopt=lambda key, value: seen.update({key: value}) or 1)
    assert keep_freed_memory()
    assert seen == {-3: 2**31 - 1, -1: 2**31 - 1}


def test_an_old_glibc_gets_what_it_allows(monkeypatch):
    seen = {}

    def mallopt(key, value):
        if key == -3 and value > 1 << 25:
            return 0
        seen[key] = value
        return 1

    library(monkeypatch, gnu_get_libc_version=None, mallopt=mallopt)
    assert keep_freed_memory()
    assert seen[-3] == 1 << 25


def test_other_libraries_are_left_alone(monkeypatch):
    library(monkeypatch)
    assert not keep_freed_memory()


def test_a_system_without_the_call_is_left_alone(monkeypatch):
    def refuse(_):
        raise TypeError("no name")  # what Windows says to CDLL(None)

    monkeypatch.setattr(memory.ctypes, "CDLL", refuse)
    assert not keep_freed_memory()
