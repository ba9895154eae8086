"""The words ``head`` and ``backbone`` in a spec: what they stand for in a model, by the names and shapes it has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import find_head
from layered_lr.models.matching import find_paths
from layered_lr.models.parameter import Parameter

HEAD: Final = "head"
BACKBONE: Final = "backbone"
WORDS: Final = (HEAD, BACKBONE)


def find_word(word: str, parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """Return the paths that a word stands for in a model.

    Args:
        word: ``"head"`` or ``"backbone"``.
        parameters: In model order.

    Returns:
        Paths of modules and parameters, in model order; none where the model has a module of that name, which the word
        then means, or where no head is found.

    Example:
        >>> names = ["conv1.weight", "layer1.0.weight", "layer1.1.weight", "fc.weight", "fc.bias"]
        >>> model = [Parameter(name, (4, 4)) for name in names]
        >>> find_word("head", model), find_word("backbone", model)
        (('fc',), ('conv1', 'layer1'))
    """
    if word not in WORDS:
        return ()
    paths = find_paths(name for parameter in parameters for name in parameter.names)
    if word in paths:
        return ()
    head = _find_last(paths, parameters)
    if head is None:
        return ()
    if word == HEAD:
        return (head,)
    return tuple(_cover([parameter.name for parameter in parameters], head))


def check_words(words: Iterable[str], parameters: Sequence[Parameter], head: str | None) -> None:
    """Refuse words that stand for another layer than the head that a run has been given.

    Args:
        words: Patterns, as in ``Group.match``, and names.
        parameters: In model order.
        head: The path that was given; None or ``"auto"`` where none was.

    Raises:
        SpecError: There is such a word.

    Example:
        >>> check_words(["head"], [Parameter("fc.weight", (10, 8)), Parameter("aux.weight", (10, 8))], "fc")
        Traceback (most recent call last):
        layered_lr.errors.SpecError: head='fc': the word 'head' stands for 'aux'. Write 'fc' in its place.
    """
    paths = find_paths(name for parameter in parameters for name in parameter.names)
    last = _find_last(paths, parameters)
    if head is None or head == "auto" or last is None or last == head or head.startswith(f"{last}."):
        return
    for word in words:
        if found := find_word(word, parameters):
            meant = repr(last) if word == HEAD else f"all but {last!r} ({_listed(found)})"
            others = [head] if word == HEAD else _cover([each.name for each in parameters], head)
            instead = _listed([repr(path) for path in others])
            raise SpecError(f"head={head!r}: the word {word!r} stands for {meant}. Write {instead} in its place.")


def _find_last(paths: Collection[str], parameters: Sequence[Parameter]) -> str | None:
    """Return the path of the module of that name, or else of the last linear layer."""
    return HEAD if HEAD in paths else find_head(parameters)


def _cover(names: Iterable[str], left_out: str) -> list[str]:
    """Return the shortest paths under which all names are, except those under one path."""
    around = left_out.split(".")
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        if parts[: len(around)] == around:
            continue
        shared = 0
        while shared < len(around) and parts[shared : shared + 1] == around[shared : shared + 1]:
            shared += 1
        found[".".join(parts[: shared + 1])] = None
    return list(found)


def expand_words(patterns: Sequence[str], parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """Put the paths that they stand for in the place of words among patterns; all other patterns stay.

    Args:
        patterns: As in ``Group.match``.
        parameters: In model order.

    Example:
        >>> expand_words(["head", "conv*"], [Parameter("conv1.weight", (8, 3, 3, 3)), Parameter("fc.weight", (10, 8))])
        ('fc', 'conv*')
    """
    return tuple(path for pattern in patterns for path in find_word(pattern, parameters) or (pattern,))


def describe_words(patterns: Iterable[str], parameters: Sequence[Parameter]) -> list[str]:
    """Say what the words among patterns stand for.

    Args:
        patterns: As in ``Group.match``.
        parameters: In model order.

    Example:
        >>> describe_words(["head"], [Parameter("conv1.weight", (8, 3, 3, 3)), Parameter("fc.weight", (10, 8))])
        ["'head' stands for fc"]
    """
    found = {pattern: find_word(pattern, parameters) for pattern in patterns if pattern in WORDS}
    return [f"{word!r} stands for {_listed(paths)}" for word, paths in found.items() if paths]


_MOST_PATHS = 6


def _listed(paths: Sequence[str]) -> str:
    if len(paths) <= _MOST_PATHS:
        return ", ".join(paths)
    return f"{', '.join(paths[: _MOST_PATHS - 1])}, … and {paths[-1]}: {len(paths)} paths"
