"""A MobileNetV2 of flowvision's whose convolutions are matrix multiplications, which OneFlow 0.9 is fast at on a CPU.

OneFlow's own convolutions on a CPU copy every pixel into columns one by one, an image after the other, and those of
several groups a group after the other as well: eight tenths of a training step of MobileNetV2 on images of 32x32.

Here the activations between the first layer and the last one lie channels outermost, (C, N, H, W). A convolution of
1x1 is then one matrix multiplication of all pixels of all images as they lie. A depthwise convolution of a small image
is a matrix of its own for each channel, which holds the weights where input and output pixels meet and zeros elsewhere:
one batched multiplication, and the gradients are two more. Only the order of sums differs from convolutions, and where
an activation is NaN or infinite, the whole image of its channel is NaN. Batch normalisations take the numbers in the
same order as before, and are the same bit for bit.

Modules, names, parameters, buffers and initial weights are flowvision's; only ``forward`` is another.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from layered_lr_oneflow.runtime import flow

DENSEST = 256  # pixels of an image, up to which a depthwise convolution is a matrix of pixels by pixels


class StemConv2d(flow.nn.Conv2d):  # type: ignore[misc] # OneFlow has no types
    """The first convolution: (N, C, H, W) in, (C, N, H, W) out."""

    def forward(self, x: Any) -> Any:
        """OneFlow's own."""
        return flow.nn.Conv2d.forward(self, x).permute(1, 0, 2, 3).contiguous()


class PointwiseConv2d(flow.nn.Conv2d):  # type: ignore[misc] # OneFlow has no types
    """A convolution of 1x1 without bias: (C, N, H, W) in and out."""

    def forward(self, x: Any) -> Any:
        """One product of matrices: (out, in) by (in, pixels of all images)."""
        channels, *pixels = x.shape
        product = flow.matmul(self.weight.reshape(self.out_channels, channels), x.reshape(channels, -1))
        return product.reshape(self.out_channels, *pixels)


class DepthwiseConv2d(flow.nn.Conv2d):  # type: ignore[misc] # OneFlow has no types
    """A convolution of 3x3 with padding 1, each channel by itself, without bias: (C, N, H, W) in and out."""

    def forward(self, x: Any) -> Any:
        """A product of matrices for each channel: (images, pixels in) by (pixels in, pixels out)."""
        channels, images, height, width = x.shape
        if height * width > DENSEST:
            return flow.nn.Conv2d.forward(self, x.permute(1, 0, 2, 3).contiguous()).permute(1, 0, 2, 3).contiguous()
        stride = self.stride[0]
        out_height, out_width = -(-height // stride), -(-width // stride)
        placed = flow.matmul(self.weight.reshape(channels, 9), placement(height, width, stride, x.dtype, str(x.device)))
        matrices = placed.reshape(channels, height * width, out_height * out_width)
        product = flow.bmm(x.reshape(channels, images, height * width), matrices)
        return product.reshape(channels, images, out_height, out_width)


class FlatBatchNorm2d(flow.nn.BatchNorm2d):  # type: ignore[misc] # OneFlow has no types
    """A batch normalisation: (C, N, H, W) in and out."""

    def forward(self, x: Any) -> Any:
        """OneFlow's own, on one image that all are side by side in."""
        return flow.nn.BatchNorm2d.forward(self, side_by_side(x)).reshape(*x.shape)


class LastPool2d(flow.nn.AdaptiveAvgPool2d):  # type: ignore[misc] # OneFlow has no types
    """The pooling: (C, N, H, W) in, (N, C, 1, 1) out."""

    def forward(self, x: Any) -> Any:
        """OneFlow's own."""
        return flow.nn.AdaptiveAvgPool2d.forward(self, x).permute(1, 0, 2, 3).contiguous()


def side_by_side(x: Any) -> Any:
    """(C, N, H, W) as (1, C, N, H * W), as it lies."""
    channels, images, height, width = x.shape
    return x.reshape(1, channels, images, height * width)


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
    return _placement(height, width, stride, dtype, device)


@lru_cache(maxsize=None)
def _placement(height: int, width: int, stride: int, dtype: Any, device: str) -> Any:
    rows, columns = _meet(height, stride), _meet(width, stride)
    placed = np.einsum("kio,ljp->klijop", rows, columns).reshape(9, -1)
    with flow._oneflow_internal.lazy_mode.guard(False), flow.no_grad():
        made = flow.tensor(placed, dtype=dtype, device=device)
        flow._oneflow_internal.eager.Sync()
    return made


def _meet(size: int, stride: int) -> np.ndarray:
    """Shape (3, in, out): 1 where the weight k of an output meets an input, along one axis."""
    at = np.arange(-(-size // stride)) * stride - 1 + np.arange(3)[:, None]  # (3, out)
    return (np.arange(size)[:, None] == at[:, None, :]).astype(np.float32)


def flatten_convolutions(model: Any) -> Any:
    """Let a MobileNetV2 of flowvision's compute as this module says; returns it."""
    for module in model.features.modules():
        if isinstance(module, flow.nn.BatchNorm2d):
            module.__class__ = FlatBatchNorm2d
        elif isinstance(module, flow.nn.Conv2d):
            module.__class__ = _kind(module)
    model.adaptive_avg_pool2d.__class__ = LastPool2d
    return model


def _kind(conv: Any) -> type:
    if conv.groups > 1:
        return DepthwiseConv2d
    return PointwiseConv2d if conv.kernel_size == (1, 1) else StemConv2d
