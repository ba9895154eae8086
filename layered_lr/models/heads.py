"""The words ``head`` and ``backbone`` in a spec: what they stand for in a model, by the names and shapes it has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import find_head, is_linear, list_answering, path_of_layer
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

    Raises:
        SpecError: Nobody can tell which layer answers.

    Example:
        >>> names = ["conv1.weight", "layer1.0.weight", "layer1.1.weight", "fc.weight", "fc.bias"]
        >>> model = [Parameter(name, (4, 4)) for name in names]
        >>> find_word("head", model), find_word("backbone", model)
        (('fc',), ('conv1', 'layer1'))
    """
    if word not in WORDS:
        return ()
    paths = find_paths(name for parameter in parameters for name in parameter.names)
    heads = _find_heads(paths, parameters)
    if word in paths and (word == BACKBONE or heads == [HEAD]):
        return ()
    if not heads:
        return ()
    check_told(word, parameters, paths)
    return tuple(heads) if word == HEAD else tuple(_cover([parameter.name for parameter in parameters], heads))


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
            others = [head] if word == HEAD else _cover([each.name for each in parameters], [head])
            instead = _listed([repr(path) for path in others])
            raise SpecError(f"head={head!r}: the word {word!r} stands for {meant}. Write {instead} in its place.")


def _find_last(paths: Collection[str], parameters: Sequence[Parameter]) -> str | None:
    """Return the path of the module of that name, or else of the layer that answers."""
    return HEAD if HEAD in paths else find_head(parameters)


def _find_heads(paths: Collection[str], parameters: Sequence[Parameter]) -> list[str]:
    """Return the path of the module of that name, and of layers that answer beside it; else of those that answer."""
    known = list_answering(parameters)
    if HEAD in paths:
        beside = [path for path in known if f"{path}.".startswith(f"{HEAD}.")]
        return [HEAD, *(path for path in known if path not in beside)] if beside else [HEAD]
    last = find_head(parameters)
    return known or ([] if last is None else [last])


def check_told(word: str, parameters: Sequence[Parameter], paths: Collection[str]) -> None:
    """Refuse a word where nobody can tell which layer answers.

    A forward pass may have shown several that are no heads for the same classes. Where there was none, the last linear
    layer counts; but one that others go on with is hardly the last one of the forward pass, if there is another that
    nothing goes on with.

    Args:
        word: ``"head"`` or ``"backbone"``.
        parameters: In model order.
        paths: Of all modules and parameters.

    Raises:
        SpecError: It cannot be told.

    Example:
        >>> model = [Parameter("fc.weight", (5, 8)), Parameter("conv.weight", (4, 3)), Parameter("in.weight", (8, 4))]
        >>> check_told("head", model, {"fc", "conv", "in"})
        Traceback (most recent call last):
        layered_lr.errors.SpecError: the word 'head': ... which layer answers: 'in' or 'fc'. Write the layer's path ...
    """
    known = list_answering(parameters)
    if loose := [p.name for p in parameters if p.answers and len(p.shape) > 1 and not path_of_layer(p.name)]:
        raise _untold(word, f"{_listed(loose)} of the model itself makes the answer, and no layer. Write names")
    if len(known) > 1:
        weights = [p for p in parameters if p.answers and len(p.shape) > 1]
        if len({p.shape[0] for p in weights}) == 1 and all(is_linear(p.shape) for p in weights):
            return
        raise _untold(word, f"several layers make the answer: {_listed(known)}. Write the paths that you mean")
    last = find_head(parameters)
    if known or HEAD in paths or last is None:
        return
    linear = [p for p in parameters if is_linear(p.shape) and path_of_layer(p.name)]
    wanted = {p.shape[1] for p in parameters if len(p.shape) > 1}
    wanted |= {p.shape[0] for p in parameters if len(p.shape) == 1 and p.name.endswith("weight")}  # a normalisation
    wanted |= {p.shape[0] for p in parameters if len(p.shape) > 2 and p.shape[1] == 1}  # a depthwise convolution
    own = next(p for p in linear if path_of_layer(p.name) == last)
    ends = [path_of_layer(p.name) for p in linear if p.shape[0] not in wanted]
    if own.shape[0] in wanted and ends:
        raise _untold(
            word,
            f"nobody can tell from names and shapes which layer answers: {last!r} or {ends[-1]!r}. Write the "
            "layer's path",
        )


def _untold(word: str, why: str) -> SpecError:
    return SpecError(f"the word {word!r}: {why} in the place of the words 'head' and 'backbone'.")


def _cover(names: Iterable[str], left_out: Sequence[str]) -> list[str]:
    """Return the shortest paths under which all names are, except those under some paths."""
    around = [path.split(".") for path in left_out]
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        if any(parts[: len(path)] == path for path in around):
            continue
        shared = max(_count_shared(parts, path) for path in around)
        found[".".join(parts[: shared + 1])] = None
    return list(found)


def _count_shared(parts: Sequence[str], others: Sequence[str]) -> int:
    pairs = zip(parts, others, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(parts), len(others)))


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
