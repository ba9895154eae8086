"""Tries a translated model before anything trains: compares its answers, gradients and buffers with torch's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layered_lr.errors import LayeredLRError, Unsupported
from layered_lr.files import describe_error
from layered_lr.models.graph import (
    BatchSized,
    Constant,
    Held,
    Input,
    ModelGraph,
    Node,
    Program,
    Result,
    list_references,
)
from layered_lr.models.nn_modules import dtype_of
from layered_lr.models.trial import Pass, Trial, draw_weights, find_far, sample
from layered_lr_oneflow import models
from layered_lr_oneflow.eager_tensors import sync
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.translated_module import Translated
from layered_lr_oneflow.translated_program import Frame, list_tensors, refuse_node

# How far an answer in evaluation mode may be from torch's, relative to the largest number of the answer. Deep networks
# differ by 2e-6 in float32; an operator that means something else differs by far more.
_CLOSE: Final[Mapping[str, float]] = {"float32": 1e-3, "float64": 1e-6}

# Where an answer is a sum whose terms cancel, rounding leaves about this times ``_CLOSE`` of the largest term: 1e-5 in
# float32, which is 100 last bits.
_ROUNDING: Final = 1e-2

_ASKS_TOO_MUCH: Final = (
    "Its own Python may be the cause, where it asks for more than shapes and modes: whether gradients are computed "
    "(torch.is_grad_enabled), which hooks there are, the class of a tensor. Leave that out; or train on a torch "
    "backend, and report the model."
)

_ADDING: Final = frozenset(
    (
        *("add", "sub", "mul", "div", "sum", "mean", "cumsum", "matmul", "linear", "einsum", "conv", "conv_transpose"),
        *("avg_pool", "adaptive_avg_pool", "reshape", "permute", "expand", "cat", "slice", "flip", "roll", "pad"),
        *("index_select", "gather", "scatter_add", "grid_sample", "cast", "detach", "keep_gradient"),
    )
)
"""Operators whose result is made of sums of their arguments, or of parts of them."""


def try_both_modes(root: Translated, graph: ModelGraph) -> None:
    """Run both forward passes and a backward pass on the graph's example, and compare the answer with torch's.

    Args:
        root: The model, which nothing uses yet.
        graph: What it was built from.

    Raises:
        Unsupported: OneFlow cannot run an operator, or gives other numbers than torch.
    """
    if not graph.example[0]:
        return
    of_buffers = {each.name for each in graph.tensors if each.kind == "buffer"}
    buffers = {name: array for name, array in graph.state.items() if name in of_buffers}
    for mode in graph.modes:
        root.train(mode)
        models.load_state(root, buffers)  # a pass may change them
        try:
            _try_mode(root, graph, mode)
            sync()
        except LayeredLRError:
            raise
        except Exception as error:  # whatever OneFlow raises, also about what it was asked to do before
            raise Unsupported(
                f"model: OneFlow cannot run it: {describe_error(error).rstrip('.')}. Train on a torch backend, and "
                "report the model."
            ) from error
    for parameter in root.parameters():
        parameter.grad = None


def _try_mode(root: Translated, graph: ModelGraph, trains: bool) -> None:
    inputs, answers = graph.example
    sources: Collection[str] = ()
    if trains and graph.trial is not None:
        inputs, sources = graph.trial.inputs, graph.trial.wanted.gradients
    elif trains and graph.training.images is not None and len(inputs[0]) not in graph.training.images:
        images = min(graph.training.images)
        inputs = tuple(np.resize(array, (images, *array.shape[1:])) for array in inputs)
    tensors = tuple(
        flow.tensor(array.copy(), requires_grad=f"input {place}" in sources) for place, array in enumerate(inputs)
    )
    check = _Check(graph.training if trains else graph.evaluation)
    program = root.layered_lr_passes.find(root, tensors, trains)
    made = list(list_tensors(program.run(Frame(root, tensors, is_trial=True), check)))
    sizes = check.find_sizes(graph, inputs)
    if trains:
        _try_backward(root, tensors, made, graph.trial, dict(zip(check.written, sizes[len(made) :], strict=True)))
    elif answers:
        _compare(root, made, graph, sizes)


class _Check:
    """Looks at what each operator of a program gives.

    Args:
        program: With what torch gives.

    Attributes:
        written: Names of the buffers that the program writes.
    """

    def __init__(self, program: Program) -> None:
        self.written = [write.name for write in program.writes]
        self._terms = _list_terms(program)
        self._wanted = {each.node for terms in self._terms for each in terms if isinstance(each, Result)}
        self._largest: dict[str, float] = {}

    def __call__(self, node: Node, made: Tensor, images: int) -> None:
        """Refuse a result of another shape or dtype than torch's."""
        shape = tuple(size.at(images) if isinstance(size, BatchSized) else size for size in node.shape)
        if tuple(made.shape) != shape or dtype_of(made) != node.dtype:
            raise refuse_node(
                node,
                f"it gives {dtype_of(made)} of shape {tuple(made.shape)}, where torch gives {node.dtype} of {shape}",
            )
        if node.name in self._wanted:
            self._largest[node.name] = _find_largest(made.detach().numpy())

    def find_sizes(self, graph: ModelGraph, inputs: Sequence[NDArray[Any]]) -> list[float]:
        """Find the largest number that each tensor of the answer, and then each written buffer, was added up of."""

        def size_of(reference: Result | Input | Held | Constant) -> float:
            if isinstance(reference, Result):
                return self._largest[reference.node]
            if isinstance(reference, Input):
                return _find_largest(inputs[reference.place])
            arrays = graph.state if isinstance(reference, Held) else graph.constants
            return _find_largest(arrays[reference[0]]) if reference[0] in arrays else 0.0

        return [max(map(size_of, terms), default=0.0) for terms in self._terms]


def _list_terms(program: Program) -> list[set[Result | Input | Held | Constant]]:
    """List for each tensor that a model answers, and then for each buffer that it writes, what it was added up of."""
    nodes = {node.name: node for node in program.nodes}
    found = []
    for output in list_references((program.output, tuple(write.value for write in program.writes))):
        terms: set[Result | Input | Held | Constant] = set()
        todo = [output]
        while todo:
            reference = todo.pop()
            if reference in terms:
                continue
            terms.add(reference)
            node = nodes[reference.node] if isinstance(reference, Result) else None
            if node is not None and (reference == output or node.operator in _ADDING):
                todo += list_references(node.arguments)
        found.append(terms)
    return found


def _find_largest(array: NDArray[Any]) -> float:
    """Find the largest finite number of an array, without its sign."""
    sizes = np.abs(array.astype(np.float64))
    return float(sizes[np.isfinite(sizes)].max(initial=0.0))


def _try_backward(
    root: Translated, inputs: Sequence[Tensor], made: list[Tensor], trial: Trial | None, terms: Mapping[str, float]
) -> None:
    """Run a backward pass from everything that the model gives, and compare gradients and buffers with torch's.

    Args:
        root: The model.
        inputs: Of the pass.
        made: What the model gave for them.
        trial: What torch gives.
        terms: The largest number that each written buffer was added up of.

    Raises:
        Unsupported: OneFlow cannot, or they are not alike.
    """
    try:
        weighed = [
            _weigh(place, tensor)
            for place, tensor in enumerate(made)
            if tensor.dtype.is_floating_point and tensor.requires_grad
        ]
        if weighed:
            sum(weighed[1:], weighed[0]).backward()
        sync()
    except Exception as error:  # whatever OneFlow raises
        raise Unsupported(
            f"model: OneFlow cannot compute its gradients: {describe_error(error).rstrip('.')}. Train on a torch "
            "backend, and report the model."
        ) from error
    if trial is None:
        return
    sources = {**models.find_tensors(root), "input 0": inputs[0]}
    gradients = {name: _gradient_of(sources[name]) for name in trial.wanted.gradients}
    buffers = {name: sample(sources[name].numpy()) for name in trial.wanted.buffers}
    answers = {place: sample(each.detach().numpy()) for place, each in enumerate(made)}
    far = find_far(trial, Pass(answers, gradients, buffers), terms)
    if far:
        raise Unsupported(
            f"model: translated to OneFlow, {far} in training is not torch's. The model may do what a trace does not "
            f"see, such as to hang a hook on a gradient. {_ASKS_TOO_MUCH}"
        )


def _weigh(place: int, answer: Tensor) -> Tensor:
    weights = flow.tensor(draw_weights(place, answer.shape), dtype=answer.dtype, device=str(answer.device))
    return (answer * weights).sum()


def _gradient_of(source: Tensor) -> NDArray[Any]:
    return sample(flow.zeros_like(source).numpy() if source.grad is None else source.grad.numpy())


def _compare(root: Translated, made: list[Tensor], graph: ModelGraph, sizes_of_terms: Sequence[float]) -> None:
    """Compare the answer in evaluation mode, and the buffers that the pass has written, with torch's.

    Args:
        root: The model, after the pass.
        made: The tensors of the answer.
        graph: Has the same ones of torch.
        sizes_of_terms: For each of them, and then for each written buffer, the largest number that it was added up of.
            It may be nothing but what rounding leaves of such numbers.

    Raises:
        Unsupported: They are not alike.
    """
    held = models.find_tensors(root)
    buffers = [write.name for write in graph.evaluation.writes]
    ours = [*made, *(held[name] for name in buffers)]
    theirs = [*graph.example[1], *(graph.example_buffers[name] for name in buffers)]
    befores = [np.zeros(()) for _ in made] + [graph.state[name].astype(np.float64) for name in buffers]
    said = ["model: translated to OneFlow it answers otherwise than in torch: by "] * len(made)
    said += [
        f"model: translated to OneFlow it changes buffer {name!r} otherwise than in torch: by " for name in buffers
    ]
    for tensor, wanted, before, what, terms in zip(ours, theirs, befores, said, sizes_of_terms, strict=True):
        given = tensor.detach().numpy().astype(np.float64)
        answer = np.asarray(wanted, np.float64)
        size = _find_largest(answer)
        moved = _find_largest(answer - before)  # of a buffer, a pass may change little
        allowed = _CLOSE.get(dtype_of(tensor), 0.0) * max(moved, _ROUNDING * size, _ROUNDING * terms)
        alike = np.isclose(given, answer, rtol=0, atol=allowed, equal_nan=True)
        if not alike.all():
            far = float(np.abs(given - answer)[~alike].max())
            raise Unsupported(f"{what}{far:.1e}, where numbers are up to {size:.1e}. {_ASKS_TOO_MUCH}")
