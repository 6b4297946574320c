"""Recipe: every choice of a run that trains a classifier, checked, frozen, read from YAML and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from popcloud.data import DATASETS
from popcloud.data.augment import Augment
from popcloud.learn import fields as settings
from popcloud.learn.backbones import BACKBONES
from popcloud.learn.binarizers import BINARIZERS, REAL
from popcloud.learn.fields import Checked, differing, several_classes
from popcloud.learn.layers import POOLS

__all__ = ["Augmentation", "Network", "Recipe", "Training", "differing", "document", "load", "parse"]

Choices = Mapping[str, Callable[[], list[str]]]
COMMON_CHOICES: dict[str, Callable[[], list[str]]] = {
    "binarizer": lambda: list(dict.fromkeys([*BINARIZERS, "real"])),
    "pool": lambda: list(POOLS),
}


class Augmentation(Checked):
    """What happens to each training cloud before the network sees it; the default changes nothing."""

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


class Network(Checked):
    """What is trained, whatever it learns; a task's own fields come next, then those of Training."""

    task: str = Field(default="", description="what is learnt")
    backbone: str = Field(default="", description="the network")
    binarizer: str = Field(default="lsr", description="how signs are trained; 'real' is the real-valued twin")
    pool: str = Field(default="ema-max", description="how a cloud's points become one row")


class Training(Checked):
    """How weights move and where that runs, whatever is learnt."""

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

    start: str | None = Field(
        default=None, description="run to take weights from where they fit: a binary network's real-valued twin"
    )
    teacher: str | None = Field(
        default=None, description="run of a real-valued twin to learn from as well; not in the paper"
    )
    distill: float = Field(default=1.0, ge=0, le=100, description="weight of what the teacher says")
    temperature: float = Field(default=2.0, gt=0, le=100, description="softening of both answers for that")

    seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of weights, order and augmentation")
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="threads of PyTorch; none leaves its own choice"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the network is trained")
    save_every: int = Field(
        default=0, ge=0, description="batches between checkpoints inside an epoch; 0: at its end only"
    )
    tensorboard: bool = Field(default=False, description="write TensorBoard events beside the log")

    @model_validator(mode="after")
    def _fitting(self) -> Training:
        binarizer = getattr(self, "binarizer", REAL)  # the field of Network, which a task's recipe is too
        if self.optimizer == "sgd" and binarizer in BINARIZERS and BINARIZERS[binarizer].moments:
            raise ValueError(
                f"binarizer {binarizer} needs an optimizer that keeps second moments, adam or adamw, found sgd"
            )
        return self


class Classification(Network):
    """What is learnt from which clouds, of networks with one class per cloud."""

    task: Literal["classification"] = Field(default="classification", description="one class per cloud")
    backbone: str = Field(default="pointnet_vanilla", description="the network")
    layout: Literal["own", "official"] = Field(
        default="own", description="of its layers; 'official': as BiPointNet's release, for networks imported from it"
    )

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

    _several = field_validator("classes")(several_classes)


class Recipe(Training, Classification):
    """Every choice of a run. Equal recipes on one machine give equal weights, bit for bit."""

    choices: ClassVar[Choices] = COMMON_CHOICES | {
        "backbone": lambda: list(BACKBONES),
        "dataset": lambda: list(DATASETS),
    }


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    path       a YAML file with some of Recipe's fields, or None for the defaults
    overrides  "key=value" or "key.sub=value", values written as in YAML; they win over the file
    Raises RecipeError, one line, for a file that can't be read, a misspelt field, or a value out of range.
    """
    return parse(settings.read(path, overrides), str(path) if path is not None else "recipe")


def parse(fields: dict[str, Any], source: str = "recipe") -> Recipe:
    """Make a recipe from plain values; `source` names their origin in the RecipeError they may cause."""
    return settings.parse(Recipe, fields, source)


def document() -> str:
    """Return a markdown table of all fields: name, default, what is allowed, meaning."""
    return settings.document(Recipe)
