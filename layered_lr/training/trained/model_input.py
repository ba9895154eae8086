"""What a trained model takes: the images that it was trained on, how they are prepared, and what its classes mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from layered_lr.arrays import Float32
from layered_lr.data import Dataset
from layered_lr.data.decoding import FITS, Fit
from layered_lr.data.folder_images import FolderImages
from layered_lr.data.targets import TargetFacts, TargetKind

_LARGEST_SIDE = 1 << 16
_MOST_CLASSES = 1_000_000
_MOST_NUMBERS = 1 << 30  # in one image


@dataclass(frozen=True)
class ModelInput:
    """What a trained model takes, and what its answers mean.

    Args:
        data: The name of the data that it was trained on.
        digest: Of the data, 32 hexadecimal digits; empty where it is not known.
        train_size: Images that it was trained on.
        test_size: Images that it was tested on.
        num_classes: Classes are 0 to ``num_classes - 1``; of values, how many the model answers with.
        class_names: What each class is called; None where the data do not say.
        data_shape: (channels, height, width) of the data's images.
        image_shape: (channels, height, width) of the images as the model gets them.
        image_size: What images are resized to, if the run does so.
        mean: Of each channel of pixels / 255, to normalise with; None for data of floats, which are taken as they are.
        std: Standard deviation of each channel, likewise.
        fit: How files became squares: ``"crop"``, ``"stretch"`` or ``"pad"`` in a folder of images with a size, None
            elsewhere.
        targets: ``"classes"``, ``"values"`` or ``"masks"``.
        has_logits: Whether the values are logits of labels: the loss is one of torch's that takes their sigmoid.
    """

    data: str
    digest: str
    train_size: int
    test_size: int
    num_classes: int
    class_names: tuple[str, ...] | None
    data_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    image_size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    fit: Fit | None = None
    targets: TargetKind = "classes"
    has_logits: bool = False

    @property
    def label_classes(self) -> int:
        """Classes that each image has one of; 0 where the targets are values or masks."""
        return self.num_classes if self.targets == "classes" else 0

    @property
    def target_facts(self) -> TargetFacts:
        """What the targets are, as far as a model depends on it."""
        return TargetFacts(self.targets, (self.num_classes,) if self.targets == "values" else ())

    @property
    def takes_pixels(self) -> bool:
        """Whether images are pixels of 0 to 255, which are normalised here; else they are floats."""
        return self.mean is not None

    def name_of(self, index: int) -> str:
        """What a class is called: its name, or its number where it has none."""
        names = self.class_names
        return names[index] if names is not None and index < len(names) else str(index)

    def to_dict(self) -> dict[str, Any]:
        """A plain table, which JSON holds."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> ModelInput:
        """Read what ``to_dict`` wrote.

        Raises:
            ValueError: It says what no run says.
            KeyError: Something is missing.
            TypeError: Something is of another kind.
        """
        found = cls(
            data=table["data"],
            digest=table["digest"],
            train_size=_count(table["train_size"], 1 << 53),
            test_size=_count(table["test_size"], 1 << 53),
            num_classes=_count(table["num_classes"], _MOST_CLASSES),
            class_names=None if table["class_names"] is None else tuple(table["class_names"]),
            data_shape=_shape(table["data_shape"]),
            image_shape=_shape(table["image_shape"]),
            image_size=None if table["image_size"] is None else _count(table["image_size"], _LARGEST_SIDE),
            mean=_numbers(table["mean"]),
            std=_numbers(table["std"]),
            fit=table.get("fit"),
            targets=table.get("targets", "classes"),
            has_logits=table.get("has_logits", False),
        )
        found._check()
        return found

    def _check(self) -> None:
        channels = self.image_shape[0]
        if self.targets not in ("classes", "values", "masks"):
            raise ValueError(f"targets {self.targets!r:.40}")
        if self.has_logits not in (False, self.targets == "values"):
            raise ValueError(f"logits of targets {self.targets!r:.40}")
        texts = [self.data, self.digest, *(self.class_names or ())]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("names that are no texts")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} names for {self.num_classes} classes")
        if self.data_shape[0] != channels or (self.mean is None) != (self.std is None):
            raise ValueError("images that contradict each other")
        for numbers in (self.mean, self.std):
            if numbers is not None and len(numbers) != channels:
                raise ValueError(f"a normalisation of {len(numbers)} channels for images of {channels}")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("a standard deviation that is not positive")
        if self.fit is not None and (self.fit not in FITS or len(set(self.data_shape[1:])) > 1):
            raise ValueError(f"files that became squares by {self.fit!r:.40}")
        if self.image_size is not None and self.image_shape[1:] != (self.image_size, self.image_size):
            raise ValueError("an image_size that is not the images'")


def describe_input(
    dataset: Dataset,
    image_shape: tuple[int, int, int],
    image_size: int | None,
    normalisation: tuple[Float32, Float32] | None,
    digest: str = "",
    has_logits: bool = False,
) -> ModelInput:
    """Describe what a run's model takes.

    Args:
        dataset: That it is trained on.
        image_shape: (channels, height, width) of the images as the model gets them.
        image_size: What images are resized to, if the run does so.
        normalisation: Mean and standard deviation that go with pretrained weights; None takes the data set's own.
        digest: Of the data.
        has_logits: Whether the loss takes the sigmoid of the answers.
    """
    facts = dataset.facts
    mean, std = normalisation if normalisation is not None and dataset.mean is not None else (dataset.mean, dataset.std)
    names = dataset.class_names
    decoder = dataset.x_train.decoder if isinstance(dataset.x_train, FolderImages) else None
    return ModelInput(
        data=str(dataset.name),
        digest=digest,
        train_size=facts.train_size,
        test_size=facts.test_size,
        num_classes=facts.outputs,
        class_names=None if names is None else tuple(names),
        data_shape=facts.image_shape,
        image_shape=image_shape,
        image_size=image_size,
        mean=None if mean is None else tuple(map(float, mean)),
        std=None if std is None else tuple(map(float, std)),
        fit=None if decoder is None or decoder.size is None else decoder.fit,
        targets=facts.targets.kind,
        has_logits=has_logits and facts.targets.kind == "values",
    )


def _count(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"a count of {value!r:.40}")
    return value


def _shape(value: Any) -> tuple[int, int, int]:
    channels, height, width = (_count(size, _LARGEST_SIDE) for size in value)
    if not 0 < channels * height * width <= _MOST_NUMBERS:
        raise ValueError(f"images of shape {value!r:.40}")
    return channels, height, width


def _numbers(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers = tuple(float(np.float32(cast(float, each))) for each in value)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a normalisation that is not finite")
    return numbers
