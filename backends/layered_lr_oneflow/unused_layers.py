"""Sees which layers of a OneFlow module a forward pass uses, and which answers, by a pass on images of zeros.

What has a gradient of the answer is used. The pass is in evaluation, where nothing moves and hardly anything draws. One
in training is made only where a layer would else be refused: it may be used there alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from layered_lr.models.answering_layer import path_of_layer
from layered_lr.models.nn_modules import list_modules
from layered_lr.models.unused_layers import Use, find_unused, list_outputs, refuse_unused
from layered_lr_oneflow import models
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.runtime import flow

_BATCH = 2


def check_use(model: Module, num_classes: int, image_shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Refuse a model with a layer for the data's classes that it never uses.

    Where the pass fails, nothing is refused: the run's own forward pass says why.

    Args:
        model: As the user's callable made it; it stays as it is.
        num_classes: Of the data.
        image_shape: (channels, height, width).

    Returns:
        The paths of the layers that answer; None where they cannot be seen.

    Raises:
        SpecError: There is such a layer.
    """
    use = _find_use(model, False, image_shape)
    if use is None:
        return None
    paths = list_outputs(model, num_classes)
    if find_unused(paths, use.tensors):
        in_training = _find_use(model, True, image_shape)
        if in_training is None:
            return use.answering
        refuse_unused(model, paths, num_classes, use._replace(tensors=use.tensors | in_training.tensors), None)
    return use.answering


def find_answering(model: Module, image_shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Find the layer whose result is the answer; None where none can be seen.

    Args:
        model: Stays as it is.
        image_shape: (channels, height, width).
    """
    use = _find_use(model, False, image_shape)
    return None if use is None else use.answering


def _find_use(model: Module, mode: bool, image_shape: tuple[int, ...]) -> Use | None:
    """Make a forward and a backward pass; returns None where that fails."""
    parameters = dict(model.named_parameters())
    first = next((each for each in parameters.values() if each.is_floating_point()), None)
    if first is None or any(each.is_global or each.grad is not None for each in parameters.values()):
        return None
    results: list[tuple[str, Tensor]] = []
    try:
        with _put_back(model), flow.enable_grad():
            model.train(mode)
            for prefix, module in list_modules(model):
                module.register_forward_hook(_Note(prefix.removesuffix("."), results))
            output = model(flow.zeros((_BATCH, *image_shape), dtype=first.dtype, device=first.device))
            output.sum().backward()
            used = {name for name, each in parameters.items() if each.grad is not None or not each.requires_grad}
    except Exception:  # whatever the user's code raises
        return None
    finally:
        for each in parameters.values():
            each.grad = None
    holders = {path_of_layer(name) for name, each in parameters.items() if each.dim() > 1}
    answering = [path for path, result in results if result is output and path in holders]
    is_table = output.dim() == 2 and output.shape[0] == _BATCH
    return Use(used, int(output.shape[1]) if is_table else None, (answering[0],) if answering else None)


class _Note:
    """A hook that writes down what a module gives.

    Args:
        path: Of the module.
        results: Gets it.
    """

    def __init__(self, path: str, results: list[tuple[str, Tensor]]) -> None:
        self._path, self._results = path, results

    def __call__(self, module: Module, inputs: object, output: Tensor) -> None:
        """Write it down."""
        self._results.append((self._path, output))


@contextmanager
def _put_back(model: Module) -> Iterator[None]:
    """Put modes, hooks, buffers and attributes back as they were, also what lists and tables among these hold."""
    modules = [module for _, module in list_modules(model)]
    attributes = [(module, dict(module.__dict__)) for module in modules]
    contents = [
        (value, copy.copy(value))
        for module in modules
        for value in module.__dict__.values()
        if isinstance(value, list | dict | set)
    ]
    parameters = {id(parameter) for parameter in model.parameters()}
    buffers = [
        (tensor, tensor.clone()) for tensor in models.find_tensors(model).values() if id(tensor) not in parameters
    ]
    try:
        yield
    finally:
        for module, before in attributes:
            module.__dict__.clear()
            module.__dict__.update(before)
        for value, content in contents:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)
        with flow.no_grad():
            for tensor, numbers in buffers:
                tensor.copy_(numbers)
