"""Finds the head that a user has set under a misspelt name: a layer for the data's classes that is never used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from layered_lr.console import say
from layered_lr.models.nn_modules import list_modules
from layered_lr.models.unused_layers import Use, refuse_unused
from layered_lr_torch.answering_trace import AnsweringTrace
from layered_lr_torch.heads import count_outputs, list_outputs
from layered_lr_torch.torch_types import Module
from layered_lr_torch.trace_memory import put_back
from layered_lr_torch.trace_model import quiet, swap_tensors
from layered_lr_torch.trace_names import REFUSED_OF_INPUTS, name_of
from layered_lr_torch.zoo_building import search_least_size, wrong_size

_BATCH = 2


def find_answering(model: Module, image_shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Find the layers that answer, by a forward pass on tensors without numbers; None where none can be seen.

    What is added to the answer in training alone is an auxiliary head.

    Args:
        model: Stays as it is.
        image_shape: (channels, height, width).
    """
    return _first_answering(_find_use(model, mode, image_shape) for mode in (False, True))


def _first_answering(uses: Iterable[Use | None]) -> tuple[str, ...] | None:
    """The layers that answer by the first pass that shows some."""
    return next((use.answering for use in uses if use is not None and use.answering), None)


def check_use(model: Module, num_classes: int, image_shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Refuse a model with a layer for the data's classes that it never uses; say of one that answers for more classes.

    The forward pass runs on tensors without numbers, in both modes. Where it cannot, images of another size are tried,
    and nothing else is refused here.

    Args:
        model: As the user's callable made it; it stays as it is.
        num_classes: Of the data.
        image_shape: (channels, height, width).

    Returns:
        As ``find_answering``.

    Raises:
        SpecError: There is such a layer, or the model takes images of another size alone.
    """
    evaluation, training = (_find_use(model, mode, image_shape) for mode in (False, True))
    if evaluation is None or training is None:
        _check_size(model, image_shape)
        return _first_answering((evaluation, training))
    use = evaluation._replace(tensors=evaluation.tensors | training.tensors)
    width = use.width
    answering = None if width is None else _find_used(model, width, use.tensors)
    refuse_unused(model, list_outputs(model, num_classes), num_classes, use, answering)
    for head in use.answering or ():
        if width is not None and width > num_classes and count_outputs(model.get_submodule(head)) == width:
            say(
                f"model: answers by {head!r} with {width} numbers for an image, and the data has {num_classes} "
                "classes. A run with head='auto' (layered-lr run --head auto) puts a head for these on it."
            )
            break
    return _first_answering((evaluation, training))


def takes_images(model: Module, image_shape: tuple[int, ...]) -> bool:
    """Whether a forward pass on tensors without numbers runs in evaluation; False too where it cannot be seen."""
    return _find_use(model, False, image_shape) is not None


def _check_size(model: Module, image_shape: tuple[int, ...]) -> None:
    """Refuse a model that takes images of another size, but not those of the data."""
    channels = image_shape[0]

    def takes(size: int) -> bool:
        return all(_find_use(model, mode, (channels, size, size)) is not None for mode in (True, False))

    least = search_least_size(takes)
    if least is not None:
        _, height, width = image_shape
        square = [side for side in dict.fromkeys((max(height, width), min(height, width))) if takes(side)]
        wants_square = height != width and bool(square)
        raise wrong_size("model", image_shape, least, [*square, least][0], wants_square)


def _find_use(model: Module, mode: bool, image_shape: tuple[int, ...]) -> Use | None:
    """Run a forward pass on tensors without numbers; returns None where it cannot run so."""
    if any(isinstance(each, torch.jit.ScriptModule) or "_orig_mod" in each._modules for each in model.modules()):
        return None
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    try:
        with put_back(model):
            model.train(mode)
            held, names = swap_tensors(model, fakes)
            known = {id(fake): name for name, fake in names.items()}
            known |= {real: known[id(fake)] for real, fake in held.items() if id(fake) in known}
            own = {prefix + name for prefix, module in list_modules(model) for name in module._parameters}
            watcher = _Watcher(known, AnsweringTrace(known, {name: names[name] for name in names.keys() & own}))
            with fakes:
                images = torch.empty((_BATCH, *image_shape), dtype=dtype)
            watcher.trace.begin(images)
            with quiet(), watcher, torch.no_grad():
                output = model(images)
    except Exception:  # whatever the user's code raises; the run's own forward pass will raise it too
        return None
    if not isinstance(output, torch.Tensor):
        return Use(watcher.used, None, None)
    is_table = output.dim() == 2 and output.shape[0] == _BATCH
    found = watcher.trace.find(output)
    paths = dict.fromkeys(prefix.removesuffix(".") for prefix, _ in list_modules(model))
    answering = None if found is None else tuple(path for path in paths if path in found)
    return Use(watcher.used, int(output.shape[1]) if is_table else None, answering)


class _Watcher(TorchFunctionMode):
    """Writes down which of a model's tensors functions are called with.

    Args:
        names: Of the tensors, by their ids.
        trace: Is told of every function.

    Attributes:
        used: The names of those that were used.
    """

    def __init__(self, names: dict[int, str], trace: AnsweringTrace) -> None:
        super().__init__()
        self.names, self.trace = names, trace
        self.used: set[str] = set()

    def __torch_function__(
        self, func: Any, types_: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs))
        if name_of(func)[0] in REFUSED_OF_INPUTS and any(isinstance(leaf, FakeTensor) for leaf in leaves):
            raise NotImplementedError  # torch would end the process
        if getattr(func, "__name__", "") != "__get__":  # a look at a shape uses nothing
            self.used |= {self.names[id(leaf)] for leaf in leaves if id(leaf) in self.names}
        result = func(*args, **(kwargs or {}))
        self.trace.follow(getattr(func, "__name__", ""), leaves, result)
        return result


def _find_used(model: Module, outputs: int, used: set[str]) -> str | None:
    """Return the path of the last layer with so many outputs of which the forward pass uses something."""
    paths = reversed(list_outputs(model, outputs))
    return next((path for path in paths if any(name.startswith(f"{path}.") for name in used)), None)
