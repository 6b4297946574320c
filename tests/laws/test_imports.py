"""Law of the rooms: imports point one way, only learn/ knows torch, and the run-time needs numpy alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2] / "src" / "popcloud"
BASE = {"cloud", "errors"}

MAY_IMPORT = {  # room: the rooms it may use; itself always
    "cloud": {"errors"},
    "errors": set(),
    "native": {"errors", "_engine"},
    "geometry": BASE | {"native"},
    "data": BASE,
    "show": BASE,
    "show_scenes": BASE | {"show"},
    "show_parts": BASE | {"show", "show_scenes"},
    "packed": {"errors"},
    "summary": {"errors", "packed"},
    "runtime": BASE | {"native", "packed", "geometry"},
    "verify": {"errors", "packed"},
    "learn": BASE | {"native", "geometry", "data", "packed"},
    "__init__": BASE | {"native", "packed", "runtime"},
    "__main__": {"cli"},
    "cli": BASE
    | {"native", "geometry", "data", "packed", "runtime", "summary", "verify", "learn"}
    | {"show", "show_parts", "show_scenes"},
}
MAY_NEED = {  # packages besides numpy, inside functions only, but for learn
    "show": {"matplotlib"},
    "show_scenes": {"matplotlib"},
    "show_parts": {"matplotlib"},
    "data": {"h5py", "yaml"},
    "cli": {"matplotlib", "rich"},
}
INSIDE_LEARN = {  # part: the parts it must never see
    "binarizers": {"layers", "backbones", "train", "scenes", "export"},
    "layers": {"backbones", "train", "scenes", "export"},
    "backbones": {"train", "scenes", "export"},
    "export": {"backbones", "train", "scenes"},
    "export_layers": {"backbones", "train", "export"},
    "export_sparse": {"backbones", "train", "export"},
    "export_writer": {"backbones", "train", "export", "export_layers", "export_sparse"},
}
EXTRAS = ["torch", "h5py", "matplotlib", "pydantic", "rich", "safetensors", "scipy", "tensorboard", "yaml"]


class Import(NamedTuple):
    """One import: the full name, and whether it waits inside a function or is for the type checker alone."""

    name: str
    lazy: bool


def imports(node: ast.AST, lazy: bool = False) -> Iterator[Import]:
    """Yield every import below a node of the syntax tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: say the full name, no relative imports"
            # `from popcloud import show` imports popcloud.show, `from popcloud.data import shapes` popcloud.data.shapes
            yield from (Import(f"{child.module}.{alias.name}", lazy) for alias in child.names)
        else:
            waits = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) or for_types_alone(child)
            yield from imports(child, lazy or waits)


def for_types_alone(node: ast.AST) -> bool:
    """Return whether a node is `if TYPE_CHECKING:`, which never runs; it must have no `else`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def broken_by(path: Path, source: str) -> Iterator[str]:
    """Yield a line for each import of a file that the tables above forbid."""
    room, part = room_of(path), ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])
    for name, lazy in imports(ast.parse(source)):
        top, *rest = name.split(".")
        extras = MAY_NEED.get(room, set())
        if top == "popcloud":
            fine = allowed(room, part, rest, lazy)
        else:
            fine = room == "learn" or top in {"numpy", *sys.stdlib_module_names} or (lazy and top in extras)
        if not fine:
            yield f"imports {name}" + (" outside a function" if not lazy else "")


def allowed(room: str, part: str, rest: list[str], lazy: bool) -> bool:
    if rest[0] not in MAY_IMPORT and rest[0] != "_engine":
        return True  # a name of popcloud/__init__.py, such as __version__
    if rest[0] == room:
        return room != "learn" or not INSIDE_LEARN.get(part.split(".")[0], set()) & set(rest[1:2])
    return rest[0] in MAY_IMPORT[room] and not (room == "cli" and rest[0] == "learn" and not lazy)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_imports_only_what_its_room_may(path):
    assert room_of(path) in MAY_IMPORT, f"{room_of(path)} is a new room: give it a line in the table"
    assert list(broken_by(path, path.read_text())) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/files.py", "import torch"),
        ("cli.py", "def train():\n    import torch.nn"),
        ("cli.py", "from popcloud.learn import train"),
        ("cli.py", "from popcloud import learn"),
        ("packed/file.py", "from popcloud.cloud import prepare"),
        ("packed/file.py", "class A:\n    def f(self):\n        from popcloud import cloud"),
        ("runtime/session.py", "import popcloud.learn.train"),
        ("runtime/session.py", "from popcloud import _engine"),
        ("geometry/plan.py", "from popcloud.data import shapes"),
        ("learn/train.py", "from popcloud.runtime import reference"),
        ("learn/layers.py", "from popcloud.learn.backbones import BACKBONES"),
        ("learn/layers.py", "from popcloud.learn import export"),
        ("learn/backbones/pointnet.py", "from popcloud.learn.train import fit"),
        ("show.py", "import matplotlib.pyplot"),
        ("runtime/session.py", "def f():\n    import scipy"),
        ("cli.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from popcloud.learn.recipe import Recipe"),
        ("packed/file.py", "if TYPE_CHECKING:\n    from popcloud.learn.recipe import Recipe"),
    ],
)
def test_law_notices(file, line):
    assert len(list(broken_by(ROOT / file, line))) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("cli.py", "def train():\n    from popcloud.learn.train import fit"),
        ("show.py", "def draw():\n    import matplotlib.pyplot"),
        ("learn/export.py", "import torch\nfrom popcloud.learn.layers import BinaryLinear"),
        ("native.py", "from popcloud import _engine"),
        ("cli.py", "from popcloud import __version__"),
        ("cli.py", "if TYPE_CHECKING:\n    from popcloud.learn.recipe import Recipe"),
    ],
)
def test_law_allows(file, line):
    assert list(broken_by(ROOT / file, line)) == []


def imports_without(modules: str, missing: list[str]) -> subprocess.CompletedProcess[str]:
    """Import `modules` in a process of their own in which the `missing` packages can't be imported."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\nimport {modules}\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_everything_but_learn_runs_without_torch():
    done = imports_without(
        "popcloud, popcloud.runtime.session, popcloud.packed.file, popcloud.data, popcloud.show", ["torch"]
    )
    assert done.returncode == 0, done.stderr


def test_run_time_needs_numpy_alone():
    done = imports_without("popcloud, popcloud.runtime.session, popcloud.summary, popcloud.cli", EXTRAS)
    assert done.returncode == 0, done.stderr


def test_process_without_torch_does_notice_it():
    done = imports_without("popcloud.learn.layers", ["torch"])
    assert done.returncode != 0
    assert "torch" in done.stderr
