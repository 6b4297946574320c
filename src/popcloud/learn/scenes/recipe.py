"""SceneRecipe: every choice of a run that learns a class per point of scenes, and the stages it goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from popcloud.data import SCENES
from popcloud.data.augment_scenes import AugmentScenes
from popcloud.learn.backbones import SCENE_BACKBONES
from popcloud.learn.binarizers import BINARIZERS, REAL, not_sparse
from popcloud.learn.designs import ORDERS, VARIANTS
from popcloud.learn.fields import Checked, several_classes
from popcloud.learn.shifted import CANDIDATES, CONFIDENCES, HAND_RULES

Inputs = Literal["one", "features", "height"]
MAX_EPOCHS = 100_000
RATE, FINE_RATE = 1e-3, 2e-4  # BSC-Net's supplementary: of the stages with real and with binary weights
MILESTONES = (60 / 128, 100 / 128)  # BSC-Net's supplementary: at epochs 60 and 100 of 128


class SceneAugmentation(Checked):
    """What happens to each training scene before the network sees it; the default changes nothing."""

    crop: float = Field(
        default=0.0, ge=0, le=1e5, description="edge of a square in x and y that is kept, metres; 0: all"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="largest share of points that goes")
    matrix: float = Field(default=0.0, ge=0, le=1, description="standard deviation of stretches and shears")
    mirror: bool = Field(default=False, description="x becomes -x every other time")
    rotate_z: bool | float = Field(
        default=False, ge=0, le=180, description="turn about z by up to so many degrees either way; true: any turn"
    )
    scale: tuple[float, float] = Field(default=(1.0, 1.0), description="each scene is scaled by a factor between these")
    elastic: tuple[tuple[float, float], ...] = Field(
        default=(), description="elastic distortions: pairs of granularity and magnitude, metres"
    )
    offset: float = Field(default=0.0, ge=0, le=1e5, description="shift along each axis by up to so many metres")
    colour: float = Field(default=0.0, ge=0, le=2, description="standard deviation of a shift of each colour")

    @model_validator(mode="after")
    def _possible(self) -> SceneAugmentation:
        self.build()
        return self

    def build(self) -> AugmentScenes:
        """Return what applies it to scenes. Raises RecipeError for a value out of range."""
        return AugmentScenes(**self.model_dump())


class Stage(Checked):
    """One part of a run; each but the first starts from the best network of the one before."""

    name: str = Field(description="of the stage in logs and file names", min_length=1, max_length=40)
    lr: float = Field(default=RATE, gt=0, le=10, description="learning rate at its first epoch")
    epochs: int | None = Field(
        default=None, ge=1, le=MAX_EPOCHS, description="passes over the training scenes; null: the recipe's `epochs`"
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="weight decay")
    weights: Literal["binary", "real"] = Field(
        default="binary", description="whether binary layers use the signs of their weights, or these as they are"
    )
    search: bool = Field(default=False, description="search the shifts, and fix them at the stage's end")
    fresh: bool = Field(default=False, description="take only the shifts of the stage before, and new weights")

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"expected letters, digits, - and _, as it names a file, found {name!r}")
        return name


class SceneRecipe(Checked):
    """Every choice of a run on scenes. Equal recipes on one machine give equal weights, bit for bit.

    Defaults are those of BSC-Net (Xu et al., CVPR 2023) where its supplementary says them; groups, candidates, the
    form of the confidence loss and how the stages start are inferred.
    """

    choices: ClassVar[Mapping[str, Callable[[], list[str]]]] = {
        "backbone": lambda: list(SCENE_BACKBONES),
        "variant": lambda: list(VARIANTS),
        "binarizer": lambda: list(BINARIZERS),
        "order": lambda: list(ORDERS),
        "candidates": lambda: list(CANDIDATES),
        "hand_rule": lambda: list(HAND_RULES),
        "confidence_kind": lambda: list(CONFIDENCES),
        "dataset": lambda: list(SCENES),
    }

    task: Literal["scenes"] = Field(default="scenes", description="one class per point")
    backbone: str = Field(default="unet_s", description="the network")
    variant: str = Field(
        default="net", description="real-valued; plain binarizers; BSC-Net without, with fixed, with searched shifts"
    )
    binarizer: str | None = Field(default=None, description="how signs are trained; null: what the variant says")
    order: str | None = Field(default=None, description="norm before or after a convolution; null: the variant's")
    block_layers: int = Field(default=1, ge=1, le=16, description="SSC layers of an SSC block")
    groups: int = Field(default=4, ge=1, le=1024, description="parts of a layer's channels with a shift of their own")
    candidates: str = Field(default="all", description="shifts to search: all 27, none and 8 corners, none and 6 faces")
    hand_rule: str = Field(default="faces", description="shifts of variant manual")
    separate_kernels: bool = Field(default=False, description="search with a kernel of its own for each candidate")

    dataset: str = Field(default="rooms", description="the data set")
    root: str | None = Field(default=None, description="folder of the data set; none for a generated one")
    classes: tuple[str, ...] | None = Field(default=None, description="only these classes, two at least, in this order")
    train_scenes: int | None = Field(default=None, ge=1, description="scenes of the training split; null: all")
    test_scenes: int | None = Field(default=None, ge=1, description="scenes of the other splits; null: all")
    data_seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of generated or chosen scenes")
    validation: float | None = Field(
        default=None,
        ge=0,
        le=0.5,
        description="share of training scenes kept to choose the epoch; null: split 'val', or a tenth",
    )
    validation_seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of that share")
    edge: float = Field(default=0.05, gt=0, le=1e6, description="edge of a voxel, metres")
    max_sites: int = Field(default=1 << 20, ge=8, le=1 << 22, description="voxels of a scene at most")
    inputs: tuple[Inputs, ...] = Field(
        default=("features",),
        description="per voxel: a constant one, the mean features, the mean height over ground",
    )
    augment: SceneAugmentation = Field(default=SceneAugmentation(), description="changes to training scenes")

    epochs: int = Field(default=128, ge=1, le=MAX_EPOCHS, description="passes over the training scenes in each stage")
    stages: tuple[Stage, ...] | None = Field(default=None, description="parts of the run; null: by the variant")
    inherit_search: bool = Field(default=False, description="after the search keep its weights, not only its shifts")
    repeat: int = Field(default=1, ge=1, le=65_536, description="views of each scene in an epoch, each changed anew")
    batch: int = Field(default=8, ge=1, le=4096, description="scenes per step")
    schedule: Literal["step", "cosine", "constant"] = Field(default="step", description="learning rate over a stage")
    milestones: tuple[float, ...] = Field(
        default=MILESTONES, description="shares of a stage at which schedule 'step' takes a step"
    )
    step_factor: float = Field(default=0.1, gt=0, le=1, description="factor at each of them")
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = Field(
        default="none", description="of the loss: equal, by the inverse of their points, or one number per class"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")
    confidence: float | None = Field(
        default=None, ge=0, le=100, description="weight of the confidence loss in a search; null: fcn 0.1, unet 0.01"
    )
    confidence_kind: str = Field(default="entropy", description="how undecided a choice is")
    logits_lr: float = Field(default=1e-3, gt=0, le=10, description="learning rate of the choices in a search")
    teacher: str | None = Field(
        default=None, description="run of a real-valued twin to learn from as well; not in the paper"
    )
    distill: float = Field(default=1.0, ge=0, le=100, description="weight of what the teacher says")
    temperature: float = Field(default=2.0, gt=0, le=100, description="softening of both answers for that")
    views: int = Field(default=1, ge=1, le=64, description="turned and mirrored views averaged in the final test")

    seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of weights, order and augmentation")
    workers: int = Field(default=0, ge=0, le=256, description="processes that make batches ahead; 0: none")
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="threads of PyTorch; none leaves its own choice"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the network is trained")
    save_every: int = Field(
        default=0, ge=0, description="batches between checkpoints inside an epoch; 0: at its end only"
    )
    tensorboard: bool = Field(default=False, description="write TensorBoard events beside the log")

    _several = field_validator("classes")(several_classes)

    @field_validator("binarizer")
    @classmethod
    def _sparse(cls, binarizer: str | None) -> str | None:
        if why := not_sparse(binarizer or REAL):
            raise ValueError(why)
        return binarizer

    @field_validator("inputs")
    @classmethod
    def _some(cls, inputs: tuple[Inputs, ...]) -> tuple[Inputs, ...]:
        if not inputs or len(set(inputs)) < len(inputs):
            raise ValueError(f"expected one, features, height: one of them at least, none twice; found {list(inputs)}")
        return inputs

    @field_validator("milestones")
    @classmethod
    def _rising(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in shares) or list(shares) != sorted(shares):
            raise ValueError(f"expected rising shares between 0 and 1, found {list(shares)}")
        return shares

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[Stage, ...] | None) -> tuple[Stage, ...] | None:
        if stages is not None:
            check_stages(stages)
        return stages

    @model_validator(mode="after")
    def _fitting(self) -> SceneRecipe:
        searching = [stage.name for stage in self.stages or () if stage.search]
        if searching and self.variant != "net":
            raise ValueError(
                f"stages: {searching[0]} searches shifts, which variant net alone has; found {self.variant}"
            )
        return self

    @property
    def confidence_weight(self) -> float:
        """Return the weight of the confidence loss (BSC-Net's supplementary: FCN 0.1, UNET 0.01)."""
        if self.confidence is not None:
            return self.confidence
        return 0.1 if self.backbone.startswith("fcn") else 0.01

    def plan(self) -> tuple[Stage, ...]:
        """Return the stages of the run, each with its number of epochs."""
        stages = self.stages or default_stages(self.variant, inherit=self.inherit_search)
        return tuple(stage.model_copy(update={"epochs": stage.epochs or self.epochs}) for stage in stages)

    def options(self) -> dict[str, Any]:
        """Return what a network is built with besides its classes and inputs."""
        options: dict[str, Any] = {"block_layers": self.block_layers}
        options |= {"variant": self.variant, "binarizer": self.binarizer}
        if self.order is not None:
            options["order"] = self.order
        if self.variant == "manual":
            options |= {"groups": self.groups, "hand_rule": self.hand_rule}
        if self.variant == "net":
            options |= {"groups": self.groups, "candidates": self.candidates, "separate_kernels": self.separate_kernels}
        return options


def check_stages(stages: Sequence[Stage]) -> None:
    """Raise ValueError if there are none, two of one name, or the last one leaves the network half done."""
    names = [stage.name for stage in stages]
    if not stages or len(set(names)) < len(names):
        raise ValueError(f"expected one stage at least, of different names, found {names}")
    if stages[0].fresh:
        raise ValueError(f"the first one, {names[0]}, has none before it whose shifts it could take; leave out fresh")
    if stages[-1].search:
        raise ValueError(f"the last one, {names[-1]}, searches; add one that trains with what it found")


def default_stages(variant: str, *, inherit: bool = False) -> tuple[Stage, ...]:
    """Return the stages of a variant.

    The rates of one to three stages are those of BSC-Net's supplementary. What each stage does is inferred: binary
    activations first, then binary weights too (Real-to-Binary 2020), and before both the search with real weights.
    """
    real = Stage(name="real_weights", lr=RATE, weights="real")
    binary = Stage(name="binary", lr=FINE_RATE, weights="binary")
    if variant == "real":
        return (Stage(name="real", lr=RATE, weights="real"),)
    if variant in ("baseline", "manual"):
        return real, binary
    if variant != "net":
        return (Stage(name="binary", lr=RATE, weights="binary"),)
    search = Stage(name="search", lr=RATE, weights="real", search=True)
    return search, real.model_copy(update={"fresh": not inherit}), binary
