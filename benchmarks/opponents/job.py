"""What every opponent has to train: the same images, model, batch, augmentation, precision and groups."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from benchmarks.frame.images import part


@dataclass(frozen=True)
class Job:
    """A training, in words that every opponent understands.

    Args:
        data: For ``ll.load_dataset``; uint8 images.
        train_images: How many of them to train on, the first ones.
        test_images: Likewise; few, so that evaluation hardly counts.
        model: ``"mobilenet_v2"`` or ``"tiny"``, whose head is the module ``classifier``.
        batch_size: Images a batch; what is left over is dropped.
        lr: Of the head.
        scale: The backbone's part of it.
        momentum: Of SGD.
        weight_decay: Of everything.
        dropout: In MobileNetV2's head.
        augment: Crop at random (padding 4) and flip.
        seed: Of weights, order and crops.
        device: ``"cpu"`` or ``"cuda"``.
        autocast: ``"bfloat16"`` for the model's forward pass; None is float32.
        weights: An .npz to start from; empty for the opponent's own start.
    """

    data: str
    train_images: int
    test_images: int = 64
    model: str = "mobilenet_v2"
    batch_size: int = 64
    lr: float = 0.02
    scale: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    dropout: float = 0.2
    augment: bool = True
    seed: int = 0
    device: str = "cpu"
    autocast: Literal["bfloat16"] | None = None
    weights: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For a worker's settings: ``{"job": job.to_dict()}``."""
        return asdict(self)

    @cached_property
    def dataset(self) -> ll.Dataset:
        """All that an epoch trains on."""
        return part(self.data, self.train_images, self.test_images)

    @cached_property
    def one_batch(self) -> ll.Dataset:
        """As much as one step trains on: the same set-up as ``dataset``, an epoch of one step."""
        return part(self.data, self.batch_size, self.test_images)

    @property
    def steps_per_epoch(self) -> int:
        """Of ``dataset``."""
        return len(self.dataset.y_train) // self.batch_size


class Trained(NamedTuple):
    """What an opponent hands back.

    Args:
        losses: Mean loss of each step's batch, before its update.
        accuracy: On the test images, at the end.
        weights: By name.
    """

    losses: list[float]
    accuracy: float
    weights: dict[str, NDArray[Any]]


def plain(trained: Trained) -> dict[str, Any]:
    """What goes through a pipe: the losses and the accuracy."""
    return {"losses": [float(loss) for loss in trained.losses], "accuracy": float(trained.accuracy)}


def initial(job: Job) -> dict[str, NDArray[Any]] | None:
    """The arrays to start from, where the job names some."""
    if not job.weights:
        return None
    with np.load(job.weights) as file:
        return dict(file)
