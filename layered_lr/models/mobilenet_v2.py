"""MobileNetV2: its arrays in torchvision's order, and the images that it can train on."""

from __future__ import annotations

from collections.abc import Iterator

from layered_lr.errors import SpecError
from layered_lr.models.state_entry import Entry

NAME = "mobilenet_v2"
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
_CONV, _NORM, _LINEAR = ("Conv2d", "_ConvNd"), ("BatchNorm2d", "_BatchNorm", "_NormBase"), ("Linear",)
STEM, LAST = 32, 1280  # channels of the first and the last convolution
DROPOUT = ("classifier.0", 0.2)
SMALLEST_MAP = 32  # the strides multiply to 32: up to this many pixels a side, the last feature map is 1x1


def list_entries(num_classes: int) -> Iterator[Entry]:
    """Yield every parameter and buffer, in torchvision's order.

    Args:
        num_classes: Outputs of the last layer.
    """
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
    yield Entry("classifier.1.weight", (num_classes, LAST), "linear", _LINEAR)
    yield Entry("classifier.1.bias", (num_classes,), "zeros", _LINEAR)


def _conv_bn(conv: str, norm: str, shape: tuple[int, ...]) -> Iterator[Entry]:
    """Yield the arrays of a convolution and the batch normalisation after it."""
    yield Entry(f"{conv}.weight", shape, "conv", _CONV)
    channels = (shape[0],)
    yield Entry(f"{norm}.weight", channels, "ones", _NORM)
    yield Entry(f"{norm}.bias", channels, "zeros", _NORM)
    yield Entry(f"{norm}.running_mean", channels, "zeros_buffer", _NORM)
    yield Entry(f"{norm}.running_var", channels, "ones_buffer", _NORM)
    yield Entry(f"{norm}.num_batches_tracked", (), "count_buffer", _NORM)


def check_images(batch_size: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that MobileNetV2 cannot train on; torch and OneFlow would fail in different ways.

    Args:
        batch_size: Images in a batch.
        image_shape: (channels, height, width).

    Raises:
        SpecError: Not three channels, or a batch of one image whose last maps have a single value.
    """
    channels, height, width = image_shape
    if channels != 3:
        raise SpecError(f"model {NAME!r} takes images of 3 channels, but the data has {channels}.")
    if batch_size == 1 and max(height, width) <= SMALLEST_MAP:
        raise SpecError(
            f"batch_size=1: for images of {height}x{width} pixels, model {NAME!r} has batch normalisations of a single "
            "value, which have no variance. Use batch_size=2 or more."
        )
