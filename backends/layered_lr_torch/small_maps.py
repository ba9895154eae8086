"""Replaces convolutions of small maps by faster ops, in what ``torch.compile`` compiles for a CPU."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, final

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files  # torch 2.6
from torch._inductor.decomposition import select_decomp_table
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

from layered_lr_torch.torch_types import Tensor

_LARGEST_MAP: Final = 16  # pixels; at 8x8 a product of matrices takes as long as a convolution does
_LARGEST_KERNEL: Final = 49  # taps; torch has to compile one sum for each
_ONES, _ZEROS = [1, 1], [0, 0]

_Replacement: TypeAlias = tuple[Callable[..., Any], list[Node]]
"""A function that computes the same as a node, and the nodes that are its arguments."""


@final
class SmallMaps(CustomGraphPass):
    """Replaces convolutions that oneDNN is slow at on a CPU by ops with the same result, up to rounding.

    - The gradient of a depthwise convolution's weights, where a map is smaller than the kernel: oneDNN 3.12 takes
      10 ms for 960 channels of 1x1 at batch 64 on one core. The same sum of products takes 0.02 ms.
    - Convolutions by 1x1 kernels on at most 16 pixels, forward and backward: products of matrices take 0.3 to 0.9 of
      the time.

    A step of MobileNetV2 at batch 64, 32x32, two cores: 65 ms without, 54 with the first, 45 with both.

    It replaces only float32 convolutions of these kinds. All their sizes except the batch's must be known when torch
    compiles. Everything else stays.
    """

    def __call__(self, graph: Graph) -> None:
        """Rewrite a graph of aten ops, in place."""
        for node in list(graph.nodes):
            found = _find_replacement(node)
            if found is not None:
                _replace(graph, node, *found)

    def uuid(self) -> bytes:
        """Identify this pass in torch's cache of compiled graphs, by its source."""
        return get_hash_for_files((str(Path(__file__)),))


def _find_replacement(node: Node) -> _Replacement | None:
    """Find what takes a node's place; None if the node stays."""
    arguments: tuple[Any, ...] = node.args
    if node.target is torch.ops.aten.convolution.default:
        images, weight, bias, *how = arguments
        if bias is None and _is_small(images, weight) and _is_pointwise(_get_value(weight), *how):
            return _multiply_pointwise, [images, weight]
    if node.target is torch.ops.aten.convolution_backward.default:
        gradient, images, weight, _, *how, wanted = arguments
        if wanted[2] or not wanted[1] or not _is_small(gradient, images, weight):
            return None
        inputs: list[Node] = [gradient, images, weight]
        if _is_pointwise(_get_value(weight), *how):
            return _PointwiseBackward(wanted[0]), inputs
        if _is_depthwise_below_kernel(_get_value(images), _get_value(weight), *how):
            return _DepthwiseBackward(arguments[3:-1], wanted[0]), inputs
    return None


def _get_value(node: Node) -> Tensor:
    value: Tensor = node.meta["val"]
    return value


def _is_small(*nodes: Node) -> bool:
    """Whether all are float32 on a CPU and 4-D, and all but the last one, which is the weight, are small maps.

    The number of maps, which is the batch's size, does not matter.
    """
    values: list[Any] = [node.meta.get("val") for node in nodes]
    return all(
        isinstance(value, torch.Tensor)
        and value.dtype == torch.float32
        and value.device.type == "cpu"
        and value.dim() == 4
        and all(type(size) is int and size > 0 for size in value.shape[1:])
        for value in values
    ) and all(
        value.shape[2] * value.shape[3] <= _LARGEST_MAP and value.is_contiguous(memory_format=torch.channels_last)
        for value in values[:-1]
    )


def _is_pointwise(
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> bool:
    is_plain = [*stride] == _ONES and [*padding] == _ZEROS and not transposed and groups == 1
    return is_plain and tuple(weight.shape[2:]) == (1, 1)


def _is_depthwise_below_kernel(
    images: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> bool:
    is_depthwise = groups == images.shape[1] == weight.shape[0] > 1 and not transposed and [*dilation] == _ONES
    height, width = weight.shape[2:]
    is_beyond_maps = images.shape[2] < height or images.shape[3] < width
    return is_depthwise and is_beyond_maps and height * width <= _LARGEST_KERNEL


def _to_rows(maps: Tensor) -> Tensor:
    """Bring pixels to rows: shape (N, C, H, W) to (N * H * W, C); a view if channels are last in memory."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _to_maps(rows: Tensor, like: Tensor) -> Tensor:
    """Bring rows back to maps of ``like``'s height and width, channels last in memory."""
    height, width = like.shape[2:]
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _multiply_pointwise(images: Tensor, weight: Tensor) -> Tensor:
    return _to_maps(_to_rows(images) @ weight.flatten(1).t(), images)


class _PointwiseBackward:
    def __init__(self, wants_images: bool) -> None:
        self.wants_images = wants_images

    def __call__(self, gradient: Tensor, images: Tensor, weight: Tensor) -> tuple[Any, ...]:
        of_images = _to_maps(_to_rows(gradient) @ weight.flatten(1), images) if self.wants_images else None
        return of_images, (_to_rows(gradient).t() @ _to_rows(images)).view(weight.shape), None


class _DepthwiseBackward:
    """Computes the images' gradient by the convolution's own op, and the weights' gradient as one sum for each tap."""

    def __init__(self, how: Sequence[Any], wants_images: bool) -> None:
        self.how, self.wants_images = how, wants_images
        self.stride, self.padding = how[1], how[2]

    def __call__(self, gradient: Tensor, images: Tensor, weight: Tensor) -> tuple[Any, ...]:
        of_images = None
        if self.wants_images:
            wanted = [True, False, False]
            of_images = torch.ops.aten.convolution_backward(gradient, images, weight, *self.how, wanted)[0]
        height, width = weight.shape[2:]
        taps = [self._sum_tap(gradient, images, row, column) for row in range(height) for column in range(width)]
        return of_images, torch.stack(taps, dim=1).view(weight.shape), None

    def _sum_tap(self, gradient: Tensor, images: Tensor, row: int, column: int) -> Tensor:
        """Compute the gradient of the weights at one tap of the kernel, shape (C,)."""
        above, rows = self._find_overlap(0, row, images.shape[2], gradient.shape[2])
        left, columns = self._find_overlap(1, column, images.shape[3], gradient.shape[3])
        return (images[:, :, above, left] * gradient[:, :, rows, columns]).sum((0, 2, 3))

    def _find_overlap(self, axis: int, tap: int, images: int, gradients: int) -> tuple[slice, slice]:
        """Find the lines of the images (without padding) that a tap of the kernel meets, and their outputs."""
        stride, shift = self.stride[axis], tap - self.padding[axis]
        outputs = [place for place in range(gradients) if 0 <= place * stride + shift < images]
        if not outputs:
            return slice(0, 0), slice(0, 0)
        first, last = outputs[0], outputs[-1]
        return slice(first * stride + shift, last * stride + shift + 1, stride), slice(first, last + 1)


def _replace(graph: Graph, node: Node, function: Callable[..., Any], inputs: Sequence[Node]) -> None:
    """Replace a node by a function's ops."""
    fakes = [_get_value(given) for given in inputs]
    with fakes[0].fake_mode:  # type: ignore[attr-defined] # values of a graph are fake tensors
        traced = make_fx(function, decomposition_table=select_decomp_table())(*fakes).graph
    placeholders = traced.find_nodes(op="placeholder")
    copies: dict[Node, Any] = dict(zip(placeholders, inputs, strict=True))
    with graph.inserting_before(node):
        made = graph.graph_copy(traced, copies)
    if isinstance(made, Node):
        node.replace_all_uses_with(made)
    else:
        parts: Any = made
        for user in list(node.users):
            if user.target is operator.getitem:
                index: Any = user.args[1]
                part = parts[index]
                if part is not None:  # else nobody uses it
                    user.replace_all_uses_with(part)
                graph.erase_node(user)
    graph.erase_node(node)
