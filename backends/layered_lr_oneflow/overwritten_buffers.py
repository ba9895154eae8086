"""Buffers that a forward pass writes: who needs their earlier numbers, so that he must have a copy of them.

A write goes into the buffer's own memory. Whoever holds on to that memory sees the new numbers: an answer, and
OneFlow's backward pass, which computes with the arguments of operators as they are when it runs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeAlias

from layered_lr.models.graph import Held, Input, Node, Program, Result, list_references

Overwritten: TypeAlias = frozenset[Held | Result]

_SHARING: Final = (
    *("cast", "detach", "keep_gradient", "reshape", "permute", "expand", "slice", "cat", "flip", "roll", "pad"),
    "dropout",
)
"""Operators whose result may be their argument itself, or a view of it."""


def list_written(*programs: Program) -> frozenset[str]:
    """List the buffers that forward passes write, other than the statistics of batch normalisations."""
    return frozenset(write.name for program in programs for write in program.writes)


def find_overwritten(program: Program, written: Collection[str]) -> Overwritten:
    """Find buffers that are written, and the results of a program that share their memory.

    Args:
        program: The program.
        written: Names of the buffers.
    """
    found: set[Held | Result] = {Held(name) for name in written}
    for node in program.nodes:
        if node.operator in _SHARING and any(each in found for each in list_references(node.arguments)):
            found.add(Result(node.name))
    return frozenset(found)


def find_needed_backwards(program: Program, written: Collection[str]) -> frozenset[str]:
    """Find the buffers among those that are written whose numbers a backward pass may read after the write.

    Args:
        program: The program.
        written: Names of the buffers; also those that another pass writes before the backward pass of this one.
    """
    needed: set[str] = set()
    differentiated: set[Result] = set()
    sources: dict[Result, set[str]] = {}  # of results that share the memory of buffers
    for node in program.nodes:
        taken = list(list_references(node.arguments))
        names = {each.name for each in taken if isinstance(each, Held) and each.name in written}
        names.update(*(sources.get(each, ()) for each in taken if isinstance(each, Result)))
        if node.operator in _SHARING:
            sources[Result(node.name)] = names
        has_gradient = any(
            isinstance(each, Input) or (isinstance(each, Held) and each.name not in written) or each in differentiated
            for each in taken
        )
        if has_gradient and _is_differentiated(node):
            differentiated.add(Result(node.name))
            needed |= names
    return frozenset(needed)


def _is_differentiated(node: Node) -> bool:
    return not node.detached and node.operator != "detach" and node.dtype.startswith("float")
