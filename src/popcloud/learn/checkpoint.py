"""Checkpoints: one safetensors file with its JSON record inside, so that no kill can part the two.

The record is the value of the key "popcloud" in the file's metadata:

    format     1
    digest     blake2b-16 over the record without this key, and every tensor's name and bytes in order of name
    recipe     the run's Recipe, as plain values
    classes    class names, in order
    features   of scenes: names of the data set's feature columns; of parts and blocks: of the network's input columns
    stage      of scenes: what the network was in, see popcloud.learn.scenes.network
    epoch      how many epochs it was trained for
    metrics    what was measured then, by name
    ...        in `last` what a run needs to go on, see popcloud.learn.run

and the tensors are "model.<state_dict name>", "optimizer.<parameter number>.<name>", "rng.<device>". There is no
pickle: reading a checkpoint can't run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from popcloud.errors import CheckpointError, FileError, RecipeError
from popcloud.learn import backbones
from popcloud.learn.recipe import Recipe
from popcloud.learn.scenes import network
from popcloud.learn.scenes.recipe import SceneRecipe
from popcloud.learn.tasks import AnyRecipe, parse

FORMAT = 1
LAST = "last.safetensors"
BEST = "best.safetensors"
_KEY = "popcloud"

Tensors = dict[str, Tensor]
Record = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A network as training left it.

    model     in eval mode, on the CPU
    epoch     how many epochs it was trained for
    metrics   what was measured then, by name: of the best network "validation"
    features  as the record has them
    """

    model: nn.Module
    recipe: Any
    classes: tuple[str, ...]
    epoch: int
    metrics: dict[str, float]
    features: tuple[str, ...] = ()


def load(path: str | Path) -> Trained:
    """Read a trained network: a checkpoint file, or a run's folder (its best one, else its last one).

    Raises CheckpointError if there is none, it is damaged, or it is of another network.
    """
    file = find(Path(path))
    tensors, record = read(file)
    recipe, classes, features = recipe_of(file, record), tuple(record["classes"]), tuple(record.get("features", ()))
    model = build(recipe, len(classes), features, record.get("stage"))
    load_model(model, tensors, file)
    return Trained(model.eval(), recipe, classes, int(record["epoch"]), dict(record["metrics"]), features)


def build(
    recipe: AnyRecipe, classes: int, features: tuple[str, ...] = (), stage: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the recipe's network with fresh weights.

    features  of scenes, parts and blocks: names of the columns, as the record has them
    stage     of scenes: as the record has it; without one the network is as at the end of its training
    """
    if isinstance(recipe, SceneRecipe):
        return network.build(recipe, classes, features, stage)
    if isinstance(recipe, Recipe):
        return backbones.build(
            recipe.backbone,
            classes=classes,
            binarizer=recipe.binarizer,
            pool=recipe.pool,
            points=recipe.points,
            layout=recipe.layout,
        )
    return backbones.build_points(
        recipe.backbone,
        classes=classes,
        features=features,
        binarizer=recipe.binarizer,
        pool=recipe.pool,
        points=recipe.points,
    )


def find(path: Path) -> Path:
    """Return the checkpoint file that `path` means: itself, or a folder's best, else its last."""
    candidates = [path / BEST, path / LAST] if path.is_dir() else [path]
    for file in candidates:
        if file.is_file():
            return file
    expected = f"{BEST} or {LAST} in it" if path.is_dir() else "a checkpoint file or the folder of a run"
    raise CheckpointError(f"{path}: no checkpoint; expected {expected}; make one with popcloud train")


def recipe_of(path: Path, record: Record) -> AnyRecipe:
    """Return the recipe in a record. Raises CheckpointError if this version can't carry it out."""
    try:
        return parse(record["recipe"], "its recipe")
    except RecipeError as error:
        raise CheckpointError(f"{path}: made by another version of popcloud; {error}") from error


def write(path: Path, tensors: Tensors, record: Record) -> None:
    """Write a checkpoint so that at any moment `path` is the old one or the new one, whole.

    Raises FileError if the folder can't be written; the old checkpoint stays.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    full = {"format": FORMAT, **record}
    full["digest"] = _digest(kept, full)
    write_atomically(path, save(kept, metadata={_KEY: json.dumps(full)}))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step that survives a crash. Raises FileError if it can't be written."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise FileError(f"{path}: can't be written ({error.strerror}); free space or choose another folder") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can (Windows opens no folders)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> tuple[Tensors, Record]:
    """Return the tensors and the record of a checkpoint. Raises CheckpointError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, not a dict
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}); check the path") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: no checkpoint, or a damaged one ({error}); use another one") from error
    if text is None:
        raise CheckpointError(f"{path}: safetensors, but not of popcloud; pass a file that popcloud train wrote")
    return tensors, _checked(path, text, tensors)


def _checked(path: Path, text: str, tensors: Tensors) -> Record:
    """Return the record once its version and digest are right."""
    try:
        record = json.loads(text)
        found, digest = record["format"], record.pop("digest")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its record is damaged; use another checkpoint") from error
    if found != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {found}, this version reads {FORMAT}; train again")
    if digest != _digest(tensors, record):
        raise CheckpointError(f"{path}: damaged, its digest does not match; use another checkpoint")
    return record


def _digest(tensors: Tensors, record: Record) -> str:
    """Return the digest over a record and its tensors."""
    state = hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        state.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        state.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def model_tensors(model: nn.Module) -> Tensors:
    """Return a network's parameters and buffers under "model.<name>"."""
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def load_model(model: nn.Module, tensors: Tensors, path: Path) -> None:
    """Put the tensors under "model." into a network.

    Raises CheckpointError with the first three differences if they are those of another network.
    """
    found = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    differences = _differences(model.state_dict(), found)
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(
            f"{path}: checkpoint of another network: {'; '.join(differences[:3])}{more}; use the recipe that made it"
        )
    model.load_state_dict(found)


def _differences(wanted: Tensors, found: Tensors) -> list[str]:
    """Return in words where two state dicts differ in names or shapes, in the network's order."""
    lines = []
    for name, tensor in wanted.items():
        if name not in found:
            lines.append(f"{name} is missing")
        elif found[name].shape != tensor.shape:
            lines.append(f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}")
    return lines + [f"{name} is unknown" for name in found if name not in wanted]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return an optimiser's tensors under "optimizer.<parameter number>.<name>"."""
    states = optimizer.state_dict()["state"].items()
    return {f"optimizer.{i}.{name}": t for i, state in states for name, t in state.items() if t is not None}


def optimizer_groups(optimizer: torch.optim.Optimizer) -> list[Record]:
    """Return an optimiser's settings as plain values: learning rate and the like."""
    return list(optimizer.state_dict()["param_groups"])


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, groups: list[Record]) -> None:
    """Put back what `optimizer_tensors` and `optimizer_groups` gave."""
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = tensor
    tuples = [{key: tuple(v) if key == "betas" else v for key, v in group.items()} for group in groups]
    optimizer.load_state_dict({"state": state, "param_groups": tuples})


def rng_tensors(device: torch.device) -> Tensors:
    """Return the states of PyTorch's generators that a run on `device` draws from."""
    states = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    return states


def load_rng(tensors: Tensors, device: torch.device) -> None:
    """Put back what `rng_tensors` gave."""
    torch.set_rng_state(tensors["rng.cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng.cuda"], device)
