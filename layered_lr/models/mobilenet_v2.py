"""Models known by name: their parameters and initial weights, without any framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from layered_lr.arrays import Array
from layered_lr.errors import SpecError
from layered_lr.models.parameter import Parameter
from layered_lr.validation import did_you_mean


class Entry(NamedTuple):
    """One array of a model's state.

    Args:
        name: As torchvision and flowvision have it.
        shape: Convolutions are OIHW, linear layers (out, in).
        start: How it is drawn; those that end in ``_buffer`` are buffers, the others parameters.
    """

    name: str
    shape: tuple[int, ...]
    start: Literal["conv", "linear", "ones", "zeros", "ones_buffer", "zeros_buffer", "count_buffer"]


MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks, and stride of the first block, of each stage: table 2 of arXiv:1801.04381."""
STEM, LAST = 32, 1280  # channels of the first and the last convolution
SMALLEST_MAP = 32  # up to this many pixels a side, the last feature map is 1x1: the strides multiply to 32


def _conv_bn(conv: str, norm: str, shape: tuple[int, ...]) -> Iterator[Entry]:
    yield Entry(f"{conv}.weight", shape, "conv")
    channels = (shape[0],)
    yield Entry(f"{norm}.weight", channels, "ones")
    yield Entry(f"{norm}.bias", channels, "zeros")
    yield Entry(f"{norm}.running_mean", channels, "zeros_buffer")
    yield Entry(f"{norm}.running_var", channels, "ones_buffer")
    yield Entry(f"{norm}.num_batches_tracked", (), "count_buffer")


def _mobilenet_v2(num_classes: int) -> Iterator[Entry]:
    yield from _conv_bn("features.0.0", "features.0.1", (STEM, 3, 3, 3))
    index, channels = 1, STEM
    for expansion, out, blocks, _ in MOBILENET_V2:
        for _ in range(blocks):
            hidden, at, layer = channels * expansion, f"features.{index}.conv", 0
            if expansion != 1:
                yield from _conv_bn(f"{at}.0.0", f"{at}.0.1", (hidden, channels, 1, 1))
                layer = 1
            yield from _conv_bn(f"{at}.{layer}.0", f"{at}.{layer}.1", (hidden, 1, 3, 3))
            yield from _conv_bn(f"{at}.{layer + 1}", f"{at}.{layer + 2}", (out, hidden, 1, 1))
            index, channels = index + 1, out
    yield from _conv_bn(f"features.{index}.0", f"features.{index}.1", (LAST, channels, 1, 1))
    yield Entry("classifier.1.weight", (num_classes, LAST), "linear")
    yield Entry("classifier.1.bias", (num_classes,), "zeros")


MODELS = {"mobilenet_v2": _mobilenet_v2}
"""The models that every backend can build, by name."""


def state_entries(model: str, num_classes: int) -> tuple[Entry, ...]:
    """Every parameter and buffer of a model, in its own order.

    Raises:
        SpecError: No model has that name.
    """
    if model not in MODELS:
        raise SpecError(
            f"model={model!r}: must be one of {', '.join(MODELS)}, or a callable that builds an nn.Module."
            f"{did_you_mean(model, MODELS)}"
        )
    return tuple(MODELS[model](num_classes))


def parameters(model: str, num_classes: int) -> list[Parameter]:
    """Names and shapes of a model's parameters, as ``resolve`` takes them."""
    entries = state_entries(model, num_classes)
    return [Parameter(entry.name, entry.shape) for entry in entries if not entry.start.endswith("_buffer")]


def initial_weights(model: str, num_classes: int, seed: int) -> dict[str, Array]:
    """A model's state before training, the same for every backend.

    The distributions are torchvision's: convolutions normal with variance 2 / fan_out (fan_out = out channels
    times kernel size), linear weights normal with standard deviation 0.01, batch normalisations 1 and biases 0.
    """
    rng = np.random.default_rng([seed, 0])
    return {entry.name: _draw(entry, rng) for entry in state_entries(model, num_classes)}


def _draw(entry: Entry, rng: np.random.Generator) -> Array:
    if entry.start == "conv":
        fan_out = entry.shape[0] * int(np.prod(entry.shape[2:]))
        return np.float32(np.sqrt(2 / fan_out)) * rng.standard_normal(entry.shape, np.float32)
    if entry.start == "linear":
        return np.float32(0.01) * rng.standard_normal(entry.shape, np.float32)
    if entry.start == "count_buffer":
        return np.zeros(entry.shape, np.int64)
    return np.full(entry.shape, 1 if entry.start.startswith("ones") else 0, np.float32)


def check_images(model: str, batch_size: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that MobileNetV2 cannot train on; torch and OneFlow would differ in how they fail.

    Args:
        model: The model's name, for the message.
        batch_size: Images in a batch.
        image_shape: (channels, height, width).

    Raises:
        SpecError: Not three channels, or a batch of one image whose last maps have a single value.
    """
    channels, height, width = image_shape
    if channels != 3:
        raise SpecError(f"model {model!r} takes images of 3 channels, the data has {channels}.")
    if batch_size == 1 and max(height, width) <= SMALLEST_MAP:
        raise SpecError(
            f"batch_size=1: at {height}x{width} pixels, model {model!r} has batch normalisations of a single "
            "value, which have no variance. Use batch_size=2 or more."
        )
