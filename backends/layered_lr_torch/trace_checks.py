"""Refuses operators of a traced program that OneFlow cannot run: at some of them it would abort the process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from layered_lr.errors import Unsupported
from layered_lr.models.graph import (
    Argument,
    Constant,
    Held,
    HeldTensor,
    Input,
    InputFacts,
    Node,
    Program,
    Result,
    Size,
    list_references,
)
from layered_lr.models.graph_operators import DTYPES, WITHOUT_NUMBERS


class _Facts(NamedTuple):
    shape: tuple[Size, ...]
    dtype: str


def check_program(program: Program, tensors: Mapping[str, HeldTensor], constants: Mapping[str, NDArray[Any]]) -> None:
    """Refuse dtypes that OneFlow does not have, and operators on tensors without numbers.

    Args:
        program: The forward pass, without what nothing needs.
        tensors: The model's, by name.
        constants: The graph's, by key.

    Raises:
        Unsupported: There is such an operator.
    """
    results: dict[str, _Facts] = {}

    def find(reference: Input | Held | Constant | Result) -> _Facts | None:
        if isinstance(reference, Result):
            return results[reference.node]
        if isinstance(reference, Constant):
            return _Facts(constants[reference.key].shape, str(constants[reference.key].dtype))
        if isinstance(reference, Held):
            return _Facts(tensors[reference.name].shape, tensors[reference.name].dtype)
        return None  # an input, which was checked

    for node in program.nodes:
        made = results[node.name] = _Facts(node.shape, node.dtype)
        _check_node(node, made, node.arguments, find)


def check_derivatives(nodes: Sequence[Node], output: Argument, without: Collection[str]) -> None:
    """Refuse functions to which a gradient comes back, and whose derivative torch does not have: it raises there.

    Args:
        nodes: Of a forward pass in training.
        output: What it returns.
        without: Names of nodes that such functions gave.

    Raises:
        Unsupported: There is one.
    """
    reached = {each.node for each in list_references(output) if isinstance(each, Result)}
    for node in reversed(nodes):
        stops = node.detached or node.operator == "detach" or "float" not in node.dtype
        if node.name not in reached or stops:
            continue
        if node.name in without:
            raise _refuse(
                node,
                f"computes a gradient through {node.operator}, whose derivative torch does not have",
                "Detach what it computes with, or write it with torch.floor.",
            )
        given = node.arguments["x"] if node.operator == "keep_gradient" else node.arguments
        reached |= {each.node for each in list_references(given) if isinstance(each, Result)}


def _check_node(
    node: Node,
    made: _Facts,
    arguments: Argument,
    find: Callable[[Any], _Facts | None],
) -> None:
    taken = [facts for facts in map(find, list_references(arguments)) if facts is not None]
    odd = next((facts.dtype for facts in (made, *taken) if facts.dtype not in DTYPES), None)
    if odd is not None:
        raise _refuse(node, f"computes in {odd}", f"Use one of {', '.join(DTYPES)}, or train on a torch backend.")
    is_empty = 0 in made.shape or any(0 in facts.shape for facts in taken)
    if is_empty and (node.operator not in WITHOUT_NUMBERS or (node.operator == "cat" and 0 in made.shape)):
        raise _refuse(
            node,
            f"computes {node.operator} of a tensor with an axis of length 0",
            "Leave out what has no numbers, or train on a torch backend.",
        )


def _refuse(node: Node, what: str, mend: str) -> Unsupported:
    return Unsupported(f"model: {what}, in {node.describe_place()}, which cannot be translated. {mend}")


def check_held(tensors: Iterable[HeldTensor], inputs: Sequence[InputFacts]) -> None:
    """Refuse parameters, buffers and inputs that OneFlow cannot hold.

    Raises:
        Unsupported: There is one.
    """
    named = [(repr(tensor.name), tensor.dtype) for tensor in tensors]
    named += [(f"input {place}", facts.dtype) for place, facts in enumerate(inputs)]
    for name, dtype in named:
        if dtype not in DTYPES:
            raise Unsupported(
                f"model: {name} is {dtype}; OneFlow backends take {', '.join(DTYPES)}. Convert it, or train on a torch "
                "backend."
            )
