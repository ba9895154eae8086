"""What a torch model computes for an example, for a translation of it to be compared with: answers and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from layered_lr.arrays import Arrays
from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.models.graph import Program
from layered_lr.models.nn_modules import list_modules
from layered_lr.models.trial import Pass, Trial, disturb, draw_weights, sample
from layered_lr_torch import models
from layered_lr_torch.callers import line_of
from layered_lr_torch.torch_types import Module, Tensor
from layered_lr_torch.trace_memory import put_back

_DISTURBED = 2


def answer(model: Module, example: Sequence[NDArray[Any]], evaluation: Program, sizes: Sequence[int]) -> Any:
    """Compute what the model answers in evaluation mode to inputs drawn at random; no answer if it draws itself.

    Args:
        model: Stays as it is.
        example: Of the inputs' shapes and dtypes; whole numbers are taken from it.
        evaluation: The forward pass in evaluation mode.
        sizes: How many images to take; a later one where the model takes no such number.

    Returns:
        The inputs, the tensors of the answer, and the buffers after it, by every name.

    Raises:
        SpecError: The forward pass fails.
    """
    inputs, answers, buffers = _take_first(lambda images: _answer_to(model, example, images), sizes)
    draws = any(node.may_draw and not node.follows_mode for node in evaluation.nodes)
    return inputs, () if draws else answers, buffers


def _take_first(compute: Callable[[int], Any], sizes: Sequence[int]) -> Any:
    """Compute with the first number of images that the model takes."""
    for images in sizes[:-1]:
        try:
            return compute(images)
        except SpecError:  # a model that folds the batch takes whole multiples of some number
            continue
    return compute(sizes[-1])


def _answer_to(model: Module, example: Sequence[NDArray[Any]], images: int) -> Any:
    inputs = draw_inputs(example, images)
    with put_back(model), torch.no_grad():
        model.eval()
        copy_buffers(model)
        try:
            given = model(*(torch.from_numpy(array.copy()) for array in inputs))
        except Exception as error:  # such as an index out of range, which no shape tells
            raise _explain("forward", inputs, error) from error
        buffers = {name: models.to_array(buffer) for name, buffer in _list_all_buffers(model)}
    return inputs, tuple(models.to_array(tensor) for tensor in _list_answers(given)), buffers


def draw_inputs(example: Sequence[NDArray[Any]], images: int) -> tuple[NDArray[Any], ...]:
    """Draw inputs at random, of an example's shapes and dtypes; whole numbers are taken from it."""
    rng = np.random.default_rng(0)
    inputs = []
    for array in example:
        shape = (images, *array.shape[1:])
        drawn = rng.normal(size=shape) if array.dtype.kind == "f" else np.resize(array, shape)
        inputs.append(drawn.astype(array.dtype))
    return tuple(inputs)


def _explain(what: str, inputs: Sequence[NDArray[Any]], error: Exception) -> SpecError:
    shapes = ", ".join(str(array.shape) for array in inputs)
    where = line_of(error)
    return SpecError(
        f"model: its {what} pass fails on inputs of shape {shapes}{f', in {where}' * bool(where)}: "
        f"{describe_error(error).rstrip('.')}. Give a model that "
        + ("takes such inputs." if what == "forward" else "torch computes the gradients of.")
    )


def _list_answers(answer: Any) -> Iterator[Tensor]:
    """The tensors of an answer, in the order in which the graph's output has them."""
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, dict | tuple | list):
        for part in answer.values() if isinstance(answer, dict) else answer:
            yield from _list_answers(part)


def copy_buffers(model: Module) -> None:
    """Put copies in the place of the buffers, because a forward pass may change them."""
    copies: dict[int, Tensor] = {}
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())


def try_training(model: Module, example: Sequence[NDArray[Any]], sizes: Sequence[int]) -> Trial | None:
    """Compute a forward and a backward pass in training, in which no draw drops anything.

    Args:
        model: Stays as it is.
        example: Of the inputs' shapes and dtypes; whole numbers are taken from it.
        sizes: How many images to take; a later one where the model takes no such number.

    Returns:
        The pass, and the same with inputs that are a little other ones. None where the model draws what cannot be held
        still.

    Raises:
        SpecError: The forward or the backward pass fails.
    """

    def train(images: int) -> Any:
        inputs = draw_inputs(example, images)
        return inputs, _train_once(model, inputs)

    inputs, wanted = _take_first(train, sizes)
    if wanted is None:
        return None
    disturbed: list[Pass | None] = []
    shaken: list[Pass | None] = []
    if any(array.dtype.kind == "f" for array in inputs):
        for number in range(_DISTURBED):
            disturbed.append(_train_once(model, [disturb(array, number) for array in inputs]))
        if _has_whole_numbers(wanted):
            for number in range(_DISTURBED):
                others = [disturb(array, number, shakes=True) for array in inputs]
                shaken.append(_train_once(model, others, with_gradients=False))
    return Trial(
        tuple(inputs),
        wanted,
        tuple(each for each in disturbed if each is not None),
        tuple(each for each in shaken if each is not None),
        _copy_numbers(_list_buffers(model)),
    )


def _has_whole_numbers(made: Pass) -> bool:
    """Whether whole or truth values were given that may depend on the inputs; a count of passes does not."""
    arrays = [*made.answers.values(), *(array for name, array in made.buffers.items() if not _counts_passes(name))]
    return any(array.dtype.kind != "f" for array in arrays)


def _counts_passes(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def _list_all_buffers(model: Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers, by every name that they have."""
    for prefix, module in list_modules(model):
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield prefix + name, buffer


def _list_buffers(model: Module) -> dict[str, Tensor]:
    """The buffers by name; of one that has several names, by the first."""
    found = {id(buffer): (name, buffer) for name, buffer in reversed(list(_list_all_buffers(model)))}
    return dict(found.values())


def _copy_numbers(tensors: Mapping[Any, Tensor]) -> dict[Any, NDArray[Any]]:
    return {key: sample(models.to_array(tensor.detach())) for key, tensor in tensors.items()}


def _train_once(model: Module, inputs: Sequence[NDArray[Any]], with_gradients: bool = True) -> Pass | None:
    still = _HeldStill()
    with put_back(model):
        model.train()
        copy_buffers(model)
        names = _list_buffers(model)
        tensors = [torch.from_numpy(array.copy()) for array in inputs]
        sources = _list_sources(model, tensors)
        if "input 0" in sources:
            tensors[0] = tensors[0].clone()  # a loss may change its outputs in place
        try:
            with still, torch.enable_grad():
                answers = list(_list_answers(model(*tensors)))
        except LayeredLRError:
            raise
        except Exception as error:
            raise _explain("forward", inputs, error) from error
        if still.is_moved:
            return None
        now = dict(_list_all_buffers(model))
        buffers = _copy_numbers({name: now[name] for name in names})
        gradients = _find_gradients(answers, sources, inputs) if with_gradients else {}
        return Pass(_copy_numbers(dict(enumerate(answers))), gradients, buffers)


def _find_gradients(answers: Sequence[Tensor], sources: Mapping[str, Tensor], inputs: Sequence[NDArray[Any]]) -> Arrays:
    """Compute the gradients of the answers, each times what a trial draws; none where none can be."""
    weighed = [
        (answer * torch.from_numpy(draw_weights(place, answer.shape)).to(answer.dtype)).sum()
        for place, answer in enumerate(answers)
        if answer.requires_grad and answer.is_floating_point()
    ]
    if not weighed or not sources:
        return {}
    try:
        found = torch.autograd.grad(sum(weighed[1:], weighed[0]), list(sources.values()), allow_unused=True)
    except RuntimeError as error:
        raise _explain("backward", inputs, error) from error
    return _copy_numbers(
        {
            name: torch.zeros_like(source) if gradient is None else gradient
            for (name, source), gradient in zip(sources.items(), found, strict=True)
        }
    )


def _list_sources(model: Module, inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """The parameters that train, by name; of a model that has none, its first input: the outputs that a loss is of."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for prefix, module in list_modules(model):
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                found[prefix + name] = parameter
    if found:
        return found
    return {"input 0": inputs[0].requires_grad_()} if inputs[0].is_floating_point() else {}


class _HeldStill(TorchDispatchMode):
    """Lets dropout drop nothing, and Bernoulli trials and uniform numbers be 1, as a backend's trial does.

    Attributes:
        is_moved: Whether something else was drawn.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_moved = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return made
        name = func._schema.name
        if name.startswith("aten::_scaled_dot_product") and not (kwargs or {}).get("dropout_p", [*args, 0.0][3]):
            return made
        if name == "aten::native_dropout":
            x, p, trains = args
            return (x / (1 - p) if trains and p < 1 else made[0]), torch.ones_like(made[1])
        if name not in ("aten::bernoulli_", "aten::bernoulli", "aten::rand", "aten::rand_like"):
            self.is_moved = True
            return made
        return made.fill_(1)
