"""A traced forward pass, ready to run: its operators, each with the way to its arguments."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.models.graph import (
    Argument,
    BatchSized,
    Constant,
    Held,
    Input,
    Node,
    Program,
    Result,
    Size,
    Structure,
    list_references,
)
from layered_lr.models.graph_operators import OPERATORS, RANDOM, WITHOUT_NUMBERS
from layered_lr_oneflow.lookups import LazyLookups, keep_nonzero, keep_within
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.operators import FUNCTIONS
from layered_lr_oneflow.operators.arithmetic import detach, make_constant
from layered_lr_oneflow.operators.layers import batch_norm
from layered_lr_oneflow.overwritten_buffers import Overwritten, find_needed_backwards, find_overwritten, list_written
from layered_lr_oneflow.random_places import RandomPlace
from layered_lr_oneflow.rules.base import assign
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.second_derivatives import watch_result

_INDEXING = ("index_select", "gather", "scatter_add")

CONSTANTS = "layered_lr_constants"


class Frame:
    """One forward pass: its inputs, and what each operator has given so far.

    Args:
        root: The model.
        inputs: At least one.
        is_trial: Whether every index is looked at before OneFlow sees it, also those that do not depend on the inputs,
            and no random number is drawn.
    """

    __slots__ = ("copies", "images", "inputs", "is_trial", "lookups", "moved", "results", "root")

    def __init__(self, root: Module, inputs: tuple[Tensor, ...], is_trial: bool = False) -> None:
        self.root, self.inputs, self.is_trial = root, inputs, is_trial
        self.images: int = inputs[0].shape[0]
        self.results: dict[str, Any] = {}
        self.lookups = LazyLookups()  # those that nothing else watches
        self.moved: dict[str, Tensor] = {}  # running means, by name
        self.copies: dict[str, Tensor] = {}  # buffers as they were before the pass, by name


Getter: TypeAlias = Callable[[Frame], Any]


class Step:
    """One operator of a program, ready to run.

    Args:
        node: The operator.
        module: In whose ``forward`` it stands, whose mode it may follow.
        place: Its random numbers, if it draws some.
        last_uses: Names of results that nothing needs after it.
        moves_index: Whether it takes an index that may be another one in the next pass.
        kept: Names of buffers of which it takes what they held before the pass.
    """

    __slots__ = (
        "_arguments",
        "_divides",
        "_function",
        "_indexes",
        "_module",
        "_place",
        "_training",
        "_watches",
        "last_uses",
        "node",
    )

    def __init__(
        self,
        node: Node,
        module: Module,
        place: RandomPlace | None,
        last_uses: Sequence[str],
        moves_index: bool,
        kept: frozenset[str],
    ) -> None:
        self.node, self.last_uses, self._indexes = node, tuple(last_uses), moves_index
        self._module, self._place = module, place
        self._function = FUNCTIONS.get(node.operator)
        names = OPERATORS[node.operator]
        if node.operator == "batch_norm" and (node.follows_mode or node.arguments["training"]):
            kept = frozenset()  # it moves its statistics themselves
        self._arguments = [_make_getter(node.arguments[name], kept=kept) for name in names]
        self._training = names.index("training") if node.follows_mode else None
        self._watches = any(isinstance(value, Held) for value in node.arguments.values())
        self._divides = node.operator in ("floor_divide", "remainder") and "int" in node.dtype

    def run(self, frame: Frame) -> Tensor:
        """Run the operator."""
        values = [get(frame) for get in self._arguments]
        if self._training is not None:
            values[self._training] = bool(self._module.training)
        if self._watches:  # a gradient of a parameter's may be differentiated though the answer's is a constant
            for value in values:
                watch_result(value)
        operator, place = self.node.operator, self._place
        if self._indexes or (frame.is_trial and operator in _INDEXING):
            x, axis, index = values[:3]
            values[2] = keep_within(x, axis, index, frame.lookups)
        elif self._divides and isinstance(values[1], flow.Tensor):
            values[1] = keep_nonzero(values[1], frame.lookups)
        if operator == "dropout":
            made = values[0] if place is None or not values[2] else place.drop(values[0], frame.images, frame.is_trial)
        elif place is not None:
            made = place.make(getattr(flow, self.node.dtype), frame.inputs[0], frame.images, frame.is_trial)
        elif operator == "batch_norm":
            made, moved = batch_norm(*values)
            if moved is not None:
                frame.moved[self.node.arguments["mean"].name] = moved
        elif operator == "full":
            shape, value, dtype = values
            made = make_constant(shape, value, getattr(flow, dtype), frame.inputs[0])
        else:
            assert self._function is not None
            made = self._function(*values)
        return detach(made) if self.node.detached and made.requires_grad else made


class RunnableProgram:
    """A program whose arguments are found without looking anything up.

    Args:
        program: The program.
        modules: Of the model, by path.
        places: Of the operators that draw, by name.
        written: The buffers that this program writes, and those that others of the same model do.

    Attributes:
        norms_of_one_number: Paths of modules that normalise a batch in which each image has one number a channel.
        images: Numbers of images that it is known to hold for; None if it holds for any number.
        draws_apart: Whether it draws other random numbers than the other programs, so that none are given to it.
    """

    def __init__(
        self,
        program: Program,
        modules: Mapping[str, Module],
        places: Mapping[str, RandomPlace],
        written: Collection[str],
    ) -> None:
        last: dict[str, list[str]] = {}
        seen = {reference.node for reference in _results((program.output, tuple(w.value for w in program.writes)))}
        for node in reversed(program.nodes):
            used = {reference.node for reference in _results(node.arguments)} - seen
            last[node.name] = list(used)
            seen |= used
        moving = _find_moving(program)
        kept = find_needed_backwards(program, written)
        self._steps = [
            Step(
                node,
                modules[node.module],
                places.get(node.name),
                last[node.name],
                node.operator in _INDEXING and _depends(node.arguments["index"], moving),
                kept,
            )
            for node in program.nodes
        ]
        self.norms_of_one_number = frozenset(
            node.module for node in program.nodes if node.operator == "batch_norm" and _has_one_number(node)
        )
        self._least = _find_least_batches(program)
        self.draws_apart = False
        self.images = None if program.images is None else set(program.images)
        overwritten = find_overwritten(program, list_written(program))
        self._writes = [
            (write, _make_getter(Held(write.name)), _make_getter(write.value, overwritten), modules[write.module])
            for write in program.writes
        ]
        self._output = _make_getter(program.output, overwritten)

    def run(self, frame: Frame, check: Callable[[Node, Tensor, int], None] | None = None) -> Any:
        """Run the program.

        Args:
            frame: Of this forward pass.
            check: Sees what each operator gave.

        Raises:
            Unsupported: OneFlow cannot run an operator.
            SpecError: The batch has so few images that nothing is left where the model computes with some of them.
        """
        results = frame.results
        if frame.images < self.least_images:
            raise self.refuse_few(frame.images)
        for step in self._steps:
            try:
                results[step.node.name] = made = step.run(frame)
            except LayeredLRError:
                raise
            except Exception as error:  # whatever OneFlow raises
                raise refuse_node(step.node, describe_error(error)) from error
            if check is not None:
                check(step.node, made, frame.images)
            for name in step.last_uses:
                del results[name]
        output = _spoil(self._output(frame), frame.lookups)
        self._write(frame)
        return output

    @property
    def least_images(self) -> int:
        """How many images a batch must have, so that something is left wherever the model computes."""
        return max(self._least, default=0)

    def refuse_few(self, images: int) -> SpecError:
        """Make the error for a batch of fewer images."""
        count = self.least_images
        return SpecError(
            f"a batch of {images} images: nothing is left of it for {self._least[count].operator}, in "
            f"{self._least[count].describe_place()}. Give it {count} images or more; in a run, drop_last=True leaves "
            "out what is left over at the end of an epoch."
        )

    def _write(self, frame: Frame) -> None:
        """Write the buffers, of which one may get what another one held before."""
        with flow.no_grad():
            made = [
                (write.name, target(frame), detach(value(frame)))
                for write, target, value, module in self._writes
                if module.training or not write.follows_mode
            ]
            made += [(name, _walk(frame.root, name.split(".")), detach(value)) for name, value in frame.moved.items()]
            for name, buffer, value in made:
                if _COLLECTED:
                    _COLLECTED[-1].append((name, value))
                else:
                    assign(buffer, value)


def list_tensors(output: Any) -> list[Tensor]:
    """List the tensors of an answer, also those in tuples, lists and dictionaries."""
    if isinstance(output, flow.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in list_tensors(part)]
    return []


def _spoil(output: Any, lookups: LazyLookups) -> Any:
    """Let an answer in a trace be NaN where a lookup that nothing else watches reads outside, or a divisor is 0."""
    if not lookups.ranges:
        return output
    if isinstance(output, flow.Tensor):
        return lookups.spoil(output)
    if isinstance(output, dict):
        return type(output)((key, _spoil(value, lookups)) for key, value in output.items())
    if isinstance(output, list | tuple):
        parts = [_spoil(part, lookups) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


_COLLECTED: list[list[tuple[str, Tensor]]] = []
"""Where writes go that are only collected; empty where they are made."""


@contextmanager
def collect_writes() -> Iterator[list[tuple[str, Tensor]]]:
    """Let forward passes write no buffer inside of a ``with`` block: OneFlow assigns to no global tensor.

    Yields:
        The buffers' names, with the values that they were to get.
    """
    collected: list[tuple[str, Tensor]] = []
    _COLLECTED.append(collected)
    try:
        yield collected
    finally:
        _COLLECTED.pop()


def _has_one_number(norm: Node) -> bool:
    """Whether a batch normalisation has one number of each channel, of a batch of one image."""
    sizes = [_at_least(size) if isinstance(size, BatchSized) else size for size in norm.shape]
    return math.prod(sizes) == sizes[1]


def _at_least(size: BatchSized) -> int:
    """The size in a batch of one image; of a part of a batch, which has one image at least, 1."""
    return max(-(-size.times // size.over) + size.plus, 1)


def _find_moving(program: Program) -> frozenset[Argument]:
    """Find what may be other numbers in the next pass: by the inputs, their number, a buffer, or by chance."""
    found: set[Argument] = {Held(write.name) for write in program.writes}
    for node in program.nodes:
        counts = node.operator == "cumsum" or any(isinstance(each, BatchSized) for each in node.arguments.values())
        if node.operator in RANDOM or counts or _depends(node.arguments, found):
            found.add(Result(node.name))
    return frozenset(found)


def _find_least_batches(program: Program) -> dict[int, Node]:
    """Find how many images a batch must have, so that no operator gets a tensor without numbers that it cannot take.

    Returns:
        Numbers of images, each with an operator that needs them.
    """
    sizes: dict[str, tuple[Size, ...]] = {}
    least: dict[int, Node] = {}
    for node in program.nodes:
        sizes[node.name] = node.shape
        if node.operator not in WITHOUT_NUMBERS:
            taken = [size for result in _results(node.arguments) for size in sizes[result.node]]
            least.update(
                (-(-(1 - size.plus) * size.over // size.times), node)
                for size in (*node.shape, *taken)
                if isinstance(size, BatchSized) and size.plus < 0 < size.times
            )
    return least


def _depends(argument: Argument, moving: Collection[Argument]) -> bool:
    return any(isinstance(each, Input) or each in moving for each in list_references(argument))


def refuse_node(node: Node, why: str) -> Unsupported:
    """Make the error for an operator that OneFlow does not run as torch does."""
    return Unsupported(
        f"model: OneFlow cannot run {node.operator}, in {node.describe_place()}: {why}. Write it with other functions, "
        "or train on a torch backend."
    )


def _results(argument: Argument) -> list[Result]:
    return [reference for reference in list_references(argument) if isinstance(reference, Result)]


def _make_getter(argument: Argument, copied: Overwritten = frozenset(), kept: frozenset[str] = frozenset()) -> Getter:
    """Make a function that finds an argument in a forward pass.

    Args:
        argument: What to find.
        copied: Of what a copy is wanted, because the pass will write something else into its memory.
        kept: Names of buffers of which one copy in a pass is enough, which nobody else gets.
    """
    if isinstance(argument, Held | Result) and argument in copied:
        find = _make_getter(argument)
        return lambda frame: find(frame).clone()
    if isinstance(argument, Held) and argument.name in kept:
        held, buffer = _make_getter(argument), argument.name
        return lambda frame: _copy_once(frame, buffer, held)
    if isinstance(argument, Result):
        name = argument.node
        return lambda frame: frame.results[name]
    if isinstance(argument, Held):
        path = argument.name.split(".")
        return lambda frame: _walk(frame.root, path)
    if isinstance(argument, Constant):
        key = argument.key
        return lambda frame: _find_constant(getattr(frame.root, CONSTANTS), key)
    if isinstance(argument, Input):
        place = argument.place
        return lambda frame: frame.inputs[place]
    if isinstance(argument, BatchSized):
        size = argument
        return lambda frame: size.at(frame.images)
    if isinstance(argument, Structure):
        return _make_structure_getter(argument, copied)
    if isinstance(argument, tuple):
        getters = [_make_getter(part, copied, kept) for part in argument]
        if any(True for _ in list_references(argument)) or any(isinstance(part, BatchSized) for part in argument):
            return lambda frame: tuple([get(frame) for get in getters])
    return lambda frame: argument


def _copy_once(frame: Frame, name: str, find: Getter) -> Tensor:
    """Copy a buffer for a pass, which writes at its end; a graph orders its reads and writes itself."""
    made = frame.copies.get(name)
    if made is None:
        made = find(frame)
        if not made.is_lazy:
            made = frame.copies[name] = made.clone()
    return made


def _make_structure_getter(structure: Structure, copied: Overwritten) -> Getter:
    getters = [_make_getter(part, copied) for part in structure.parts]
    if structure.kind == "dict":
        keys = structure.keys
        return lambda frame: OrderedDict((key, get(frame)) for key, get in zip(keys, getters, strict=True))
    if structure.kind == "namedtuple":
        kind: Any = namedtuple(structure.name, structure.keys)  # type: ignore[misc]
        return lambda frame: kind(*(get(frame) for get in getters))
    made: type = list if structure.kind == "list" else tuple
    return lambda frame: made(get(frame) for get in getters)


def _find_constant(holder: Module, key: str) -> Tensor:
    """Find a constant; of one that is newer than the graph that is being built, the graph captures the tensor."""
    return getattr(holder, key) if key in holder._buffers else holder.to(flow.nn.Module)._buffers[key]


def _walk(root: Module, path: Sequence[str]) -> Any:
    found = root
    for name in path:
        found = getattr(found, name)
    return found
