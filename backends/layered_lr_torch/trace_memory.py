"""What a forward pass leaves behind in a model: puts it back, and finds the passes that depend on an earlier one.

A trace stands for every later pass. So a second pass, which finds what the first one left, must compute the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

from layered_lr.errors import Unsupported
from layered_lr.models.graph import Constant, Held, Input, Node, Result
from layered_lr.models.graph_operators import RANDOM
from layered_lr_torch.torch_types import Module
from layered_lr_torch.trace_attributes import MAPPINGS, OWN_TABLES, SERIES, list_tables, list_values
from layered_lr_torch.trace_generators import Generators
from layered_lr_torch.trace_recorder import Earlier, Recorder


@contextmanager
def put_back(model: Module) -> Iterator[None]:
    """Put the model back as it was, whatever happens in a ``with`` block: tensors, modes, attributes, generators.

    Attributes, and variables of its functions, that are lists, sets, mappings or the user's own objects get back what
    they held, and plain tensors their numbers.
    """
    kept = [(module, dict(module.__dict__)) for module in model.modules()]
    inner = [(table.values, dict(table.values)) for table in list_tables(model) if not table.of_module]
    generators = Generators(model)
    contents = [(value, _copy_content(value)) for value in list_values(model)]
    generator = torch.get_rng_state()
    for module, attributes in kept:
        module.__dict__.update({name: dict(attributes[name]) for name in OWN_TABLES})
    try:
        yield
    finally:
        torch.set_rng_state(generator)
        generators.put_back()
        for module, attributes in kept:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for table, held in inner:
            if not _is_same(dict(table), held):
                table.clear()
                table.update(held)
        for value, content in contents:
            _restore_content(value, content)


def _copy_content(value: Any) -> Any:
    """Copy what an attribute of a well-known kind holds; None of any other kind, which may not like to be changed."""
    if type(value) in MAPPINGS:
        return dict(value)
    if type(value) in SERIES or type(value) is set:
        return list(value)
    if isinstance(value, torch.Tensor):
        return None if value.is_inference() else (value._version, value.detach().clone())
    return value.copy() if isinstance(value, np.ndarray) else None


def _restore_content(value: Any, content: Any) -> None:
    if content is None:
        return
    if isinstance(value, torch.Tensor):
        if value._version != content[0]:
            with torch.no_grad():
                value.copy_(content[1])
    elif isinstance(value, np.ndarray):
        if value.tobytes() != content.tobytes():
            value[...] = content
    elif not _is_same(_copy_content(value), content):
        value.clear()
        if type(value) in SERIES:
            value.extend(content)
        else:
            value.update(content)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two lists or dictionaries hold the same objects."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(one[key] is other[key] for key in one)
    return len(one) == len(other) and all(mine is its for mine, its in zip(one, other, strict=True))


class Photograph:
    """The plain attributes and variables of a model at one time; two are equal if nothing has changed in between."""

    def __init__(self, model: Module) -> None:
        self._values = list(list_values(model))
        self._contents = [_describe_content(value) for value in self._values]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Photograph):
            return NotImplemented
        return _is_same(self._values, other._values) and all(
            _is_same(one, its) if isinstance(one, list | dict) else one == its
            for one, its in zip(self._contents, other._contents, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]


def _describe_content(value: Any) -> Any:
    content = _copy_content(value)
    if isinstance(value, torch.Tensor):
        return None if content is None else content[0]
    return content.tobytes() if isinstance(value, np.ndarray) else content


KEEP_IN_BUFFER: Final = "Keep what changes in a buffer (register_buffer), or train on a torch backend."


def refuse_memory(node: Node | None) -> Unsupported:
    """Make the error for a model whose second pass does something else than its first."""
    where = "the model itself" if node is None else f"{node.operator}, in {node.describe_place()}"
    return Unsupported(
        "model: its forward pass changes an attribute or a variable, such as a counter or a kept tensor, and computes "
        f"something else another time ({where}). A trace has one pass for all, so it cannot be translated. "
        f"{KEEP_IN_BUFFER}"
    )


def refuse_counter(path: str) -> Unsupported:
    """Make the error for a model that reads an attribute which each pass changes."""
    return Unsupported(
        f"model: its forward pass changes an attribute or a variable each time, and reads it too ({path!r}), so that a "
        "later pass may compute something else. A trace has one pass for all, so it cannot be translated. "
        f"{KEEP_IN_BUFFER}"
    )


def refuse_change(path: str) -> Unsupported:
    """Make the error for a model that changes an attribute of which nobody can see whether it is read."""
    return Unsupported(
        f"model: its forward pass changes {path!r} each time, so that a later pass may compute something else. A trace "
        "has one pass for all, so it cannot be translated. Keep what changes in a buffer (register_buffer), a count "
        "that nothing reads in an int, or train on a torch backend."
    )


def compare_passes(model: Module, first: Recorder, second: Recorder, with_same_weights: bool = False) -> None:
    """Compare two passes in a row over batches of the same shape.

    Args:
        model: Whose passes they are.
        first: The first.
        second: The one after it, which knows the tensors of the first as ``Earlier``.
        with_same_weights: Whether nothing trains between the passes, so that what was computed of parameters alone is
            the same in both.

    Raises:
        Unsupported: The second computes something else.
    """
    keys: dict[Any, int] = {}
    lasting = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    if with_same_weights:
        lasting |= {name for name, _ in model.named_parameters(remove_duplicate=False)}
    before = _Keys(first, keys, lasting)
    after = _Keys(second, keys, lasting, before)
    if before.of_results() != after.of_results():
        raise refuse_memory(after.find_other(before))


class _Keys:
    """Gives numbers to what a pass computes: the same one to the same operators on the same arguments."""

    def __init__(
        self, recorder: Recorder, keys: dict[Any, int], lasting: set[str], earlier: _Keys | None = None
    ) -> None:
        self._recorder, self._keys, self._lasting, self._earlier = recorder, keys, lasting, earlier
        self._changing = {write.name for write in recorder.writes}
        self._known: dict[str, tuple[int, bool]] = {}
        for node in recorder.nodes:
            self._known[node.name] = self._number_node(node)

    def of_results(self) -> list[Any]:
        """What the pass gives: output, buffers, and the batches that statistics learn from."""
        writes = tuple((write.name, write.value) for write in self._recorder.writes)
        learns = sorted(
            self._known[node.name][0]
            for node in self._recorder.nodes
            if node.operator == "batch_norm" and node.arguments["training"]
        )
        return [self._describe(self._recorder.output)[0], self._describe(writes)[0], learns]

    def find_other(self, first: _Keys) -> Node | None:
        """The first operator that the other pass does not have."""
        theirs = {number for number, _ in first._known.values()}
        return next((node for node in self._recorder.nodes if self._known[node.name][0] not in theirs), None)

    def _number_node(self, node: Node) -> tuple[int, bool]:
        arguments, is_lasting = self._describe(node.arguments)
        is_lasting = is_lasting and node.operator not in RANDOM and node.operator != "batch_norm"
        description = (node.operator, arguments, node.shape, node.dtype, node.detached)
        return self._keys.setdefault(description, len(self._keys)), is_lasting

    def _describe(self, value: Any) -> tuple[Any, bool]:
        """Describe a value, and say whether it is the same in each later pass."""
        if isinstance(value, Earlier):
            assert self._earlier is not None
            described, is_lasting = self._earlier._describe(value.argument)
            return (described if is_lasting else ("earlier", described)), is_lasting
        if isinstance(value, Constant):
            array = self._recorder.constants[value.key]
            return ("constant", str(array.dtype), array.shape, array.tobytes()), True
        if isinstance(value, Result):
            return self._known[value.node]
        if isinstance(value, Held):
            return ("held", value.name), value.name in self._lasting and value.name not in self._changing
        if isinstance(value, Input):
            return ("input", *value), False
        if isinstance(value, Mapping):
            value = tuple(value.items())
        if isinstance(value, tuple):
            parts = [self._describe(part) for part in value]
            return (type(value).__name__, *(part for part, _ in parts)), all(lasts for _, lasts in parts)
        return (type(value).__name__, repr(value)), True
