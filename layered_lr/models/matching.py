"""Decides which parameter belongs to which group: the first group with a pattern that matches gets it."""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import CHECKPOINT_WRAPPER, plain_name
from layered_lr.models.parameter import Parameter
from layered_lr.printed import shown
from layered_lr.spelling import find_nearest

GLOB_CHARACTERS = "*?["
REGEX_PREFIX = "re:"
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", CHECKPOINT_WRAPPER, "_torch_params"})
"""Components of names that only wrappers add."""
ONE_DIMENSIONAL = "1d"  # in `no_weight_decay`: biases and all parameters of at most one dimension


def check_pattern(pattern: object, what: str = "match") -> str:
    """Return the pattern if it is valid.

    Args:
        pattern: A module or parameter path, a glob, or ``"re:<regex>"``.
        what: The name of the argument, for messages.

    Raises:
        SpecError: Not a string, empty, with characters that do not print, or an invalid regular expression.
    """
    if not isinstance(pattern, str):
        raise SpecError(
            f"{what}={shown(pattern)} ({type(pattern).__name__}): must be a module or parameter path, a glob, "
            "'re:<regex>', or a list of these."
        )
    if not pattern.removeprefix(REGEX_PREFIX).strip():
        raise SpecError(f"{what}={pattern!r}: the pattern is empty; use '*' to take every parameter.")
    if not pattern.isprintable():
        raise SpecError(
            f"{what}={shown(pattern)}: holds a character that does not print. Write '?' for it, or '.' in a regular "
            "expression."
        )
    if pattern.startswith(REGEX_PREFIX):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # such as 'possible nested set': later Pythons will read it differently
                re.compile(pattern.removeprefix(REGEX_PREFIX))
        except (re.error, OverflowError, RecursionError, FutureWarning, DeprecationWarning) as error:
            raise SpecError(f"{what}={pattern!r}: not a valid regular expression: {error}.") from None
    return pattern


def compile_pattern(pattern: str, paths: Collection[str] = ()) -> Callable[[str], bool]:
    """Make the function that tells whether a pattern matches a name.

    A pattern that is the path of a parameter or module of the model is that path, whatever characters it has. Else a
    pattern that begins with ``re:`` is a regular expression for the whole name, and a pattern with any of ``*?[`` is a
    glob for the whole name, in which ``*`` also matches dots. Every other pattern is a path: it matches the parameter
    of that name, and all parameters under the module of that name.

    Args:
        pattern: A valid pattern.
        paths: From ``find_paths``.

    Example:
        >>> matches = compile_pattern("features.1")
        >>> matches("features.1.conv.weight"), matches("features.18.0.weight")
        (True, False)
        >>> compile_pattern("conv[1]", find_paths(["conv[1].weight", "conv1.weight"]))("conv1.weight")
        False
    """
    path = plain_name(pattern)
    if path not in paths:
        if pattern.startswith(REGEX_PREFIX):
            expression = re.compile(pattern.removeprefix(REGEX_PREFIX))
            return lambda name: expression.fullmatch(name) is not None
        if any(character in pattern for character in GLOB_CHARACTERS):
            return lambda name: fnmatch.fnmatchcase(name, pattern)
    return lambda name: name == path or name.startswith(path + ".")


def find_paths(names: Iterable[str]) -> set[str]:
    """Return the names and the paths of all modules that they are in, each with and without parts of wrappers."""
    found: set[str] = set()
    for name in (spelling for pair in strip_wrappers(names).items() for spelling in pair):
        while name and name not in found:
            found.add(name)
            name = name.rpartition(".")[0]
    return found


def strip_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Map each name to the name without the components that a wrapper has added.

    ``torch.compile`` adds ``_orig_mod`` to names, ``FullyShardedDataParallel``, ``checkpoint_wrapper`` and Keras on
    torch add the others of ``WRAPPERS``; these are removed everywhere. ``DataParallel`` and ``DistributedDataParallel``
    add ``module``. It is removed only if it is the only child of its parent, as it is under a wrapper. Where two names
    would become equal, both stay as they are.
    """
    plain = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in names}
    children: dict[tuple[str, ...], set[str]] = {}
    for parts in plain.values():
        for depth, part in enumerate(parts):
            children.setdefault(tuple(parts[:depth]), set()).add(part)

    def strip(parts: list[str]) -> str:
        last = len(parts) - 1
        return ".".join(
            part
            for depth, part in enumerate(parts)
            if part != "module" or depth == last or children[tuple(parts[:depth])] != {"module"}
        )

    stripped = {name: strip(parts) for name, parts in plain.items()}
    counts = Counter(stripped.values())
    return {name: short if short and counts[short] == 1 else name for name, short in stripped.items()}


def match_names(given: Iterable[str], own: Iterable[str]) -> dict[str, str]:
    """Map names from outside to a model's own, where they differ only by components of wrappers.

    Args:
        given: Such as those in a file.
        own: Those of the model.

    Returns:
        For each given name the model's name, or the given one where the model has none like it.

    Example:
        >>> match_names(["module.head.weight", "module.tail.weight"], ["_orig_mod.head.weight"])
        {'module.head.weight': '_orig_mod.head.weight', 'module.tail.weight': 'module.tail.weight'}
    """
    known, names = list(own), list(given)
    own_of = {short: name for name, short in strip_wrappers(known).items()}
    exact = set(known)
    found = {
        name: name if name in exact else own_of.get(short, own_of.get(name, name))
        for name, short in strip_wrappers(names).items()
    }
    counts = Counter(found.values())
    return {name: taken if counts[taken] == 1 else name for name, taken in found.items()}


class Rule(NamedTuple):
    """What matching needs to know about a group: its name, its patterns, and whether it may be empty."""

    name: str
    patterns: tuple[str, ...]
    optional: bool


def assign(rules: Sequence[Rule], parameters: Sequence[Parameter]) -> list[list[Parameter]]:
    """Give every parameter to the first rule that matches one of its names.

    A rule may match a name as it is, or the name without the components of wrappers such as ``torch.compile``.

    Args:
        rules: In priority order.
        parameters: In model order.

    Returns:
        One list for each rule, and a last list of the parameters that no rule matches; all in model order.

    Raises:
        SpecError: A rule that is not optional gets no parameters.
    """
    plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
    spellings = [{s for name in parameter.names for s in (name, plain[name])} for parameter in parameters]
    paths = find_paths(name for parameter in parameters for name in parameter.names)
    tests = [[compile_pattern(pattern, paths) for pattern in rule.patterns] for rule in rules]

    def matches(rule: int, parameter: int) -> bool:
        return any(test(name) for test in tests[rule] for name in spellings[parameter])

    owners = [
        next((rule for rule in range(len(rules)) if matches(rule, index)), len(rules))
        for index in range(len(parameters))
    ]
    members: list[list[Parameter]] = [[] for _ in range(len(rules) + 1)]
    for parameter, owner in zip(parameters, owners, strict=True):
        members[owner].append(parameter)
    for index, rule in enumerate(rules):
        if not members[index] and not rule.optional:
            taken = {rules[owner].name: None for p, owner in enumerate(owners) if matches(index, p)}
            raise SpecError(_nothing_left(rule, list(taken)) if taken else _empty_group(rule, list(plain.values())))
    return members


def find_unused_patterns(rule: Rule, parameters: Sequence[Parameter]) -> list[str]:
    """Return the patterns of a rule that match no parameter at all, whichever group the parameters are in."""
    plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
    tests = {pattern: compile_pattern(pattern, find_paths(plain)) for pattern in rule.patterns}
    return [
        pattern for pattern, test in tests.items() if not any(test(raw) or test(name) for raw, name in plain.items())
    ]


def find_undecayed(patterns: Sequence[str], parameters: Sequence[Parameter]) -> frozenset[str]:
    """Return the names of the parameters that a spec's ``no_weight_decay`` matches.

    Args:
        patterns: Patterns as in ``Group.match``, or ``"1d"``: every bias, and every parameter of at most one dimension.
        parameters: In model order.

    Raises:
        SpecError: A pattern matches none of the parameters.
    """
    rule = {p.name for p in parameters if ONE_DIMENSIONAL in patterns and is_one_dimensional(p)}
    advice = f" Give {ONE_DIMENSIONAL!r} for biases and normalisations, or patterns as in Group.match."
    named = [
        select_parameters("no_weight_decay", pattern, parameters, advice)
        for pattern in patterns
        if pattern != ONE_DIMENSIONAL
    ]
    return frozenset(rule).union(*named)


def select_parameters(what: str, pattern: str, parameters: Sequence[Parameter], advice: str) -> frozenset[str]:
    """Return the names of the parameters that a pattern matches.

    Args:
        what: The name of the argument, for messages.
        pattern: A pattern as in ``Group.match``.
        parameters: In model order.
        advice: What else the argument takes, for messages: a sentence after a space.

    Raises:
        SpecError: The pattern matches none of the parameters.
    """
    plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
    test = compile_pattern(pattern, find_paths(plain))
    found = {p.name for p in parameters if any(test(name) or test(plain[name]) for name in p.names)}
    if not found:
        raise SpecError(_no_such_name(f"{what}={pattern!r}", [pattern], list(plain.values())) + advice)
    return frozenset(found)


def is_one_dimensional(parameter: Parameter) -> bool:
    """Whether timm and transformers would not decay a parameter: it is a bias, or has at most one dimension."""
    return len(parameter.shape) <= 1 or any(name.split(".")[-1] == "bias" for name in parameter.names)


def _describe(rule: Rule) -> str:
    patterns = ", ".join(map(repr, rule.patterns))
    return f"group {rule.name!r} (match {patterns})"


def _nothing_left(rule: Rule, owners: list[str]) -> str:
    return (
        f"{_describe(rule)} gets no parameters: earlier groups have taken all that it matches "
        f"({', '.join(map(repr, owners))}). The first group that matches wins: put the narrower group first, or allow "
        "an empty group with optional=True."
    )


def _empty_group(rule: Rule, names: list[str]) -> str:
    return _no_such_name(_describe(rule), rule.patterns, names)[:-1] + "; optional=True allows an empty group."


def _no_such_name(what: str, patterns: Sequence[str], names: list[str]) -> str:
    near = [suggestion for pattern in patterns if (suggestion := _suggest(pattern, names))]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
    return f"{what} matches none of the {len(names)} parameters.{hint} Names begin: {shown}."


def _suggest(pattern: str, names: list[str]) -> str | None:
    """Return the nearest pattern that matches something, with each misspelt component replaced by a real one."""
    if pattern.startswith(REGEX_PREFIX):
        longer = pattern + ".*"
        return longer if any(map(compile_pattern(longer), names)) else None
    tails = [name for name in names if name.startswith(pattern.strip(".") + ".")]
    if tails:
        return pattern.strip(".")
    parts = pattern.split(".")
    for depth, part in enumerate(parts):
        real = {split[depth] for name in names if len(split := name.split(".")) > depth}
        literal = part.strip(GLOB_CHARACTERS)
        if literal and part not in real and (near := find_nearest(literal, sorted(real))):
            parts[depth] = near + "*" * part.endswith("*")
    for candidate in (".".join(parts), ".".join(parts) + ".*"):
        if candidate != pattern and any(map(compile_pattern(candidate), names)):
            return candidate
    while "." in pattern:  # perhaps the path begins with the name of a module that another model has around this one
        pattern = pattern.split(".", 1)[1]
        if pattern and any(map(compile_pattern(pattern), names)):
            return pattern
    ends = [name for name in names if name.endswith("." + pattern) or f".{pattern}." in name]
    return ends[0][: ends[0].index(pattern) + len(pattern)] if ends else None
