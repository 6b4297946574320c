"""What the laws of the engine share."""

from __future__ import annotations

import pytest

from popcloud import native
from popcloud.packed.file import encode


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Write a program and return it loaded; options as those of _engine.Engine."""
    path = tmp_path_factory.mktemp("engine") / "model.popc"

    def make(program, **options):
        path.unlink(missing_ok=True)  # an engine may still have the old one mapped
        path.write_bytes(encode(program))
        return native.engine().Engine(path, **options)

    return make
