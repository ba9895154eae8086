"""Which parameter belongs to which group: the first group whose pattern takes one of its names."""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from layered_lr.errors import SpecError
from layered_lr.models.parameter import Parameter
from layered_lr.validation import find_nearest

GLOB_CHARACTERS = "*?["
REGEX_PREFIX = "re:"
ONE_DIMENSIONAL = "1d"  # a rule of `no_weight_decay`


def check_pattern(pattern: Any, what: str = "match") -> str:
    """``pattern`` itself, if it is one; ``what`` is the argument that messages speak of.

    Raises:
        SpecError: Not a string, empty, or an invalid regular expression.
    """
    if not isinstance(pattern, str):
        raise SpecError(
            f"{what}={pattern!r} ({type(pattern).__name__}): must be a module or parameter path, a glob, 're:<regex>', "
            "or a list of these."
        )
    if not pattern.removeprefix(REGEX_PREFIX).strip():
        raise SpecError(f"{what}={pattern!r}: the pattern is empty; use '*' to take every parameter.")
    if pattern.startswith(REGEX_PREFIX):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # such as 'possible nested set', which a later Python reads otherwise
                re.compile(pattern.removeprefix(REGEX_PREFIX))
        except (re.error, OverflowError, RecursionError, FutureWarning, DeprecationWarning) as error:
            raise SpecError(f"{what}={pattern!r}: invalid regular expression: {error}.") from None
    return pattern


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """The test of one name that ``pattern`` stands for.

    ``re:`` is a full-match regular expression and a glob (with any of ``*?[``, where ``*`` also crosses dots)
    is held against the whole name; anything else is a path, which takes the parameter of that name and every
    parameter under the module of that name, by whole path components.
    """
    if pattern.startswith(REGEX_PREFIX):
        expression = re.compile(pattern.removeprefix(REGEX_PREFIX))
        return lambda name: expression.fullmatch(name) is not None
    if any(character in pattern for character in GLOB_CHARACTERS):
        return lambda name: fnmatch.fnmatchcase(name, pattern)
    return lambda name: name == pattern or name.startswith(pattern + ".")


def strip_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Each name without the components that a wrapper put into it.

    ``torch.compile`` puts ``_orig_mod`` into names, ``DataParallel`` and ``DistributedDataParallel`` put
    ``module``. ``_orig_mod`` is nobody else's name and goes everywhere; ``module`` goes where it is the only
    child of its parent, as a wrapper's is, so that no two names can become one.
    """
    plain = {name: [part for part in name.split(".") if part != "_orig_mod"] for name in names}
    children: dict[tuple[str, ...], set[str]] = {}
    for parts in plain.values():
        for depth, part in enumerate(parts):
            children.setdefault(tuple(parts[:depth]), set()).add(part)

    def kept(parts: list[str]) -> str:
        last = len(parts) - 1
        return ".".join(
            part
            for depth, part in enumerate(parts)
            if part != "module" or depth == last or children[tuple(parts[:depth])] != {"module"}
        )

    return {name: kept(parts) for name, parts in plain.items()}


class Rule(NamedTuple):
    """What matching needs to know of a group: its name, its patterns, and whether it may stay empty."""

    name: str
    patterns: tuple[str, ...]
    optional: bool


def assign(rules: Sequence[Rule], parameters: Sequence[Parameter]) -> list[list[Parameter]]:
    """Give every parameter to the first rule that takes one of its names.

    Names are tried as they are and without a wrapper's components (see ``strip_wrappers``).

    Args:
        rules: In priority order.
        parameters: In model order.

    Returns:
        One list per rule, and a last one of what no rule takes; each in model order.

    Raises:
        SpecError: A rule that is not optional gets nothing.
    """
    plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
    spellings = [{s for name in parameter.names for s in (name, plain[name])} for parameter in parameters]
    tests = [[compile_pattern(pattern) for pattern in rule.patterns] for rule in rules]

    def takes(rule: int, parameter: int) -> bool:
        return any(test(name) for test in tests[rule] for name in spellings[parameter])

    owners = [
        next((rule for rule in range(len(rules)) if takes(rule, index)), len(rules)) for index in range(len(parameters))
    ]
    members: list[list[Parameter]] = [[] for _ in range(len(rules) + 1)]
    for parameter, owner in zip(parameters, owners, strict=True):
        members[owner].append(parameter)
    for index, rule in enumerate(rules):
        if not members[index] and not rule.optional:
            taken = {rules[owner].name: None for p, owner in enumerate(owners) if takes(index, p)}
            raise SpecError(_nothing_left(rule, list(taken)) if taken else _empty_group(rule, list(plain.values())))
    return members


def find_unused_patterns(rule: Rule, parameters: Sequence[Parameter]) -> list[str]:
    """The patterns of a rule that take none of the parameters, whoever got them."""
    plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
    return [
        pattern
        for pattern in rule.patterns
        if not any(test(raw) or test(name) for test in [compile_pattern(pattern)] for raw, name in plain.items())
    ]


def find_undecayed(patterns: Sequence[str], parameters: Sequence[Parameter]) -> frozenset[str]:
    """The names of the parameters that a spec's ``no_weight_decay`` takes.

    Args:
        patterns: As in ``Group.match``, or ``"1d"``: every bias, and every parameter of at most one dimension.
        parameters: In model order.

    Raises:
        SpecError: A pattern that takes none of them.
    """
    rule = {p.name for p in parameters if ONE_DIMENSIONAL in patterns and is_one_dimensional(p)}
    named = [
        select_parameters("no_weight_decay", pattern, parameters) for pattern in patterns if pattern != ONE_DIMENSIONAL
    ]
    return frozenset(rule).union(*named)


def select_parameters(what: str, pattern: str, parameters: Sequence[Parameter]) -> frozenset[str]:
    """The names of the parameters that a pattern takes.

    Args:
        what: The argument that messages speak of.
        pattern: As in ``Group.match``.
        parameters: In model order.

    Raises:
        SpecError: It takes none of them.
    """
    plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
    test = compile_pattern(pattern)
    found = {p.name for p in parameters if any(test(name) or test(plain[name]) for name in p.names)}
    if not found:
        raise SpecError(_no_such_name(f"{what}={pattern!r}", [pattern], list(plain.values())))
    return frozenset(found)


def is_one_dimensional(parameter: Parameter) -> bool:
    """Whether timm and transformers leave a parameter's decay out: a bias, or at most one dimension."""
    return len(parameter.shape) <= 1 or any(name.split(".")[-1] == "bias" for name in parameter.names)


def _describe(rule: Rule) -> str:
    patterns = ", ".join(map(repr, rule.patterns))
    return f"group {rule.name!r} (match {patterns})"


def _nothing_left(rule: Rule, owners: list[str]) -> str:
    return (
        f"{_describe(rule)} gets nothing: an earlier group took all it matches ({', '.join(map(repr, owners))}). "
        "The first group that matches wins: put the narrower group first, or say optional=True."
    )


def _empty_group(rule: Rule, names: list[str]) -> str:
    return (
        _no_such_name(_describe(rule), rule.patterns, names)[:-1] + "; optional=True allows a group without parameters."
    )


def _no_such_name(what: str, patterns: Sequence[str], names: list[str]) -> str:
    near = [suggestion for pattern in patterns if (suggestion := _suggest(pattern, names))]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
    return f"{what} matches none of the {len(names)} parameters.{hint} Names begin: {shown}."


def _suggest(pattern: str, names: list[str]) -> str | None:
    """The nearest pattern that takes something: each misspelt component replaced by the nearest real one."""
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
    while "." in pattern:  # perhaps it is another model's path to what is here
        pattern = pattern.split(".", 1)[1]
        if pattern and any(map(compile_pattern(pattern), names)):
            return pattern
    ends = [name for name in names if name.endswith("." + pattern) or f".{pattern}." in name]
    return ends[0][: ends[0].index(pattern) + len(pattern)] if ends else None
