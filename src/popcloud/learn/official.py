"""Checkpoints of BiPointNet's release (github.com/htqin/BiPointNet, Qin et al. 2021) become checkpoints of popcloud.

A table per network says which of its layers is which of ours; names and shapes that a file must have follow from that.
What becomes of the numbers:

weight                  ours, as it is
bias                    before a batch norm taken off its running mean; else ours; Bi-Real's is ignored, there as here
scale                   of BiLinearLSR: alpha; 0 stands for "from the first batch", see `settle`
k, t                    of BiLinearIRNet: of the gradient alone, left out
weight, bias, running_* of a batch norm, as they are
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from popcloud.cloud import Floats
from popcloud.data import modelnet40
from popcloud.errors import CheckpointError, RecipeError, unknown
from popcloud.learn import backbones, checkpoint
from popcloud.learn.backbones.official import POOLS, Late
from popcloud.learn.binarizers import REAL, BiReal, IrNet, Lsr
from popcloud.learn.layers import Weighted, binary_layers
from popcloud.learn.norms import Norm
from popcloud.learn.recipe import Recipe

BINARIZERS = (REAL, "bnn", "xnor", "bireal", "irnet", "lsr")
CLASSES, POINTS = modelnet40.CLASSES, 1024
NESTED = ("model", "state_dict", "model_state_dict", "net")  # where checkpoints of other scripts keep the tensors
NORM = ("weight", "bias", "running_mean", "running_var")
COUNT = "num_batches_tracked"  # absent in old files

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """A layer of ours by its name, and where a checkpoint of the release has it.

    linear, norm  prefixes of its names, without the last dot; norm "": it has no batch norm
    """

    ours: str
    linear: str
    norm: str = ""


@dataclass(frozen=True)
class Part:
    """A layer of ours with what a checkpoint has of it."""

    place: Place
    layer: Weighted
    norm: Norm | None
    layer_name: str
    norm_name: str

    @property
    def has_bias(self) -> bool:
        """Return whether the release's layer has a bias."""
        return not isinstance(self.layer.binarizer, Lsr)

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names and shapes that a checkpoint has."""
        layer, at = self.layer, self.place.linear
        yield f"{at}.weight", (layer.outputs, layer.inputs)
        if self.has_bias:
            yield f"{at}.bias", (layer.outputs,)
        if isinstance(layer.binarizer, Lsr):
            yield f"{at}.scale", ()
        if isinstance(layer.binarizer, IrNet):
            yield from ((f"{at}.{name}", (1,)) for name in ("k", "t"))
        if self.norm is not None:
            yield from ((f"{self.place.norm}.{name}", (layer.outputs,)) for name in NORM)
            yield f"{self.place.norm}.{COUNT}", ()

    def converted(self, found: Tensors) -> Iterator[tuple[str, Tensor]]:
        """Yield our names and tensors."""
        layer, at, ours = self.layer, self.place.linear, self.layer_name
        yield f"{ours}.weight", found[f"{at}.weight"]
        bias = found[f"{at}.bias"] if self.has_bias and not isinstance(layer.binarizer, BiReal) else None
        if isinstance(layer.binarizer, Lsr):
            yield f"{ours}.binarizer.alpha", found[f"{at}.scale"].reshape(1)
        if layer.bias is not None and bias is not None:
            yield f"{ours}.bias", bias
        if self.norm is not None:
            for name in (*NORM, COUNT):
                kept = found.get(f"{self.place.norm}.{name}", torch.zeros((), dtype=torch.int64))
                folds = name == "running_mean" and layer.bias is None and bias is not None
                yield f"{self.norm_name}.{name}", kept - bias if folds and bias is not None else kept


def places(backbone: str, binarizer: str) -> list[Place]:
    """Return where the release has the layers of a network. Raises RecipeError for what it or we don't have."""
    if binarizer not in BINARIZERS:
        raise RecipeError(unknown("binarizer of the release", binarizer, BINARIZERS))
    if backbone == "pointcnn":
        raise RecipeError(
            "pointcnn: the release's X-Conv sums over the other side of its matrix, picks dilated neighbours by "
            f"chance and has ELU, which no program can say; can be imported: {', '.join(PLACES)}"
        )
    if backbone not in PLACES:
        raise RecipeError(unknown("backbone of the release", backbone, PLACES))
    return PLACES[backbone](binarizer != REAL)


def _pointnet_vanilla(_: bool) -> list[Place]:
    trunk = [Place(f"conv{i}", f"feat.conv{i}.lin", f"feat.bn{i}") for i in (1, 2, 3)]
    return [*trunk, Place("fc1", "fc1", "bn1"), Place("fc2", "fc2", "bn2"), Place("classifier", "fc3")]


def _pointnet(binary: bool) -> list[Place]:
    nets = [*_t_net("input_net", "feat.stn"), *_t_net("feature_net", "feat.fstn")]
    return [*nets, *_pointnet_vanilla(binary)]


def _t_net(ours: str, theirs: str) -> list[Place]:
    convs = [Place(f"{ours}.conv{i}", f"{theirs}.conv{i}.lin", f"{theirs}.bn{i}") for i in (1, 2, 3)]
    heads = [Place(f"{ours}.fc{i}", f"{theirs}.fc{i}", f"{theirs}.bn{i + 3}") for i in (1, 2)]
    return [*convs, *heads, Place(f"{ours}.fc3", f"{theirs}.fc3")]


def _dgcnn(binary: bool) -> list[Place]:
    head = ("mlp.0", "mlp.1", "mlp.2") if binary else ("mlp.0", "mlp.2", "mlp.4")  # dropout between, if real-valued
    return [
        *_chain("edges1", "conv1.nn", 3, lifted=binary),
        *_chain("edges2", "conv2.nn", 1),
        Place("conv3", "lin1.0.0", "lin1.0.2"),
        *(Place(f"fc{i}", f"{head[i - 1]}.0.0", f"{head[i - 1]}.0.2") for i in (1, 2)),
        Place("classifier", head[2]),
    ]


def _pointnet2(binary: bool) -> list[Place]:
    levels = [
        *_chain("sa1", "sa1_module.conv.local_nn", 3, lifted=binary),
        *_chain("sa2", "sa2_module.conv.local_nn", 3),
        *_chain("sa3", "sa3_module.nn", 3),
    ]
    return [*levels, Place("fc1", "lin1"), Place("fc2", "lin2"), Place("classifier", "lin3")]


def _chain(ours: str, theirs: str, count: int, *, lifted: bool = False) -> list[Place]:
    """Return layers one after the other, each linear (0), activation (1), batch norm (2); `lifted`: one bare first."""
    if lifted:
        rest = _chain(ours, f"{theirs}.1", count - 1)
        moved = [replace(place, ours=f"{ours}.{i}") for i, place in enumerate(rest, start=1)]
        return [Place(f"{ours}.0", f"{theirs}.0"), *moved]
    return [Place(f"{ours}.{i}", f"{theirs}.{i}.0", f"{theirs}.{i}.2") for i in range(count)]


PLACES = {
    "pointnet_vanilla": _pointnet_vanilla,
    "pointnet": _pointnet,
    "pointnet2": _pointnet2,
    "dgcnn": _dgcnn,
}


def read(path: Path) -> Tensors:
    """Return the tensors of a file that torch.save wrote, zip or legacy, by name; nothing in it is executed.

    Nested dictionaries of `NESTED` and the prefix that DataParallel adds are taken off.
    Raises CheckpointError for other files, and for pickles of more than tensors and plain values.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}); check the path") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_why(error)}") from error
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{path}: no checkpoint, or a damaged one; pass a file that torch.save wrote") from error
    for _ in range(2):
        inner = next((found[name] for name in NESTED if isinstance(found, Mapping) and name in found), None)
        found = inner if isinstance(inner, Mapping) else found
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise CheckpointError(
            f"{path}: expected a state dict, names with tensors; found {_what(found)}; save that alone"
        )
    prefixed = all(str(name).startswith("module.") for name in found)
    return {str(name).removeprefix("module.") if prefixed else str(name): t for name, t in found.items()}


def _why(error: Exception) -> str:
    """Return what a refused pickle is, in words."""
    text = str(error)
    if "Unsupported global" in text or "Unsupported class" in text or "Unsupported operand" in text:
        name = text.partition("GLOBAL ")[2].split(" ", 1)[0] or "an object"
        return f"a pickle with more than tensors ({name}), which could run code, is not read; save its state_dict alone"
    return "no checkpoint, or a damaged one; pass a file that torch.save wrote"


def _what(found: object) -> str:
    """Return in words what is no state dict."""
    if isinstance(found, Mapping):
        return f"a dictionary of {', '.join(map(str, list(found)[:3]))}" if found else "an empty dictionary"
    return f"a {type(found).__name__}"


@torch.no_grad()
def converted(found: Tensors, model: nn.Module, table: list[Place], source: str) -> Tensors:
    """Return our state dict of the release's tensors. Raises CheckpointError with the first three differences."""
    parts = [_part(model, place) for place in table]
    expected = {name: shape for part in parts for name, shape in part.shapes()}
    differences = [*_differing(expected, found), *(f"unexpected {name}" for name in found if name not in expected)]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(
            f"{source}: not of this network: {'; '.join(differences[:3])}{more}; check backbone and binarizer"
        )
    floats = {name: t.float() if t.is_floating_point() else t for name, t in found.items()}
    for name, tensor in floats.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{source}: {name}: expected finite numbers, found NaN or infinity; use another file")
    return {name: tensor.clone() for part in parts for name, tensor in part.converted(floats)}


def _part(model: nn.Module, place: Place) -> Part:
    module: Any = model.get_submodule(place.ours)
    if isinstance(module, Late):
        return Part(place, module.linear, module.norm.norm, f"{place.ours}.linear", f"{place.ours}.norm.norm")
    return Part(place, module, module.norm, place.ours, f"{place.ours}.norm")


def _differing(expected: Mapping[str, tuple[int, ...]], found: Tensors) -> Iterator[str]:
    """Yield in words what is missing or has another shape, in the network's order."""
    for name, shape in expected.items():
        if name not in found:
            if not name.endswith(COUNT):
                yield f"missing {name}"
        elif tuple(found[name].shape) != shape:
            yield f"{name}: expected shape {list(shape)}, found {list(found[name].shape)}"


def unsettled(model: nn.Module) -> list[str]:
    """Return the layers whose scale the checkpoint does not have: 0, found anew from each batch.

    So it is where the release trained on several GPUs without its `scale_dynamic_init`.
    """
    layers = binary_layers(model)
    return [n for n, layer in layers if isinstance(layer.binarizer, Lsr) and not bool(layer.binarizer.alpha.any())]


@torch.no_grad()
def settle(model: nn.Module, clouds: Tensor) -> None:
    """Set scales of 0 by a batch (B, n, 3), layer by layer in eval mode, as the release does at its first batch."""

    def see(layer: Any, args: tuple[Tensor, ...]) -> None:
        layer.binarizer.initialise(args[0], layer.weight)

    wanted = [model.get_submodule(name) for name in unsettled(model)]
    handles = [layer.register_forward_pre_hook(see) for layer in wanted]
    try:
        model.eval()(clouds)
    finally:
        for handle in handles:
            handle.remove()


def load(
    path: Path, backbone: str, binarizer: str, pool: str, *, clouds: Callable[[], Floats] | None = None
) -> nn.Module:
    """Return a network in eval mode that answers what the release's answers with this checkpoint.

    clouds  gives (B, n, 3), to find scales that the checkpoint does not have
    Raises CheckpointError, and RecipeError for a network that can't be had.
    """
    table = places(backbone, binarizer)
    if pool not in POOLS or (binarizer == REAL and pool == "ema-max"):
        raise RecipeError(unknown("pool of the release", pool, POOLS[:2] if binarizer == REAL else POOLS))
    model = backbones.build(
        backbone, classes=len(CLASSES), binarizer=binarizer, pool=pool, points=POINTS, layout="official"
    )
    model.load_state_dict(converted(read(path), model, table, str(path)))
    missing = unsettled(model)
    if missing and clouds is None:
        raise CheckpointError(
            f"{path}: {len(missing)} layers have scale 0 ({missing[0]}, ...): the release found theirs from each batch "
            "anew; pass --root, ModelNet40's folder, to find them once"
        )
    if missing and clouds is not None:
        settle(model, torch.from_numpy(clouds()))
    return model.eval()


def write(model: nn.Module, out: Path, *, backbone: str, binarizer: str, pool: str, root: Path | None = None) -> Path:
    """Write the network as the best one of a run in folder `out`, made if absent; return the file.

    root  the folder of ModelNet40, for the recipe
    Raises CheckpointError if there is a checkpoint already.
    """
    for name in (checkpoint.BEST, checkpoint.LAST):
        if (out / name).exists():
            raise CheckpointError(f"{out}: holds a checkpoint already, {name}; choose another folder")
    recipe = Recipe(
        backbone=backbone,
        binarizer=binarizer,
        pool=pool,
        layout="official",
        dataset="modelnet40",
        root=None if root is None else str(root),
        points=POINTS,
    )
    out.mkdir(parents=True, exist_ok=True)
    record = {"recipe": recipe.model_dump(mode="json"), "classes": list(CLASSES), "epoch": 0, "metrics": {}}
    checkpoint.write(out / checkpoint.BEST, checkpoint.model_tensors(model), record)
    return out / checkpoint.BEST
