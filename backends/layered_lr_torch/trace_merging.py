"""Makes programs of recorded forward passes: sizes that follow the batch, operators that follow a module's mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.models.graph import (
    Argument,
    BatchSized,
    Constant,
    Held,
    Input,
    Node,
    Program,
    Result,
    Structure,
    Write,
    list_references,
)


def _as_whole(number: Any) -> Any:
    """A float that is whole as an int: it may be a size of the batch, as in ``torch.tensor(float(x.shape[0]))``."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


_RELATIONS: Final[Mapping[str, np.ufunc]] = {"eq": np.equal, "lt": np.less, "le": np.less_equal}
"""How the rows and columns of a matrix for pairs of images are compared: ``torch.eye``, ``triu`` and ``tril``."""


class Recording(NamedTuple):
    """What one forward pass did; see ``Recorder``."""

    nodes: Sequence[Node]
    output: Argument
    writes: tuple[Write, ...]
    constants: Mapping[str, NDArray[Any]]


class PassesDiffer(Exception):
    """Passes differ in more than sizes that follow the batch.

    Args:
        node: Where; None if it is in what they return or write.
    """

    def __init__(self, node: Node | None = None) -> None:
        super().__init__()
        self.node = node


def merge_programs(traces: Sequence[Recording], batches: Sequence[int], constants: dict[str, NDArray[Any]]) -> Program:
    """Merge passes over batches of different sizes into one program, without what nothing needs.

    Args:
        traces: One for each size.
        batches: The sizes. Two passes of the same size must be alike.
        constants: Gets the constants that the program needs.

    Raises:
        PassesDiffer: The passes differ in more than sizes.
    """
    first = traces[0]
    merger = _Merger(traces, batches, constants)
    if any(len(trace.nodes) != len(first.nodes) for trace in traces):
        raise PassesDiffer(
            next((nodes[0] for nodes in zip(*(t.nodes for t in traces), strict=False) if not _alike(nodes)), None)
        )
    nodes = []
    for place in zip(*(trace.nodes for trace in traces), strict=True):
        try:
            if not _alike(place):
                raise PassesDiffer
            arguments = merger.merge(tuple(node.arguments for node in place))
            shape = merger.merge(tuple(tuple(node.shape) for node in place))
        except PassesDiffer:
            raise PassesDiffer(place[0]) from None
        nodes.append(place[0]._replace(arguments=arguments, shape=shape))
    output = merger.merge(tuple(trace.output for trace in traces))
    writes = merger.merge(tuple(trace.writes for trace in traces))
    kept = _list_needed([*merger.fills, *nodes], output, writes)
    return Program(tuple(kept), output, writes, frozenset(batches))


def _alike(nodes: Sequence[Node]) -> bool:
    return len({(node.operator, node.module, node.dtype, node.detached) for node in nodes}) == 1


def are_same(
    one: Program, of_one: Mapping[str, NDArray[Any]], other: Program, of_other: Mapping[str, NDArray[Any]]
) -> bool:
    """Whether two programs compute the same, with constants of their own.

    Args:
        one: A program.
        of_one: Its constants, by key.
        other: Another one.
        of_other: Its constants.
    """

    def spell(argument: Argument, constants: Mapping[str, NDArray[Any]]) -> Any:
        if isinstance(argument, Constant):
            array = constants[argument.key]
            return "constant", str(array.dtype), array.shape, array.tobytes()
        if isinstance(argument, Structure | Write):
            return type(argument), tuple(spell(part, constants) for part in argument)
        if isinstance(argument, Mapping):
            return {key: spell(value, constants) for key, value in argument.items()}
        if type(argument) is tuple:
            return tuple(spell(part, constants) for part in argument)
        return type(argument), argument

    def spell_all(program: Program, constants: Mapping[str, NDArray[Any]]) -> Any:
        return spell((program.output, program.writes), constants), [
            (node._replace(arguments={}), spell(node.arguments, constants)) for node in program.nodes
        ]

    return bool(spell_all(one, of_one) == spell_all(other, of_other))


class _Merger:
    """Merges the arguments of the same operator in passes over batches of different sizes.

    Attributes:
        fills: Operators that make what are constants in each pass, but of a size that follows the batch.
    """

    def __init__(self, traces: Sequence[Recording], batches: Sequence[int], constants: dict[str, NDArray[Any]]) -> None:
        self._arrays = [trace.constants for trace in traces]
        self._batches = batches
        self._constants = constants
        self._filled: dict[tuple[str, ...], Result] = {}
        self.fills: list[Node] = []

    def merge(self, values: tuple[Any, ...]) -> Any:
        """Merge what stands in the same place in each pass.

        Raises:
            PassesDiffer: It differs in more than sizes.
        """
        first = values[0]
        if any(type(value) is not type(first) for value in values):
            raise PassesDiffer
        if isinstance(first, Constant):
            return self._merge_constants(values)
        if isinstance(first, Structure | Write):
            return type(first)(*(self.merge(parts) for parts in zip(*values, strict=True)))
        if isinstance(first, Mapping):
            return {key: self.merge(tuple(value[key] for value in values)) for key in first}
        if isinstance(first, Input | Held | Result) or not isinstance(first, tuple):
            return self._merge_numbers(values)
        if any(len(value) != len(first) for value in values):
            raise PassesDiffer
        return tuple(self.merge(parts) for parts in zip(*values, strict=True))

    def _merge_numbers(self, values: tuple[Any, ...]) -> Any:
        first = values[0]
        if all(value == first or (value != value and first != first) for value in values):
            return first
        if any(type(value) is not int for value in values):
            raise PassesDiffer
        if self._batches[0] == self._batches[1]:
            raise PassesDiffer
        slope = Fraction(values[1] - first, self._batches[1] - self._batches[0])
        plus = first - slope * self._batches[0]
        fits = all(value == slope * batch + plus for value, batch in zip(values, self._batches, strict=True))
        if not fits or plus.denominator != 1:
            raise PassesDiffer
        return BatchSized(slope.numerator, slope.denominator, int(plus))

    def _merge_constants(self, values: tuple[Constant, ...]) -> Argument:
        arrays = [known[value.key] for known, value in zip(self._arrays, values, strict=True)]
        first = arrays[0]
        if all(array.dtype == first.dtype and np.array_equal(array, first, equal_nan=True) for array in arrays):
            return self._keep(first)
        keys = tuple(value.key for value in values)
        if keys in self._filled:
            return self._filled[keys]
        if len({(array.ndim, array.dtype) for array in arrays}) > 1 or any(array.size == 0 for array in arrays):
            raise PassesDiffer
        made = self._make_for_any_size(arrays)
        self._filled[keys] = Result(made.name)
        return self._filled[keys]

    def _make_for_any_size(self, arrays: Sequence[NDArray[Any]]) -> Node:
        """Make what are constants of several sizes for any size.

        Raises:
            PassesDiffer: It is not known how their numbers go on.
        """
        first = arrays[0]
        shape = self.merge(tuple(array.shape for array in arrays))
        if all((array == array.flat[0]).all() for array in arrays):
            value = self._merge_numbers(tuple(_as_whole(array.flat[0].item()) for array in arrays))
            return self._add_fill("full", {"shape": shape, "value": value, "dtype": str(first.dtype)}, str(first.dtype))
        made = self._count(arrays) or self._relate(arrays) or self._go_up(arrays)
        if made.shape == shape:
            return made
        return self._add_fill("reshape", {"x": Result(made.name), "shape": shape}, made.dtype)

    def _count(self, arrays: Sequence[NDArray[Any]]) -> Node | None:
        """Make arrays whose whole numbers go up by equal steps, as ``torch.arange`` of the batch's size has them."""
        flat = [array.reshape(-1) for array in arrays]
        starts = [_as_whole(array[0].item()) for array in flat]
        longest = max(flat, key=len)
        step = _as_whole(longest[1].item() - longest[0].item())
        if flat[0].dtype == bool or not all(type(number) is int for number in (step, *starts)):
            return None
        if any(
            (array != start + step * np.arange(len(array))).any() for array, start in zip(flat, starts, strict=True)
        ):
            return None
        before = self._merge_numbers(tuple(start - step for start in starts))
        return self._add_count(self.merge(tuple(len(array) for array in flat)), before, step, str(flat[0].dtype))

    def _add_count(self, length: Any, before: Any, step: int, dtype: str) -> Node:
        """Add the operators that make ``length`` numbers, each of them ``step`` more than the one before it."""
        ones = self._add_fill("full", {"shape": (length,), "value": 1, "dtype": "int64"}, "int64")
        made = self._add_node("cumsum", {"x": Result(ones.name), "axis": 0}, ones.shape, "int64")
        for operator, number, nothing in (("mul", step, 1), ("add", before, 0)):
            if number != nothing:
                made = self._add_node(operator, {"x": Result(made.name), "y": number}, ones.shape, "int64")
        if dtype == "int64":
            return made
        return self._add_node("cast", {"x": Result(made.name), "dtype": dtype}, ones.shape, dtype)

    def _relate(self, arrays: Sequence[NDArray[Any]]) -> Node | None:
        """Make matrices of the batch's size that hold two numbers, one of them on the diagonal or on one side of it."""
        if any(array.ndim != 2 or array.shape[0] != array.shape[1] for array in arrays):
            return None
        largest = max(arrays, key=len)
        for operator, compare in _RELATIONS.items():
            masks = [compare.outer(np.arange(len(array)), np.arange(len(array))) for array in arrays]
            mask = compare.outer(np.arange(len(largest)), np.arange(len(largest)))
            inside, outside = largest[mask][0], largest[~mask][0]
            alike = [
                (array == np.where(mask, inside, outside)).all() for array, mask in zip(arrays, masks, strict=True)
            ]
            if all(alike):
                return self._add_relation(operator, arrays, inside, outside)
        return None

    def _add_relation(self, operator: str, arrays: Sequence[NDArray[Any]], inside: Any, outside: Any) -> Node:
        shape = self.merge(tuple(array.shape for array in arrays))
        places = self._add_count(shape[0], -1, 1, "int64")
        rows = self._add_fill("reshape", {"x": Result(places.name), "shape": (shape[0], 1)}, "int64")
        columns = self._add_fill("reshape", {"x": Result(places.name), "shape": (1, shape[0])}, "int64")
        made = self._add_node(operator, {"x": Result(rows.name), "y": Result(columns.name)}, shape, "bool")
        if arrays[0].dtype == bool:
            return made if inside else self._add_node("logical_not", {"x": Result(made.name)}, shape, "bool")
        x, y = (self._keep(np.full((1, 1), number, arrays[0].dtype)) for number in (inside, outside))
        return self._add_node("where", {"condition": Result(made.name), "x": x, "y": y}, shape, str(arrays[0].dtype))

    def _go_up(self, arrays: Sequence[NDArray[Any]]) -> Node:
        """Make arrays that have the same rows for each image, in each of them so much more than for the image before.

        Such as one array for each image, ``torch.arange(n).repeat_interleave(2)``, or places for several parts of it.

        Raises:
            PassesDiffer: They are others.
        """
        first, step = self._find_step(arrays)
        dtype, shape = str(first.dtype), (BatchSized(1, 1, 0), *first.shape[1:])
        if not step.any():
            return self._add_fill("expand", {"x": self._keep(first), "shape": shape}, dtype)
        numbers = self._add_count(shape[0], -1, 1, dtype)
        places = self._add_fill(
            "reshape", {"x": Result(numbers.name), "shape": (shape[0], *(1 for _ in shape[1:]))}, dtype
        )
        made = self._add_node("mul", {"x": Result(places.name), "y": self._keep(step)}, shape, dtype)
        if not first.any():
            return made
        return self._add_node("add", {"x": Result(made.name), "y": self._keep(first)}, shape, dtype)

    def _find_step(self, arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Find what is there for the first image, and how much more it is for each further one."""
        folded = []
        for array, batch in zip(arrays, self._batches, strict=True):
            if len(array) % batch:
                raise PassesDiffer
            folded.append(array.reshape(batch, len(array) // batch, *array.shape[1:]))
        longest = max(folded, key=len)
        first = longest[:1]
        can_go_up = len(longest) > 1 and str(longest.dtype) in ("int64", "int32", "float32", "float64")
        step = longest[1:2] - first if can_go_up and np.isfinite(longest).all() else np.zeros_like(first)
        for parts in folded:
            numbers = np.arange(len(parts)).reshape(-1, *(1 for _ in first.shape[1:])).astype(first.dtype)
            wanted = numbers * step + first if step.any() else np.broadcast_to(first, (len(parts), *first.shape[1:]))
            if parts.shape != wanted.shape or (parts != wanted).any():
                raise PassesDiffer
        return first, step

    def _add_fill(self, operator: str, arguments: dict[str, Any], dtype: str) -> Node:
        return self._add_node(operator, arguments, arguments["shape"], dtype)

    def _add_node(self, operator: str, arguments: dict[str, Any], shape: Any, dtype: str) -> Node:
        self.fills.append(Node(f"{operator}_for_batch_{len(self.fills)}", operator, arguments, shape, dtype))
        return self.fills[-1]

    def _keep(self, array: NDArray[Any]) -> Constant:
        for key, known in self._constants.items():
            if known.dtype == array.dtype and np.array_equal(known, array, equal_nan=array.dtype.kind == "f"):
                return Constant(key)
        key = f"constant_{len(self._constants)}"
        self._constants[key] = array
        return Constant(key)


def _list_needed(nodes: Sequence[Node], output: Argument, writes: Iterable[Write]) -> list[Node]:
    """List the operators that the output or a buffer needs; a batch normalisation in training changes buffers."""
    needed = set(list_references((output, tuple(write.value for write in writes))))
    kept = []
    for node in reversed(nodes):
        moves = node.operator == "batch_norm" and node.arguments["training"] and node.arguments["mean"] is not None
        if moves or Result(node.name) in needed:
            kept.append(node)
            needed.update(list_references(node.arguments))
    return kept[::-1]


def let_modes_follow(training: Program, evaluation: Program) -> tuple[Program, Program]:
    """Let operators and writes follow the mode of their module, where the two programs show that they do.

    A module may be in evaluation mode while the model trains, or the other way round.
    """
    return _follow(training, True, evaluation), _follow(evaluation, False, training)


def _follow(program: Program, mode: bool, other: Program) -> Program:
    elsewhere = {key: node.arguments["training"] for key, node in _number_switches(other)}
    follows = {
        node.name
        for key, node in _number_switches(program)
        if node.arguments["training"] == mode and elsewhere.get(key, not mode) != mode
    }
    nodes = tuple(node._replace(follows_mode=node.name in follows) for node in program.nodes)
    written = {write.name for write in other.writes}
    writes = tuple(write._replace(follows_mode=mode and write.name not in written) for write in program.writes)
    return replace(program, nodes=nodes, writes=writes)


def _number_switches(program: Program) -> Iterable[tuple[tuple[str, str, int], Node]]:
    """Yield each operator that has a mode, with its module, its name, and its number among its like there."""
    seen: Counter[tuple[str, str]] = Counter()
    for node in program.nodes:
        if "training" in node.arguments:
            kind = (node.module, node.operator)
            yield (*kind, seen[kind]), node
            seen[kind] += 1


def find_mode_bound(training: Program, evaluation: Program) -> tuple[str, ...]:
    """Find the modules whose own operators differ between the modes in more than whether they train."""
    first, second = _list_shapes_of(training), _list_shapes_of(evaluation)
    return tuple(path for path in dict.fromkeys([*first, *second]) if path and first.get(path) != second.get(path))


def _list_shapes_of(program: Program) -> dict[str, list[Any]]:
    needed = set(list_references(program.output))
    for node in reversed(program.nodes):  # what only a write needs does not count
        if Result(node.name) in needed:
            needed.update(list_references(node.arguments))
    found: dict[str, list[Any]] = {}
    for node in program.nodes:
        if Result(node.name) in needed and node.operator != "dropout":
            found.setdefault(node.module, []).append((node.operator, node.shape))
    return found
