"""Recipe: every choice of a training run, checked, frozen, and read from YAML and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from popcloud.data import DATASETS
from popcloud.data.augment import Augment
from popcloud.errors import RecipeError, unknown
from popcloud.learn.backbones import BACKBONES
from popcloud.learn.binarizers import BINARIZERS
from popcloud.learn.layers import POOLS

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class Augmentation(BaseModel):
    """What happens to each training cloud before the network sees it; the default changes nothing."""

    model_config = _FROZEN

    scale: tuple[float, float] = Field(
        default=(1.0, 1.0), description="each cloud is scaled by a factor between these two"
    )
    translate: float = Field(default=0.0, ge=0, le=10, description="largest shift of a cloud along each axis")
    jitter: float = Field(
        default=0.0, ge=0, le=1, description="standard deviation of the noise added to each coordinate"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="largest share of points replaced by the cloud's first one"
    )
    rotate_z: bool | float = Field(
        default=False, ge=0, le=180, description="turn about z by up to so many degrees either way; true: any turn"
    )

    @field_validator("scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"expected 0 < low <= high, found {list(scale)}")
        return scale

    def build(self) -> Augment:
        """Return what applies it to clouds."""
        return Augment(**self.model_dump())


class Recipe(BaseModel):
    """Every choice of a run. Equal recipes on one machine give equal weights, bit for bit."""

    model_config = _FROZEN

    backbone: str = Field(default="pointnet_vanilla", description="the network")
    binarizer: str = Field(default="lsr", description="how signs are trained; 'real' is the real-valued twin")
    pool: str = Field(default="ema-max", description="how a cloud's points become one row")

    dataset: str = Field(default="shapes", description="the data set")
    root: str | None = Field(default=None, description="folder of the data set; none for a generated one")
    classes: tuple[str, ...] | None = Field(default=None, description="only these classes, two at least, in this order")
    points: int = Field(default=1024, ge=1, le=1 << 20, description="points per cloud")
    train_size: int | None = Field(
        default=None, ge=2, le=10_000_000, description="clouds of the training split; null: all"
    )
    test_size: int | None = Field(default=None, ge=1, le=10_000_000, description="clouds of the test split; null: all")
    data_seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of generated or sampled clouds")
    validation: float = Field(
        default=0.1, ge=0, le=0.5, description="share of each training class kept to choose the epoch"
    )
    validation_seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of the validation split")
    augment: Augmentation = Field(default=Augmentation(), description="changes to training clouds")

    epochs: int = Field(default=60, ge=1, le=100_000, description="passes over the training clouds")
    batch: int = Field(default=32, ge=2, le=65_536, description="clouds per step")
    optimizer: Literal["adam", "adamw", "sgd"] = Field(default="adam", description="how weights move")
    lr: float = Field(default=1e-3, gt=0, le=10, description="learning rate at the first epoch")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="weight decay")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of sgd")
    schedule: Literal["cosine", "constant", "step"] = Field(default="cosine", description="learning rate over epochs")
    step_epochs: int = Field(default=20, ge=1, le=100_000, description="epochs between the steps of schedule 'step'")
    step_factor: float = Field(default=0.7, gt=0, le=1, description="factor at each step of schedule 'step'")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")
    transform_penalty: float = Field(
        default=0.001, ge=0, le=100, description="weight of the feature-transform regulariser"
    )

    seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of weights, order and augmentation")
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="threads of PyTorch; none leaves its own choice"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the network is trained")
    save_every: int = Field(
        default=0, ge=0, description="batches between checkpoints inside an epoch; 0: at its end only"
    )
    tensorboard: bool = Field(default=False, description="write TensorBoard events beside the log")

    @field_validator("classes")
    @classmethod
    def _several(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(classes) < 2:
            raise ValueError(f"expected two class names at least, found {list(classes)}; leave it out for all")
        return classes

    @field_validator("backbone", "binarizer", "pool", "dataset")
    @classmethod
    def _known(cls, name: str, info: Any) -> str:
        if name not in CHOICES[info.field_name]():
            raise ValueError(unknown(info.field_name, name, CHOICES[info.field_name]()))
        return name


# Members are looked up at each check, so that a part added to its dictionary is known at once.
CHOICES: dict[str, Callable[[], list[str]]] = {
    "backbone": lambda: list(BACKBONES),
    "binarizer": lambda: list(dict.fromkeys([*BINARIZERS, "real"])),
    "pool": lambda: list(POOLS),
    "dataset": lambda: list(DATASETS),
}


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    path       a YAML file with some of Recipe's fields, or None for the defaults
    overrides  "key=value" or "key.sub=value", values written as in YAML; they win over the file
    Raises RecipeError, one line, for a file that can't be read, a misspelt field, or a value out of range.
    """
    fields = _read(Path(path)) if path is not None else {}
    for override in overrides:
        _override(fields, override)
    return parse(fields, str(path) if path is not None else "recipe")


def parse(fields: dict[str, Any], source: str = "recipe") -> Recipe:
    """Make a recipe from plain values; `source` names their origin in the RecipeError they may cause."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_line(error)}") from None


def differing(one: Recipe, other: Recipe) -> list[str]:
    """Return the names of the fields in which two recipes differ, nested ones as "augment.scale"."""
    a, b = _flat(one.model_dump()), _flat(other.model_dump())
    return [name for name in a if a[name] != b[name]]


def document() -> str:
    """Return a markdown table of all fields: name, default, what is allowed, meaning."""
    rows = ["| field | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, field, default in _fields(Recipe, Recipe(), ""):
        rows.append(f"| {name} | {_text(default)} | {_allowed(name, field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _read(path: Path) -> dict[str, Any]:
    """Return the fields of a YAML file."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: recipe can't be read ({error.strerror}); pass the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, {getattr(error, 'problem', '')}" if mark else "not text"
        raise RecipeError(f"{path}: not YAML ({where}); write one 'field: value' a line") from error
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise RecipeError(f"{path}: expected lines 'field: value', found a {type(fields).__name__}")
    return fields


def _override(fields: dict[str, Any], override: str) -> None:
    """Put one "key.sub=value" into `fields`."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"override {override!r}: expected key=value, for example epochs=30 or augment.jitter=0.01")
    *parents, last = key.strip().split(".")
    for parent in parents:
        below = fields.setdefault(parent, {})
        if not isinstance(below, dict):
            raise RecipeError(f"override {override!r}: {parent!r} has no fields of its own; write {parent}=value")
        fields = below
    try:
        fields[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"override {override!r}: {text!r} is no YAML value; put it in quotes") from error


def _line(error: ValidationError) -> str:
    """Return the first complaint of pydantic as one line."""
    first = error.errors(include_url=False)[0]
    names = [str(part) for part in first["loc"]]
    if first["type"] in ("extra_forbidden", "invalid_key"):
        model = Augmentation if names[0] == "augment" and len(names) > 1 else Recipe
        return unknown("recipe field", names[-1], model.model_fields)
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return text if text.startswith("unknown") else f"{'.'.join(names)}: {text}"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{'.'.join(names)}: expected {expected}, found {first['input']!r}"


def _fields(model: type[BaseModel], values: BaseModel, prefix: str) -> Iterable[tuple[str, Any, Any]]:
    """Yield (name, field, default) of a model, those of nested models in their place."""
    for name, field in model.model_fields.items():
        default = getattr(values, name)
        if isinstance(default, BaseModel):
            yield from _fields(type(default), default, f"{prefix}{name}.")
        else:
            yield prefix + name, field, default


def _allowed(name: str, field: Any) -> str:
    """Return what a field may hold, in words."""
    if name in CHOICES:
        return ", ".join(CHOICES[name]())
    if getattr(field.annotation, "__origin__", None) is Literal:
        return ", ".join(field.annotation.__args__)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}
    bounds = [f"{signs[key]} {value}" for part in field.metadata for key, value in _values_of(part) if key in signs]
    plain = isinstance(field.annotation, type) and not get_args(field.annotation)
    kind = field.annotation.__name__ if plain else str(field.annotation).replace("|", "or")
    return ", ".join([kind, *bounds])


def _values_of(part: Any) -> list[tuple[str, Any]]:
    """Return the (name, value) pairs of one of pydantic's bounds."""
    return [(key, getattr(part, key)) for key in getattr(part, "__slots__", ()) or vars(part)]


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _text(value: Any) -> str:
    """Return a value as one would write it in YAML."""
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
