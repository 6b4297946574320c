"""Every choice of a run that learns a class per point: of objects' parts, and of blocks of rooms."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from popcloud.data import BLOCKS, PARTS, SCENES
from popcloud.learn.backbones import BLOCK_BACKBONES, PART_BACKBONES
from popcloud.learn.fields import Checked, several_classes
from popcloud.learn.recipe import COMMON_CHOICES, Choices, Network, Training


class PartAugmentation(Checked):
    """What happens to each training object once it lies in the unit sphere; the defaults are BiPointNet's."""

    rotate: float = Field(default=15.0, ge=0, le=180, description="turn by up to so many degrees about x, y and z each")
    translate: float = Field(default=0.01, ge=0, le=10, description="largest shift of an object along each axis")
    jitter: float = Field(
        default=0.0, ge=0, le=1, description="standard deviation of the noise added to each coordinate"
    )


class Parts(Network):
    """What is learnt from which objects, of networks that find their parts."""

    task: Literal["parts"] = Field(default="parts", description="a part per point of objects")
    backbone: str = Field(default="pointnet_parts_vanilla", description="the network")

    dataset: str = Field(default="parts", description="the data set")
    root: str | None = Field(default=None, description="folder of the data set; none for a generated one")
    categories: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="only these categories, in this order; null: all"
    )
    category_input: bool = Field(
        default=True, description="the network is told the category; false, with one category: a network for each"
    )
    normals: bool = Field(default=True, description="the network sees normals too, where the data set has them")
    points: int = Field(default=2048, ge=1, le=1 << 20, description="points per object, other ones of it in each epoch")
    train_size: int | None = Field(
        default=None, ge=2, le=10_000_000, description="objects of the training split; null: all"
    )
    validation_size: int | None = Field(
        default=None, ge=0, le=10_000_000, description="objects of the split val; 0: none, the last epoch counts"
    )
    test_size: int | None = Field(default=None, ge=1, le=10_000_000, description="objects of the test split; null: all")
    data_seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of generated or sampled objects")
    augment: PartAugmentation = Field(default=PartAugmentation(), description="changes to training objects")


class PartRecipe(Training, Parts):
    """Every choice of a run on objects with parts."""

    choices: ClassVar[Choices] = COMMON_CHOICES | {
        "backbone": lambda: list(PART_BACKBONES),
        "dataset": lambda: list(PARTS),
    }


class Blocks(Network):
    """What is learnt from which rooms, of networks that give each point of a block its class."""

    task: Literal["blocks"] = Field(default="blocks", description="a class per point of blocks of rooms")
    backbone: str = Field(default="pointnet_blocks_vanilla", description="the network")

    dataset: str = Field(default="rooms", description="the data set: ready-made blocks, or rooms with colours to cut")
    root: str | None = Field(default=None, description="folder of the data set; none for a generated one")
    classes: tuple[str, ...] | None = Field(default=None, description="only these classes, two at least, in this order")
    area: int = Field(default=5, ge=1, le=6, description="of S3DIS: the area held out for the test")
    points: int = Field(default=4096, ge=1, le=1 << 20, description="points per block; ready-made ones have their own")
    size: float = Field(default=1.0, gt=0, le=1000, description="edge of a block cut from a room, metres")
    stride: float | None = Field(
        default=None, gt=0, le=1000, description="from a training block to the next, metres; null: the size"
    )
    fewest: int = Field(default=100, ge=1, description="points of a column that makes a block")
    train_size: int | None = Field(
        default=None, ge=2, le=10_000_000, description="rooms, or ready-made blocks, to train on; null: all"
    )
    test_size: int | None = Field(
        default=None, ge=1, le=10_000_000, description="rooms, or ready-made blocks, to test with; null: all"
    )
    data_seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of generated rooms and drawn points")
    validation: float = Field(
        default=0.1, ge=0, le=0.5, description="share of the training rooms kept, whole, to choose the epoch"
    )
    validation_seed: int = Field(default=0, ge=0, lt=1 << 63, description="chance of the validation rooms")
    class_weights: Literal["none", "rarity"] = Field(
        default="rarity", description="of the loss: equal, or the third root of the most frequent over each class"
    )

    _several = field_validator("classes")(several_classes)


class BlockRecipe(Training, Blocks):
    """Every choice of a run on blocks of rooms."""

    choices: ClassVar[Choices] = COMMON_CHOICES | {
        "backbone": lambda: list(BLOCK_BACKBONES),
        "dataset": lambda: [*BLOCKS, *SCENES],
    }
