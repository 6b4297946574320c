"""The one door to the compiled engine, or its absence."""

from __future__ import annotations

from types import ModuleType

from popcloud.errors import EngineError


def available() -> bool:
    """Return whether the compiled engine is there."""
    try:
        engine()
    except EngineError:
        return False
    return True


def engine() -> ModuleType:
    """Return the compiled engine, `popcloud._engine`. Raises EngineError with the way out where it was not built."""
    try:
        from popcloud import _engine
    except ImportError as error:
        raise EngineError(
            f"the compiled engine is missing ({error}); build it with `make build`, or reinstall popcloud"
        ) from error
    return _engine
