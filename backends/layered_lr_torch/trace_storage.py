"""Where a model's tensors are in memory: two of them that share it would be cut apart by a translation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch

from layered_lr.errors import Unsupported
from layered_lr.models.graph import Held, Program
from layered_lr.models.nn_modules import list_modules
from layered_lr_torch.torch_types import Module, Tensor


class Region(NamedTuple):
    """The bytes from the first to the last number of a parameter or buffer; ``end`` is no part of it."""

    start: int
    end: int
    name: str
    is_parameter: bool


def list_regions(model: Module) -> list[Region]:
    """List the regions of a model's parameters and buffers, in the order of memory; of tied ones that of the first."""
    found: dict[int, Region] = {}
    for prefix, module in list_modules(model):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            bounds = None if tensor is None or id(tensor) in found else _find_bounds(tensor)
            if bounds is not None:
                found[id(tensor)] = Region(*bounds, prefix + name, name in module._parameters)
    return sorted(found.values())


def _find_bounds(tensor: Tensor) -> tuple[int, int] | None:
    """Find the addresses between which the numbers of a tensor are; None if there are none."""
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.numel() == 0:
        return None
    start = tensor.data_ptr()
    last = sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (start, start + (last + 1) * tensor.element_size()) if start else None


def find_sharing(regions: Collection[Region], tensor: Tensor) -> Region | None:
    """Find a region that a tensor shares memory with."""
    with torch._C.DisableTorchFunction():
        bounds = _find_bounds(tensor)
    if bounds is None:
        return None
    start, end = bounds
    return next((region for region in regions if start < region.end and region.start < end), None)


def refuse_shared_parameters(model: Module) -> None:
    """Refuse a parameter that shares memory with another parameter, or with a buffer.

    Raises:
        Unsupported: There is one.
    """
    for one, other in _list_overlaps(list_regions(model)):
        if one.is_parameter or other.is_parameter:
            raise _refuse(one, other)


def refuse_shared_writes(model: Module, programs: Collection[Program], read: Collection[Region]) -> None:
    """Refuse a buffer that a forward pass changes and that shares memory with another one, or with a plain tensor.

    Args:
        model: The model.
        programs: Its forward passes.
        read: Regions that a forward pass reads through other tensors than the model's own.

    Raises:
        Unsupported: There is one.
    """
    changed = {write.name for program in programs for write in program.writes}
    for node in (node for program in programs for node in program.nodes if node.operator == "batch_norm"):
        statistics = (node.arguments["mean"], node.arguments["variance"]) if node.arguments["training"] else ()
        changed |= {each.name for each in statistics if isinstance(each, Held)}
    for one, other in _list_overlaps(list_regions(model)):
        if one.name in changed or other.name in changed:
            raise _refuse(one, other)
    for region in read:
        if region.name in changed:
            raise Unsupported(
                f"model: changes {region.name!r}, whose memory another tensor that it uses shares, which cannot be "
                "translated. Use the buffer itself, or a copy."
            )


def _list_overlaps(regions: list[Region]) -> Iterator[tuple[Region, Region]]:
    """List regions that overlap, each with the one before it that reaches farthest."""
    farthest: list[Region] = []
    for region in regions:
        farthest.append(region if not farthest or region.end > farthest[-1].end else farthest[-1])
    for place, (reaching, _) in enumerate(pairwise(farthest), 1):
        if regions[place].start < reaching.end:
            yield reaching, regions[place]


def _refuse(one: Region, other: Region) -> Unsupported:
    return Unsupported(
        f"model: {one.name!r} and {other.name!r} are two tensors that share memory, which cannot be translated. Let "
        "both be the same parameter (such as second.weight = first.weight), or let one hold a copy."
    )
