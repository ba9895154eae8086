"""MobileNetV2 whose convolutions are matrix multiplications, which OneFlow 0.9 is fast at on a CPU.

OneFlow's own convolutions on a CPU copy every pixel into columns one by one, image after image, and grouped ones also
group after group. This takes eight tenths of a training step of MobileNetV2 on images of 32x32.

Here the activations between the first layer and the pooling are flat: (1, C, N * H * W), channels outermost. A
convolution of 1x1 is then one matrix multiplication of all pixels of all images as they are in memory. A depthwise
convolution of small images is a matrix for each channel, which holds the weights where input and output pixels meet and
zeros elsewhere: one batched multiplication, and two more for the gradients. Only the order of sums differs from
convolutions, and if an activation is NaN or infinite, its whole image and channel is NaN. Batch normalisations get the
numbers in the same order as with convolutions. In a graph, a reshape is a copy: so there are few of them.

Names, parameters and buffers are torchvision's and flowvision's. The model is made here, because importing flowvision
takes a quarter of the time from a command to its first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from layered_lr.models.mobilenet_v2 import LAST, MOBILENET_V2, STEM
from layered_lr_oneflow.oneflow_types import Module, Tensor, TensorType
from layered_lr_oneflow.runtime import flow

LARGEST_DENSE_MAP = 256  # pixels; up to here a depthwise convolution is a matrix of pixels by pixels


_CONVOLUTION = ("Conv2d", "_ConvNd")  # what torch calls these classes, for rules by type


class ImageSizes:
    """The sizes of the present forward pass's images, as they leave the first layer.

    Attributes:
        images: How many images there are.
        height: Their height in pixels.
        width: Their width in pixels.
    """

    images = height = width = 0

    def shrink(self, factor: int) -> tuple[int, int, int]:
        """Compute images, height and width after convolutions whose strides multiply to ``factor``."""
        return self.images, -(-self.height // factor), -(-self.width // factor)


class StemConv2d(flow.nn.Conv2d):
    """The first convolution; its output has the flat layout."""

    layered_lr_stands_for = _CONVOLUTION
    sizes: ImageSizes

    def forward(self, x: Tensor) -> Tensor:
        """Convolve by OneFlow's own op: (N, C, H, W) to (1, C, N * H * W)."""
        y = flow.nn.Conv2d.forward(self, x)
        self.sizes.images, channels, self.sizes.height, self.sizes.width = y.shape
        return y.permute(1, 0, 2, 3).reshape(1, channels, -1)


class PointwiseConv2d(flow.nn.Conv2d):
    """A convolution of 1x1 without bias, in the flat layout."""

    layered_lr_stands_for = _CONVOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """Multiply two matrices: (out, in) by (in, pixels of all images)."""
        return flow.bmm(self.weight.reshape(1, self.out_channels, self.in_channels), x)


class DepthwiseConv2d(flow.nn.Conv2d):
    """A convolution of 3x3 with padding 1, each channel by itself, without bias, in the flat layout.

    Attributes:
        sizes: Of the present forward pass.
        stride_before: The product of the strides of all convolutions between the first layer and this one.
    """

    layered_lr_stands_for = _CONVOLUTION
    sizes: ImageSizes
    stride_before: int

    def forward(self, x: Tensor) -> Tensor:
        """Multiply two matrices for each channel: (images, pixels in) by (pixels in, pixels out)."""
        channels, stride = self.out_channels, self.stride[0]
        images, height, width = self.sizes.shrink(self.stride_before)
        if height * width > LARGEST_DENSE_MAP:
            x = x.reshape(channels, images, height, width).permute(1, 0, 2, 3)
            return flow.nn.Conv2d.forward(self, x).permute(1, 0, 2, 3).reshape(1, channels, -1)
        placed = flow.matmul(
            self.weight.reshape(channels, 9), make_placement(height, width, stride, x.dtype, str(x.device))
        )
        product = flow.bmm(x.reshape(channels, images, height * width), placed.reshape(channels, height * width, -1))
        return product.reshape(1, channels, -1)


class FlatBatchNorm2d(flow.nn.BatchNorm2d):
    """A batch normalisation in the flat layout."""

    layered_lr_stands_for = ("BatchNorm2d", "_BatchNorm", "_NormBase")

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept three dimensions; OneFlow's class wants four."""


@cache
def make_placement(height: int, width: int, stride: int, dtype: TensorType, device: str) -> Tensor:
    """Make the matrices that place each weight of a 3x3 kernel in the matrix of a convolution with padding 1.

    Args:
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        stride: Of the convolution.
        dtype: Of the result.
        device: Of the result.

    Returns:
        Shape (9, pixels in * pixels out), ones and zeros.
    """
    rows, columns = _mark_meeting(height, stride), _mark_meeting(width, stride)
    placed = np.einsum("kio,ljp->klijop", rows, columns).reshape(9, -1)
    with flow._oneflow_internal.lazy_mode.guard(False), flow.no_grad():
        made = flow.tensor(placed, dtype=dtype, device=device)
        flow._oneflow_internal.eager.Sync()
    return made


def _mark_meeting(size: int, stride: int) -> NDArray[np.float32]:
    """Mark where weight k of an output meets an input along one axis: ones and zeros, shape (3, in, out)."""
    at = np.arange(-(-size // stride)) * stride - 1 + np.arange(3)[:, None]  # (3, out)
    meets: NDArray[np.bool_] = np.arange(size)[:, None] == at[:, None, :]
    return meets.astype(np.float32)


class InvertedResidual(flow.nn.Module):
    """An inverted residual block.

    Args:
        layers: Of its convolutional part.
        adds: Whether the block adds its input to that part's output.
    """

    def __init__(self, layers: Sequence[Module], adds: bool) -> None:
        super().__init__()
        self.conv = flow.nn.Sequential(*layers)
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output; input and output have the flat layout."""
        return x + self.conv(x) if self.adds else self.conv(x)


class FlatMobileNetV2(flow.nn.Module):
    """MobileNetV2 (arXiv:1801.04381) for images of 3 channels.

    Args:
        num_classes: How many logits each image gets.
        dropout: The module before the last layer.
    """

    def __init__(self, num_classes: int, dropout: Module) -> None:
        super().__init__()
        nn, self.sizes = flow.nn, ImageSizes()
        layers: list[Module] = [_append_norm(self._share_sizes(StemConv2d(3, STEM, 3, 2, 1, bias=False)))]
        channels, stride_before = STEM, 1
        for expansion, out, blocks, first_stride in MOBILENET_V2:
            for index in range(blocks):
                stride, hidden = 1 if index else first_stride, channels * expansion
                depthwise = self._share_sizes(DepthwiseConv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False))
                depthwise.stride_before = stride_before
                block = [_append_norm(PointwiseConv2d(channels, hidden, 1, bias=False))] if expansion != 1 else []
                block += [_append_norm(depthwise), PointwiseConv2d(hidden, out, 1, bias=False), FlatBatchNorm2d(out)]
                layers.append(InvertedResidual(block, adds=stride == 1 and channels == out))
                channels, stride_before = out, stride_before * stride
        layers.append(_append_norm(PointwiseConv2d(channels, LAST, 1, bias=False)))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(dropout, nn.Linear(LAST, num_classes))

    def _share_sizes(self, convolution: Module) -> Module:
        convolution.sizes = self.sizes
        return convolution

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits: shape (N, 3, H, W) to (N, classes)."""
        x = self.features(images)
        # OneFlow's own pooling was 5.7% of a step of batch 64 on images of 32x32.
        x = x.reshape(x.shape[1], self.sizes.images, -1).mean(dim=2).permute(1, 0)
        return self.classifier(x)


def _append_norm(convolution: Module) -> Module:
    return flow.nn.Sequential(convolution, FlatBatchNorm2d(convolution.out_channels), flow.nn.ReLU6())
