"""MobileNetV2 whose convolutions are matrix multiplications, which OneFlow 0.9 is fast at on a CPU.

OneFlow's own convolutions on a CPU copy every pixel into columns one by one, an image after the other, and those of
several groups a group after the other as well: eight tenths of a training step of MobileNetV2 on images of 32x32.

Here the activations between the first layer and the pooling are flat: (1, C, N * H * W), channels outermost. A
convolution of 1x1 is then one matrix multiplication of all pixels of all images as they lie. A depthwise convolution of
small images is a matrix of its own for each channel, which holds the weights where input and output pixels meet and
zeros elsewhere: one batched multiplication, and the gradients are two more. Only the order of sums differs from
convolutions, and where an activation is NaN or infinite, its whole image and channel is NaN. Batch normalisations get
the numbers in the same order as before. In a graph, a reshape is a copy: so there are few.

Names, parameters and buffers are torchvision's and flowvision's. It is made here, because importing flowvision takes a
quarter of the time from a command to its first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.models.mobilenet_v2 import LAST, MOBILENET_V2, STEM
from layered_lr_oneflow.runtime import flow

DENSEST = 256  # pixels of an image, up to which a depthwise convolution is a matrix of pixels by pixels


class Sizes:
    """The images of the forward pass that is under way, as they leave the first layer.

    Attributes:
        images: How many.
        height: Theirs, in pixels.
        width: Likewise.
    """

    images = height = width = 0

    def shrunk(self, factor: int) -> tuple[int, int, int]:
        """Images, height and width behind convolutions whose strides multiply to ``factor``."""
        return self.images, -(-self.height // factor), -(-self.width // factor)


class StemConv2d(flow.nn.Conv2d):  # type: ignore[misc] # OneFlow has no types
    """The first convolution: images in, the flat layout out."""

    sizes: Sizes

    def forward(self, x: Any) -> Any:
        """OneFlow's own; (N, C, H, W) to (1, C, N * H * W)."""
        y = flow.nn.Conv2d.forward(self, x)
        self.sizes.images, channels, self.sizes.height, self.sizes.width = y.shape
        return y.permute(1, 0, 2, 3).reshape(1, channels, -1)


class PointwiseConv2d(flow.nn.Conv2d):  # type: ignore[misc] # OneFlow has no types
    """A convolution of 1x1 without bias, in the flat layout."""

    def forward(self, x: Any) -> Any:
        """One product of matrices: (out, in) by (in, pixels of all images)."""
        return flow.bmm(self.weight.reshape(1, self.out_channels, self.in_channels), x)


class DepthwiseConv2d(flow.nn.Conv2d):  # type: ignore[misc] # OneFlow has no types
    """A convolution of 3x3 with padding 1, each channel by itself, without bias, in the flat layout.

    Attributes:
        sizes: Of the model.
        before: The strides of all convolutions between the first layer and this one, multiplied.
    """

    sizes: Sizes
    before: int

    def forward(self, x: Any) -> Any:
        """A product of matrices for each channel: (images, pixels in) by (pixels in, pixels out)."""
        channels, stride = self.out_channels, self.stride[0]
        images, height, width = self.sizes.shrunk(self.before)
        if height * width > DENSEST:
            x = x.reshape(channels, images, height, width).permute(1, 0, 2, 3)
            return flow.nn.Conv2d.forward(self, x).permute(1, 0, 2, 3).reshape(1, channels, -1)
        placed = flow.matmul(self.weight.reshape(channels, 9), placement(height, width, stride, x.dtype, str(x.device)))
        product = flow.bmm(x.reshape(channels, images, height * width), placed.reshape(channels, height * width, -1))
        return product.reshape(1, channels, -1)


class FlatBatchNorm2d(flow.nn.BatchNorm2d):  # type: ignore[misc] # OneFlow has no types
    """A batch normalisation in the flat layout."""

    def _check_input_dim(self, x: Any) -> None:
        """Of three dimensions, not four."""


@cache
def placement(height: int, width: int, stride: int, dtype: Any, device: str) -> Any:
    """Where each weight of a 3x3 kernel stands in the matrix of a convolution with padding 1.

    Args:
        height: Of the images.
        width: Likewise.
        stride: Of the convolution.
        dtype: Of the answer.
        device: Likewise.

    Returns:
        Shape (9, pixels in * pixels out), ones and zeros.
    """
    rows, columns = _meet(height, stride), _meet(width, stride)
    placed = np.einsum("kio,ljp->klijop", rows, columns).reshape(9, -1)
    with flow._oneflow_internal.lazy_mode.guard(False), flow.no_grad():
        made = flow.tensor(placed, dtype=dtype, device=device)
        flow._oneflow_internal.eager.Sync()
    return made


def _meet(size: int, stride: int) -> NDArray[np.float32]:
    """Shape (3, in, out): 1 where the weight k of an output meets an input, along one axis."""
    at = np.arange(-(-size // stride)) * stride - 1 + np.arange(3)[:, None]  # (3, out)
    meets: NDArray[np.bool_] = np.arange(size)[:, None] == at[:, None, :]
    return meets.astype(np.float32)


class Block(flow.nn.Module):  # type: ignore[misc] # OneFlow has no types
    """An inverted residual.

    Args:
        layers: Of its convolutional part.
        adds: What comes in to what that part makes of it.
    """

    def __init__(self, layers: Sequence[Any], adds: bool) -> None:
        super().__init__()
        self.conv = flow.nn.Sequential(*layers)
        self.adds = adds

    def forward(self, x: Any) -> Any:
        """In the flat layout."""
        return x + self.conv(x) if self.adds else self.conv(x)


class FlatMobileNetV2(flow.nn.Module):  # type: ignore[misc] # OneFlow has no types
    """MobileNetV2 (arXiv:1801.04381) for images of 3 channels.

    Args:
        num_classes: Of the answer.
        dropout: What stands before the last layer.
    """

    def __init__(self, num_classes: int, dropout: Any) -> None:
        super().__init__()
        nn, self.sizes = flow.nn, Sizes()
        layers: list[Any] = [_normalised(self._sized(StemConv2d(3, STEM, 3, 2, 1, bias=False)))]
        channels, before = STEM, 1
        for expansion, out, blocks, first_stride in MOBILENET_V2:
            for index in range(blocks):
                stride, hidden = 1 if index else first_stride, channels * expansion
                depthwise = self._sized(DepthwiseConv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False))
                depthwise.before = before
                block = [_normalised(PointwiseConv2d(channels, hidden, 1, bias=False))] if expansion != 1 else []
                block += [_normalised(depthwise), PointwiseConv2d(hidden, out, 1, bias=False), FlatBatchNorm2d(out)]
                layers.append(Block(block, adds=stride == 1 and channels == out))
                channels, before = out, before * stride
        layers.append(_normalised(PointwiseConv2d(channels, LAST, 1, bias=False)))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(dropout, nn.Linear(LAST, num_classes))

    def _sized(self, convolution: Any) -> Any:
        convolution.sizes = self.sizes
        return convolution

    def forward(self, images: Any) -> Any:
        """Shape (N, 3, H, W) to (N, classes)."""
        x = self.features(images)
        # Its own pooling was 5.7% of a step of batch 64 on images of 32x32.
        x = x.reshape(x.shape[1], self.sizes.images, -1).mean(dim=2).permute(1, 0)
        return self.classifier(x)


def _normalised(convolution: Any) -> Any:
    return flow.nn.Sequential(convolution, FlatBatchNorm2d(convolution.out_channels), flow.nn.ReLU6())
