"""Settings that are checked, frozen, and read from YAML and the command line: what every kind of recipe shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from popcloud.errors import RecipeError, unknown

Fields = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)


def several_classes(classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the class names a recipe asks for. Raises ValueError if it is a single one."""
    if classes is not None and len(classes) < 2:
        raise ValueError(f"expected two class names at least, found {list(classes)}; leave it out for all")
    return classes


class Checked(BaseModel):
    """A frozen set of fields; unknown ones, and numbers that are not finite, are refused.

    choices  for a field that names a member of a family: the names, looked up at each check, so that a part added to
             its dictionary is known at once
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
    choices: ClassVar[Mapping[str, Callable[[], list[str]]]] = {}

    @field_validator("*")
    @classmethod
    def _known(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        if name in cls.choices and value is not None and value not in cls.choices[name]():
            raise ValueError(unknown(name, value, cls.choices[name]()))
        return value


def read(path: str | Path | None, overrides: Sequence[str]) -> Fields:
    """Return the fields that a recipe's file and its changes give, not yet checked.

    path       a YAML file, or None for none
    overrides  "key=value" or "key.sub=value", values written as in YAML; they win over the file
    Raises RecipeError, one line, for a file that can't be read or a change that is none.
    """
    fields = _read(Path(path)) if path is not None else {}
    for override in overrides:
        _override(fields, override)
    return fields


def parse(model: type[Model], fields: Fields, source: str) -> Model:
    """Make a recipe from plain values; `source` names their origin in the RecipeError they may cause."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_line(model, error)}") from None


def differing(one: BaseModel, other: BaseModel) -> list[str]:
    """Return the names of the fields in which two recipes of one kind differ, nested ones as "augment.scale"."""
    a, b = _flat(one.model_dump()), _flat(other.model_dump())
    return [name for name in a if a[name] != b.get(name)]


def document(model: type[BaseModel]) -> str:
    """Return a markdown table of all fields of a recipe: name, default, what is allowed, meaning."""
    rows = ["| field | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, owner, default in _fields(model, model(), ""):
        field = owner.model_fields[name.split(".")[-1]]
        rows.append(f"| {name} | {_text(default)} | {_allowed(name, owner, field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _read(path: Path) -> Fields:
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


def _override(fields: Fields, override: str) -> None:
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


def _line(model: type[BaseModel], error: ValidationError) -> str:
    """Return the first complaint of pydantic as one line."""
    first = error.errors(include_url=False)[0]
    names = [str(part) for part in first["loc"]]
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return unknown("recipe field", names[-1], _owner(model, names[:-1]).model_fields)
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return text if text.startswith("unknown") else f"{'.'.join(names) or 'recipe'}: {text}"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{'.'.join(names)}: expected {expected}, found {first['input']!r}"


def _owner(model: type[BaseModel], names: Sequence[str]) -> type[BaseModel]:
    """Return the model that a path of field names and list positions leads to."""
    for name in names:
        if name in model.model_fields:
            model = _model_in(model.model_fields[name].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a type is, or is a list or an option of; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _fields(model: type[BaseModel], values: BaseModel | None, prefix: str) -> Iterable[tuple[str, Any, Any]]:
    """Yield (name, the model that has it, default) of all fields, those of nested models in their place."""
    for name, field in model.model_fields.items():
        default = getattr(values, name) if values is not None else field.default
        below = _model_in(field.annotation)
        if isinstance(default, BaseModel):
            yield from _fields(type(default), default, f"{prefix}{name}.")
            continue
        yield prefix + name, model, default
        if below is not None:  # a list of models
            yield from _fields(below, None, f"{prefix}{name}[].")


def _allowed(name: str, owner: type[BaseModel], field: Any) -> str:
    """Return what a field may hold, in words."""
    if issubclass(owner, Checked) and name in owner.choices:
        return ", ".join(owner.choices[name]())
    if get_origin(field.annotation) is Literal:
        return ", ".join(field.annotation.__args__)
    if _model_in(field.annotation):
        return "a list of fields" + (" or null" if type(None) in get_args(field.annotation) else "")
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}
    bounds = [f"{signs[key]} {value}" for part in field.metadata for key, value in _values_of(part) if key in signs]
    plain = isinstance(field.annotation, type) and not get_args(field.annotation)
    kind = field.annotation.__name__ if plain else str(field.annotation).replace("typing.", "").replace("|", "or")
    return ", ".join([kind, *bounds])


def _values_of(part: Any) -> list[tuple[str, Any]]:
    """Return the (name, value) pairs of one of pydantic's bounds."""
    return [(key, getattr(part, key)) for key in getattr(part, "__slots__", ()) or vars(part)]


def _flat(fields: Fields, prefix: str = "") -> Fields:
    """Return nested fields under dotted names."""
    flat: Fields = {}
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
