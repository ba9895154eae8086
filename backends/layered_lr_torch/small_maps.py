"""Convolutions of small maps as other ops, in what ``torch.compile`` compiles for a CPU."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, final

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files  # torch 2.6
from torch._inductor.decomposition import select_decomp_table
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

_LARGEST_MAP: Final = 16  # pixels; at 8x8 a product of matrices takes as long as a convolution does
_LARGEST_KERNEL: Final = 49  # places, each of which is a sum of its own to compile
_ONES, _ZEROS = [1, 1], [0, 0]

_Replacement = tuple[Callable[..., Any], list[Node]]


@final
class SmallMaps(CustomGraphPass):
    """Replaces convolutions by other ops of the same result, to rounding, where oneDNN is slow on a CPU.

    - The gradient of a depthwise convolution's weights, where a map is smaller than the kernel: oneDNN 3.12 takes
      10 ms for 960 channels of 1x1 at batch 64 on one core, and the sum of products that this is takes 0.02 ms.
    - Convolutions by 1x1 kernels on at most 16 pixels, forward and backward: products of matrices take 0.3 to 0.9 of
      the time.

    A step of MobileNetV2 at batch 64, 32x32, two cores: 65 ms without, 54 with the first, 45 with both.

    Only float32, and groups and shapes as named here, which have to be known when it compiles, but for the batch's
    size; all else stays.
    """

    def __call__(self, graph: Graph) -> None:
        """Rewrite a graph of aten ops, in place."""
        for node in list(graph.nodes):
            found = _replacement(node)
            if found is not None:
                _replace(graph, node, *found)

    def uuid(self) -> bytes:
        """What torch's cache of compiled graphs knows this pass by: its source."""
        return get_hash_for_files((str(Path(__file__)),))


def _replacement(node: Node) -> _Replacement | None:
    """What to have in a node's place, and the nodes that it is computed from; None where the node is to stay."""
    if node.target is torch.ops.aten.convolution.default:
        images, weight, bias, *how = node.args
        if bias is None and _is_small(images, weight) and _is_pointwise(_value(weight), *how):
            return _pointwise, [images, weight]  # type: ignore[list-item] # nodes, which have values
    if node.target is torch.ops.aten.convolution_backward.default:
        gradient, images, weight, _, *how, wanted = node.args
        if wanted[2] or not wanted[1] or not _is_small(gradient, images, weight):  # type: ignore[index]
            return None
        inputs: list[Node] = [gradient, images, weight]  # type: ignore[list-item]
        if _is_pointwise(_value(weight), *how):
            return _PointwiseBackward(wanted[0]), inputs  # type: ignore[index,arg-type]
        if _is_depthwise_below_kernel(_value(images), _value(weight), *how):
            return _DepthwiseBackward(node.args[3:-1], wanted[0]), inputs  # type: ignore[index,arg-type]
    return None


def _value(node: Any) -> torch.Tensor:
    return node.meta["val"]  # type: ignore[no-any-return]


def _is_small(*nodes: Any) -> bool:
    """Whether all are float32 on a CPU and 4-D, and the maps (not the last one, the weight) small, their number any."""
    values = [node.meta.get("val") for node in nodes]
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
    weight: torch.Tensor, stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any
) -> bool:
    is_plain = [*stride] == _ONES and [*padding] == _ZEROS and not transposed and groups == 1
    return is_plain and tuple(weight.shape[2:]) == (1, 1)


def _is_depthwise_below_kernel(
    images: torch.Tensor,
    weight: torch.Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    output_padding: Any,
    groups: Any,
) -> bool:
    is_depthwise = groups == images.shape[1] == weight.shape[0] > 1 and not transposed and [*dilation] == _ONES
    height, width = weight.shape[2:]
    is_beyond_maps = images.shape[2] < height or images.shape[3] < width
    return is_depthwise and is_beyond_maps and height * width <= _LARGEST_KERNEL


def _rows(maps: torch.Tensor) -> torch.Tensor:
    """Pixels as rows: shape (N, C, H, W) to (N * H * W, C), a view where channels are last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Rows as pixels of maps of ``like``'s size, channels last."""
    height, width = like.shape[2:]
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _pointwise(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return _maps(_rows(images) @ weight.flatten(1).t(), images)


class _PointwiseBackward:
    def __init__(self, wants_images: bool) -> None:
        self.wants_images = wants_images

    def __call__(self, gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor) -> tuple[Any, ...]:
        of_images = _maps(_rows(gradient) @ weight.flatten(1), images) if self.wants_images else None
        return of_images, (_rows(gradient).t() @ _rows(images)).view(weight.shape), None


class _DepthwiseBackward:
    """The gradient of the images by the convolution's own op, that of the weights from the sums that it consists of."""

    def __init__(self, how: Sequence[Any], wants_images: bool) -> None:
        self.how, self.wants_images = how, wants_images
        self.stride, self.padding = how[1], how[2]

    def __call__(self, gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor) -> tuple[Any, ...]:
        of_images = None
        if self.wants_images:
            wanted = [True, False, False]
            of_images = torch.ops.aten.convolution_backward(gradient, images, weight, *self.how, wanted)[0]
        height, width = weight.shape[2:]
        taps = [self._tap(gradient, images, row, column) for row in range(height) for column in range(width)]
        return of_images, torch.stack(taps, dim=1).view(weight.shape), None

    def _tap(self, gradient: torch.Tensor, images: torch.Tensor, row: int, column: int) -> torch.Tensor:
        """The gradient of the weights at one place of the kernel, shape (C,)."""
        above, rows = self._meeting(0, row, images.shape[2], gradient.shape[2])
        left, columns = self._meeting(1, column, images.shape[3], gradient.shape[3])
        return (images[:, :, above, left] * gradient[:, :, rows, columns]).sum((0, 2, 3))

    def _meeting(self, axis: int, tap: int, images: int, gradients: int) -> tuple[slice, slice]:
        """Which lines of the images a tap of the kernel meets, not those of the padding, and for which outputs."""
        stride, shift = self.stride[axis], tap - self.padding[axis]
        outputs = [place for place in range(gradients) if 0 <= place * stride + shift < images]
        if not outputs:
            return slice(0, 0), slice(0, 0)
        first, last = outputs[0], outputs[-1]
        return slice(first * stride + shift, last * stride + shift + 1, stride), slice(first, last + 1)


def _replace(graph: Graph, node: Node, function: Callable[..., Any], inputs: Sequence[Node]) -> None:
    """Put a function's ops in a node's place."""
    fakes = [_value(given) for given in inputs]
    with fakes[0].fake_mode:  # type: ignore[attr-defined] # values of a graph are fake tensors
        traced = make_fx(function, decomposition_table=select_decomp_table())(*fakes).graph
    placeholders = traced.find_nodes(op="placeholder")
    copies: dict[Node, Any] = dict(zip(placeholders, inputs, strict=True))
    with graph.inserting_before(node):
        made = graph.graph_copy(traced, copies)
    if isinstance(made, Node):
        node.replace_all_uses_with(made)
    else:
        for user in list(node.users):
            if user.target is operator.getitem:
                part = made[user.args[1]]  # type: ignore[index]
                if part is not None:  # else nobody wanted it
                    user.replace_all_uses_with(part)  # type: ignore[arg-type]
                graph.erase_node(user)
    graph.erase_node(node)
