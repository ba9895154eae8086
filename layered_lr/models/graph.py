"""A traced model as plain data: what it holds, by name, and what its forward pass computes, in both modes.

A tracer of one framework writes it, and another framework's backend builds a module from it. It imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

from layered_lr.arrays import Arrays
from layered_lr.errors import SpecError
from layered_lr.models.graph_operators import OPERATORS, RANDOM
from layered_lr.models.trial import Trial


class BatchSized(NamedTuple):
    """A whole number that depends on the number of images ``n``: ``times * n / over + plus``.

    Example:
        >>> BatchSized(49, 1, 0).at(4)
        196
    """

    times: int
    over: int
    plus: int

    def at(self, images: int) -> int:
        """Return the number for a batch.

        Raises:
            SpecError: It would be no whole number.
        """
        whole, rest = divmod(self.times * images, self.over)
        if rest:
            raise SpecError(
                f"a batch of {images} images: the model divides their number by {self.over}, and was traced where "
                f"nothing is left over. Give it a multiple of {self.over}, or use a torch backend."
            )
        return whole + self.plus


Size: TypeAlias = int | BatchSized


class Input(NamedTuple):
    """An argument that is one of the model's inputs."""

    place: int


class Held(NamedTuple):
    """An argument that is a parameter or buffer of the model."""

    name: str


class Constant(NamedTuple):
    """An argument that is one of the graph's own arrays."""

    key: str


class Result(NamedTuple):
    """An argument that is what a node gave."""

    node: str


class Structure(NamedTuple):
    """An output that is made of several.

    Args:
        kind: ``"tuple"``, ``"list"``, ``"dict"`` or ``"namedtuple"``.
        name: Of the class of a named tuple.
        keys: Of a dictionary, or the fields of a named tuple.
        parts: What it is made of.
    """

    kind: Literal["tuple", "list", "dict", "namedtuple"]
    name: str
    keys: tuple[str, ...]
    parts: tuple[Any, ...]


Argument: TypeAlias = Any
"""``Input``, ``Held``, ``Constant``, ``Result``, ``BatchSized``, a number, a text, None, or a tuple of these."""


class HeldTensor(NamedTuple):
    """A parameter or buffer.

    Args:
        name: As in ``state_dict()``.
        kind: What it is.
        shape: As in torch.
        dtype: Such as ``"float32"``.
        persistent: Whether ``state_dict()`` has it.
        requires_grad: Of a parameter.
        alias_of: The first name of the same tensor, if it has another one (tied weights).
        depth: Of a parameter: the number of its layer, where the model counts them itself.
    """

    name: str
    kind: Literal["parameter", "buffer"]
    shape: tuple[int, ...]
    dtype: str
    persistent: bool = True
    requires_grad: bool = False
    alias_of: str | None = None
    depth: int | None = None


class HeldModule(NamedTuple):
    """A module of the model.

    Args:
        path: Where it is.
        kind: The name of its class.
        absent: Names of parameters and buffers that it might have, and has not.
        alias_of: The first path of the same module, if it has another one.
        trains: Whether it was in training mode.
        types: Names of its class and of those that it is derived from.
    """

    path: str
    kind: str
    absent: tuple[str, ...] = ()
    alias_of: str | None = None
    trains: bool = True
    types: tuple[str, ...] = ()


class Node(NamedTuple):
    """One operator of the forward pass, which gives one tensor.

    Args:
        name: Unlike all others of its program.
        operator: One of ``OPERATORS``.
        arguments: By the names that ``OPERATORS`` gives.
        shape: Of what it gives.
        dtype: Of what it gives.
        module: Path of the module in whose ``forward`` it stands; empty for the model itself.
        source: The file and line that called it.
        follows_mode: Whether its argument ``training`` is the mode of that module at the time; else it is fixed.
        detached: Whether no gradient goes back through it (``torch.no_grad``).
    """

    name: str
    operator: str
    arguments: Mapping[str, Argument]
    shape: tuple[Size, ...]
    dtype: str
    module: str = ""
    source: str = ""
    follows_mode: bool = False
    detached: bool = False

    @property
    def may_draw(self) -> bool:
        """Whether it draws random numbers, or does so while its module trains."""
        return self.operator in RANDOM and (
            self.operator != "dropout" or self.follows_mode or bool(self.arguments["training"])
        )

    def describe_place(self) -> str:
        """Say where in the model this is: the module's path and the line."""
        module = f"module {self.module!r}" if self.module else "the model itself"
        return f"{module}, {self.source}" if self.source else module


class Write(NamedTuple):
    """A buffer that the forward pass changes, other than the statistics of ``batch_norm``.

    Args:
        name: The buffer's.
        value: What it becomes.
        module: Path of the module in whose ``forward`` it is changed.
        follows_mode: Whether this happens only while that module is in training mode.
    """

    name: str
    value: Argument
    module: str
    follows_mode: bool


class InputFacts(NamedTuple):
    """What the model was traced with: the shape without the first axis, which is the batch's, and the dtype."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Program:
    """The forward pass in one mode.

    Args:
        nodes: In the order in which they run.
        output: What it returns.
        writes: Buffers that it changes.
        images: Numbers of images that it is known to hold for: it holds for one number alone, or was seen to hold for
            these. None if it holds for any number.
    """

    nodes: tuple[Node, ...]
    output: Argument
    writes: tuple[Write, ...] = ()
    images: frozenset[int] | None = None

    @property
    def only_images(self) -> int | None:
        """The one number of images that it holds for; None if there may be others."""
        return next(iter(self.images)) if self.images is not None and len(self.images) == 1 else None


Resize: TypeAlias = "Callable[[int, bool], ModelGraph | None]"


@dataclass(frozen=True, eq=False)
class ModelGraph:
    """A model as data.

    Args:
        tensors: Parameters and buffers, in the model's order.
        modules: In the model's order; the first is the model itself, whose path is empty.
        inputs: What it was traced with.
        training: The forward pass in training mode.
        evaluation: The forward pass in evaluation mode.
        constants: Arrays that the forward passes use and that are no part of the model's state.
        state: The values of parameters and buffers at the time, by name.
        mode_bound: Paths of modules whose operators differ between the modes, so that both modes of one of them cannot
            be mixed with the other mode of the model.
        example: Inputs, and the answer to them in evaluation mode, for a backend to check what it built. The answer is
            empty where that mode draws random numbers, and both are where the graph has no inputs.
        example_buffers: The buffers that the evaluation program writes, by name, as they are after that answer.
        trial: What the model gives in training for these inputs; None where it cannot be said.
        resize: Says whether the program of a mode (true in training) holds for another number of images: None if it
            does, else a graph whose program of that mode holds for this number. None where no tracer is at hand.
        modes: Whose programs are to be used.

    Raises:
        SpecError: A program is not well formed.
    """

    tensors: tuple[HeldTensor, ...]
    modules: tuple[HeldModule, ...]
    inputs: tuple[InputFacts, ...]
    training: Program
    evaluation: Program
    constants: Arrays = field(default_factory=dict)
    state: Arrays = field(default_factory=dict)
    mode_bound: tuple[str, ...] = ()
    example: tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]] = ((), ())
    example_buffers: Arrays = field(default_factory=dict)
    trial: Trial | None = None
    resize: Resize | None = None
    modes: tuple[bool, ...] = (False, True)

    def __post_init__(self) -> None:
        known = {tensor.name for tensor in self.tensors}
        paths = {module.path for module in self.modules}
        for mode, program in (("training", self.training), ("evaluation", self.evaluation)):
            _check_program(mode, program, known, paths, self.constants, len(self.inputs))

    @property
    def kind(self) -> str:
        """The name of the model's class."""
        return self.modules[0].kind

    def __str__(self) -> str:
        """The graph as text: a line for each tensor and each operator."""
        lines = [f"{self.kind}: {len(self.tensors)} tensors, {len(self.modules)} modules"]
        for tensor in self.tensors:
            tied = f" = {tensor.alias_of}" if tensor.alias_of else ""
            lines.append(f"  {tensor.kind} {tensor.name}: {tensor.dtype}{list(tensor.shape)}{tied}")
        for mode, program in (("training", self.training), ("evaluation", self.evaluation)):
            lines.append(f"in {mode} mode:")
            lines += [f"  {line}" for line in _list_lines(program)]
        return "\n".join(lines)


def list_references(argument: Argument) -> Iterator[Input | Held | Constant | Result]:
    """Yield every tensor in an argument.

    Example:
        >>> list(list_references((Input(0), (Result("relu_1"), 3))))
        [Input(place=0), Result(node='relu_1')]
    """
    if isinstance(argument, Input | Held | Constant | Result):
        yield argument
    elif isinstance(argument, Structure):
        yield from list_references(argument.parts)
    elif isinstance(argument, Mapping):
        for part in argument.values():
            yield from list_references(part)
    elif isinstance(argument, tuple) and not isinstance(argument, BatchSized):
        for part in argument:
            yield from list_references(part)


def _check_program(
    mode: str, program: Program, known: set[str], paths: set[str], constants: Arrays, inputs: int
) -> None:
    made: set[str] = set()

    def check(argument: Argument, where: str) -> None:
        for reference in list_references(argument):
            exists = (
                (isinstance(reference, Input) and 0 <= reference.place < inputs)
                or (isinstance(reference, Held) and reference.name in known)
                or (isinstance(reference, Constant) and reference.key in constants)
                or (isinstance(reference, Result) and reference.node in made)
            )
            if not exists:
                raise SpecError(f"graph in {mode} mode: {where} takes {reference}, which is not there at that point.")

    for node in program.nodes:
        if node.operator not in OPERATORS:
            raise SpecError(f"graph in {mode} mode: {node.name!r} is {node.operator!r}, which is no operator.")
        if tuple(node.arguments) != OPERATORS[node.operator]:
            raise SpecError(
                f"graph in {mode} mode: {node.name!r} has the arguments {', '.join(node.arguments)}; {node.operator} "
                f"takes {', '.join(OPERATORS[node.operator])}."
            )
        if node.name in made or node.module not in paths:
            raise SpecError(f"graph in {mode} mode: {node.name!r} stands there twice, or in no module of the model.")
        check(node.arguments, repr(node.name))
        made.add(node.name)
    for write in program.writes:
        check((Held(write.name), write.value), f"the write to {write.name!r}")
    check(program.output, "the output")


def _list_lines(program: Program) -> Iterator[str]:
    for node in program.nodes:
        arguments = ", ".join(f"{name}={_show(value)}" for name, value in node.arguments.items())
        shape = ", ".join(_show(size) for size in node.shape)
        yield f"{node.name} = {node.operator}({arguments}): {node.dtype}[{shape}]  # {node.describe_place()}"
    for write in program.writes:
        yield f"{write.name} becomes {_show(write.value)}"
    yield f"return {_show(program.output)}"


def _show(value: Argument) -> str:
    if isinstance(value, BatchSized):
        whole = "n" if value.times == 1 else f"{value.times}n"
        return whole + (f"/{value.over}" if value.over > 1 else "") + (f"{value.plus:+d}" if value.plus else "")
    if isinstance(value, Input):
        return f"input {value.place}"
    if isinstance(value, Held | Constant | Result):
        return str(value[0])
    if isinstance(value, Structure):
        parts = ", ".join(map(_show, value.parts))
        return f"{value.name or value.kind}({parts})"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show, value))}]"
    return repr(value)
