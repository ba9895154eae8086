"""A traced model as data: what is refused, and how it reads."""

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.models.graph import (
    BatchSized,
    Constant,
    Held,
    HeldModule,
    HeldTensor,
    Input,
    InputFacts,
    ModelGraph,
    Node,
    Program,
    Result,
    Structure,
    Write,
    list_references,
)

WEIGHT = HeldTensor("w", "parameter", (3,), "float32")
FACTS = InputFacts((3,), "float32")
PRODUCT = Result("mul_0")
MUL = Node("mul_0", "mul", {"x": Input(0), "y": Held("w")}, (BatchSized(1, 1, 0), 3), "float32", "", "net.py:7")


def graph(*nodes: Node, output: Any = PRODUCT, writes: tuple[Write, ...] = (), **others: Any) -> ModelGraph:
    program = Program(nodes, output, writes)
    return ModelGraph((WEIGHT,), (HeldModule("", "Net"),), (FACTS,), program, program, **others)


def test_a_graph_reads_line_by_line() -> None:
    lines = str(graph(MUL, output=Structure("dict", "", ("out",), (Result("mul_0"),)))).splitlines()
    assert lines[:2] == ["Net: 1 tensors, 1 modules", "  parameter w: float32[3]"]
    assert lines[3] == "  mul_0 = mul(x=input 0, y=w): float32[n, 3]  # the model itself, net.py:7"
    assert lines[4] == "  return dict(mul_0)"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: graph(MUL._replace(operator="wild")), "'wild', which is no operator"),
        (lambda: graph(MUL._replace(arguments={"x": Input(0)})), "mul takes x, y"),
        (lambda: graph(MUL._replace(arguments={"x": Input(1), "y": 2})), r"takes Input\(place=1\)"),
        (lambda: graph(MUL._replace(arguments={"x": Held("v"), "y": 2})), "takes Held"),
        (lambda: graph(MUL._replace(arguments={"x": Constant("c"), "y": 2})), "takes Constant"),
        (lambda: graph(MUL._replace(arguments={"x": Result("mul_0"), "y": 2})), "takes Result"),
        (lambda: graph(MUL, MUL), "stands there twice"),
        (lambda: graph(MUL._replace(module="body")), "in no module"),
        (lambda: graph(MUL, output=Result("mul_1")), "the output takes"),
        (lambda: graph(MUL, writes=(Write("b", Result("mul_0"), "", False),)), "the write to 'b'"),
    ],
)
def test_a_graph_that_is_not_well_formed_is_refused(made: Any, why: str) -> None:
    with pytest.raises(ll.SpecError, match=why):
        made()


def test_references_are_found_wherever_they_stand() -> None:
    argument = {
        "x": (Input(0), (Constant("c"), BatchSized(2, 1, 0))),
        "y": Structure("list", "", (), (Held("w"), None)),
    }
    assert list(list_references(argument)) == [Input(0), Constant("c"), Held("w")]


@pytest.mark.parametrize(("size", "images", "number"), [((4, 1, 1), 3, 13), ((1, 2, 0), 6, 3), ((-1, 1, 8), 3, 5)])
def test_a_size_follows_the_batch(size: tuple[int, int, int], images: int, number: int) -> None:
    assert BatchSized(*size).at(images) == number


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(ll.SpecError, match="Give it a multiple of 2"):
        BatchSized(1, 2, 0).at(5)


def test_constants_may_be_used() -> None:
    node = MUL._replace(arguments={"x": Input(0), "y": Constant("c")})
    assert graph(node, constants={"c": np.ones(3)}).kind == "Net"
