"""How deep each parameter lies: the number of its layer, counted from the images to the head, by names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import find_head
from layered_lr.models.parameter import Parameter
from layered_lr.models.patterns import compile_pattern
from layered_lr.models.wrappers import strip_wrappers

_NUMBERED = re.compile(r"\d+|.*?\d+[a-z]?")  # 3, layer2, inception4b, encoder_layer_11, block1-0
_LISTS = frozenset({"blocks", "layers", "layer"})
"""Modules inside a stage that are lists of its blocks: ``stages.0.blocks.1``."""
_PARTS = ("block", "layer")
"""The list of blocks, and each block's list of its parts, in T5: ``block.0.layer.1``."""
_NAMED_BLOCK = re.compile(r"(b|.*(layer|block|unit)[-_]?)\d+(-\d+)?")
"""A block in a stage, such as ``denseblock1.denselayer2``; ``branch2`` and ``conv1`` are parts of a block."""
_AUXILIARY = re.compile(r"aux", re.IGNORECASE)


def find_depths(parameters: Sequence[Parameter], layers: Sequence[str] = ()) -> dict[str, int]:
    """Number the layers that parameters are in: 0 next to the images, the largest number at the head.

    Without ``layers``, numbers in names tell the order. A *block* is a numbered module with modules in it, such as
    ``layer1.0``, ``blocks.3`` or ``encoder.layer.11``; blocks count in model order. What is numbered inside a block,
    such as the branches of an inception module, is a part of it. What stands before the first block (stem, embeddings,
    tokens) is layer 0. What comes after the last one is the head, with two exceptions, as in timm:
    normalisations belong to the last block, and convolutions outside the head's module, with the normalisations behind
    them, are a layer of their own. Auxiliary heads are heads. In a model without blocks, each module with parameters is
    a layer, and a normalisation belongs to the layer before it. Tied weights are as deep as their first use. Where
    parameters have a ``depth``, the model has counted its layers itself, and that is the answer.

    Args:
        parameters: In model order.
        layers: Patterns as in ``Group.match``, from the images to the head, instead of numbers in names.

    Returns:
        The depth of each parameter, by name.

    Raises:
        SpecError: No name has a number; or a pattern of ``layers`` matches nothing, or a parameter is in none.

    Example:
        >>> import layered_lr as ll
        >>> names = ["stem.weight", "blocks.0.fc.weight", "blocks.1.fc.weight", "norm.weight", "head.weight"]
        >>> find_depths([ll.Parameter(name, (4, 4) if name != "norm.weight" else (4,)) for name in names])
        {'stem.weight': 0, 'blocks.0.fc.weight': 1, 'blocks.1.fc.weight': 2, 'norm.weight': 2, 'head.weight': 3}
    """
    plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
    if not layers and all(parameter.depth is not None for parameter in parameters):
        return {parameter.name: parameter.depth or 0 for parameter in parameters}
    if layers:
        return _by_patterns(parameters, layers, plain)
    paths = {p.name: [plain[name].split(".") for name in p.names] for p in parameters}
    blocks = _Blocks([parts for parameter in parameters for parts in paths[parameter.name]])
    if blocks.places:
        return _by_blocks(parameters, paths, blocks)
    return _by_modules(parameters, paths)


def _by_patterns(parameters: Sequence[Parameter], layers: Sequence[str], plain: dict[str, str]) -> dict[str, int]:
    tests = [compile_pattern(pattern) for pattern in layers]
    found: dict[str, int] = {}
    for parameter in parameters:
        names = {spelling for name in parameter.names for spelling in (name, plain[name])}
        places = [place for place, test in enumerate(tests) if any(map(test, names))]
        if not places:
            raise SpecError(f"layers: {parameter.name!r} is in none of them. Add a pattern that matches it.")
        found[parameter.name] = places[0]
    for place, pattern in enumerate(layers):
        if place not in found.values():
            raise SpecError(f"layers: {pattern!r} matches no parameter that the ones before it have left.")
    return found


def _by_blocks(parameters: Sequence[Parameter], paths: dict[str, list[list[str]]], blocks: _Blocks) -> dict[str, int]:
    found: dict[str, int] = {}
    norms = _find_norms(parameters)
    convolved = _find_last_convolutions(parameters, paths, list(blocks.places)[-1])
    tail = len(blocks.places)
    last, head = tail - 1, tail + 1
    reached = -1  # the last block before a parameter, in model order, or the convolutions behind all of them
    for parameter in parameters:
        own = [blocks.place(parts) for parts in paths[parameter.name]]
        known = [place for place in own if place is not None]
        if known:
            reached = max(reached, known[0])
            found[parameter.name] = min(known)
        elif any(_is_auxiliary(parts) for parts in paths[parameter.name]):
            found[parameter.name] = head
        elif reached < last:
            found[parameter.name] = reached
        elif parameter.name in convolved:
            found[parameter.name] = reached = tail
        else:
            found[parameter.name] = reached if parameter.name in norms else head
    return _numbered_from_zero(found)


def _find_last_convolutions(
    parameters: Sequence[Parameter], paths: dict[str, list[list[str]]], last_block: tuple[str, ...]
) -> set[str]:
    """Names of the parameters of convolutions that are not in the module of the head.

    The head's module is the largest one around the layer that answers in which the last block is not: ``classifier``
    for ``classifier.1``, and ``layers.9`` for ``layers.9`` where the last block is ``layers.7``.
    """
    head = find_head(parameters)
    if head is None:
        return set()
    own = next(paths[each.name][0][:-1] for each in parameters if each.name.rpartition(".")[0] == head)
    shared = 0
    while shared < min(len(own) - 1, len(last_block)) and own[shared] == last_block[shared]:
        shared += 1
    around = own[: shared + 1]
    weights = [each.name for each in parameters if len(each.shape) > 2]
    holders = {name.removesuffix(".weight") for name in weights if name.endswith(".weight")}
    return {
        each.name
        for each in parameters
        if each.name.rpartition(".")[0] in holders and paths[each.name][0][: len(around)] != around
    }


def _by_modules(parameters: Sequence[Parameter], paths: dict[str, list[list[str]]]) -> dict[str, int]:
    if not any(_NUMBERED.fullmatch(part) for own in paths.values() for parts in own for part in parts[:-1]):
        raise SpecError(
            f"no layer has a number in its name ({', '.join(map(repr, list(paths)[:3]))}), which would tell how deep "
            "it lies. Give layers=[...]: patterns from the images to the head."
        )
    found: dict[str, int] = {}
    norms = _find_norms(parameters)
    places: dict[tuple[str, ...], int] = {}
    for parameter in parameters:
        module = min(
            (tuple(parts[:-1]) for parts in paths[parameter.name]), key=lambda path: places.get(path, len(places))
        )
        if module not in places:
            places[module] = max(places.values(), default=-1) + (parameter.name not in norms or not places)
        found[parameter.name] = places[module]
    return _numbered_from_zero(found)


class _Blocks:
    """Tells which block of a model a parameter is in.

    A block is a numbered module with modules in it. A decimal is a number. So is a name that ends in one, such as
    ``layer2``, if there is another beside it: ``dinov2`` alone is the name of a network. A block may lie in a stage,
    which is numbered too: ``layer1.0``, ``stages.0.blocks.1``, ``denseblock1.denselayer2``. What is numbered inside a
    block is a part of it.

    Args:
        paths: Components of all names.
    """

    def __init__(self, paths: Sequence[Sequence[str]]) -> None:
        siblings: dict[tuple[str, ...], set[str]] = {}
        for parts in paths:
            for at, part in enumerate(parts[:-2]):
                if not part.isdecimal() and _NUMBERED.fullmatch(part):
                    siblings.setdefault(tuple(parts[:at]), set()).add(part)
        self._named = {(*parent, part) for parent, found in siblings.items() if len(found) > 1 for part in found}
        blocks = (self._find(parts) for parts in paths if not _is_auxiliary(parts))
        self.places = {block: place for place, block in enumerate(_in_order(block for block in blocks if block))}

    def place(self, parts: Sequence[str]) -> int | None:
        """Return the number of the block that a parameter is in; None where it is in none."""
        if _is_auxiliary(parts):
            return None
        around = (self.places.get(tuple(parts[:length])) for length in range(len(parts) - 1, 0, -1))
        return next((place for place in around if place is not None), None)

    def _find(self, parts: Sequence[str]) -> tuple[str, ...] | None:
        modules = parts[:-2]
        stage = next(
            (at for at, part in enumerate(modules) if part.isdecimal() or tuple(parts[: at + 1]) in self._named), None
        )
        if stage is None:
            return None
        inner, after, *_ = [*modules[stage + 1 :], "", ""]
        if inner.isdecimal() or (tuple(parts[: stage + 2]) in self._named and _NAMED_BLOCK.fullmatch(inner)):
            return tuple(parts[: stage + 2])
        if inner in _LISTS and after.isdecimal() and (parts[stage - 1], inner) != _PARTS:
            return tuple(parts[: stage + 3])
        return tuple(parts[: stage + 1])


def _is_auxiliary(parts: Sequence[str]) -> bool:
    return any(_AUXILIARY.match(part) for part in parts)


def _find_norms(parameters: Sequence[Parameter]) -> set[str]:
    """Names of the parameters whose module holds none of two or more dimensions, as a linear layer does."""
    holders = {parameter.name.rpartition(".")[0] for parameter in parameters if len(parameter.shape) > 1}
    return {parameter.name for parameter in parameters if parameter.name.rpartition(".")[0] not in holders}


def _in_order(blocks: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(blocks))


def _numbered_from_zero(found: dict[str, int]) -> dict[str, int]:
    ranks = {place: rank for rank, place in enumerate(sorted(set(found.values())))}
    return {name: ranks[place] for name, place in found.items()}
