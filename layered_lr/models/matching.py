"""Decides which parameter belongs to which group: the first group with a pattern that matches gets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

from layered_lr.errors import SpecError
from layered_lr.models.depth import find_depths
from layered_lr.models.parameter import Parameter
from layered_lr.models.patterns import GLOB_CHARACTERS, REGEX_PREFIX, compile_pattern
from layered_lr.models.where import ANY_LENGTH, Where, is_bias, is_of_a_norm
from layered_lr.models.wrappers import find_prefixes, strip_wrappers
from layered_lr.spelling import find_nearest

Test: TypeAlias = Callable[[Parameter], bool]

ONE_DIMENSIONAL = "1d"  # in `no_weight_decay`: biases and all parameters of at most one dimension


def find_paths(names: Iterable[str]) -> set[str]:
    """Return the names and the paths of all modules that they are in, each with and without parts of wrappers."""
    found: set[str] = set()
    for name in (spelling for pair in strip_wrappers(names).items() for spelling in pair):
        while name and name not in found:
            found.add(name)
            name = name.rpartition(".")[0]
    return found


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


def find_common_prefix(given: Iterable[str], own: Collection[str]) -> str:
    """Find what stands before most names from outside, which are a model's own without it; empty where nothing does.

    Example:
        >>> find_common_prefix(["net.head.weight", "net.head.bias", "loss.scale"], ["head.weight", "head.bias"])
        'net.'
    """
    prefixes = Counter(prefix for name in given for prefix in find_prefixes(name) if name.removeprefix(prefix) in own)
    return max(prefixes, key=lambda prefix: (prefixes[prefix], -len(prefix)), default="")


class Rule(NamedTuple):
    """What matching needs to know about a group: its name, its patterns and rules, and whether it may be empty."""

    name: str
    patterns: tuple[str | Where, ...]
    optional: bool


class Matcher:
    """Tells which of a model's parameters patterns and rules choose.

    A pattern may match a name as it is, or the name without the components of wrappers such as ``torch.compile``.

    Args:
        parameters: All of the model's, in model order.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters
        plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
        self._spellings = {p.name: {s for name in p.names for s in (name, plain[name])} for p in parameters}
        self._paths = find_paths(plain)
        self.names = list(plain.values())

    @cached_property
    def _depths(self) -> dict[str, int]:
        return find_depths(self.parameters)

    def test(self, rule: str | Where) -> Test:
        """Return the function that tells whether a pattern or a rule chooses a parameter.

        Raises:
            SpecError: The rule asks for what is not known of these parameters: types, depths.
        """
        if isinstance(rule, str):
            matches = compile_pattern(rule, self._paths)
            return lambda p: any(map(matches, self._spellings[p.name]))
        kind, value = rule.kind, rule.value
        if kind in ("type", "norm") and not any(parameter.types for parameter in self.parameters):
            raise SpecError(
                f"{rule!r}: only names and shapes are known here, not the types of modules. Give the model itself, or "
                "choose by names."
            )
        tests: dict[str, Callable[[], Test]] = {
            "pattern": lambda: self.test(str(value)),
            "type": lambda: lambda p: value in p.types,
            "ndim": lambda: lambda p: len(p.shape) == value,
            "shape": lambda: lambda p: _has_shape(p, value),
            "bias": lambda: is_bias,
            "norm": lambda: is_of_a_norm,
            "depth": lambda: self._test_depth(*value),
            "all": lambda: self._join(all, value),
            "any": lambda: self._join(any, value),
            "not": lambda: self._negate(self.test(value)),
        }
        return tests[kind]()

    def _test_depth(self, first: int, last: int) -> Test:
        depths = self._depths
        return lambda p: first <= depths[p.name] <= last

    def _join(self, joint: Callable[[Iterable[bool]], bool], rules: Sequence[Where]) -> Test:
        tests = [self.test(rule) for rule in rules]
        return lambda p: joint(test(p) for test in tests)

    @staticmethod
    def _negate(test: Test) -> Test:
        return lambda p: not test(p)


def _has_shape(parameter: Parameter, lengths: Sequence[int]) -> bool:
    return len(parameter.shape) == len(lengths) and all(
        wanted in (length, ANY_LENGTH) for length, wanted in zip(parameter.shape, lengths, strict=True)
    )


def assign(rules: Sequence[Rule], matcher: Matcher) -> list[list[Parameter]]:
    """Give every parameter to the first rule that matches one of its names.

    Args:
        rules: In priority order.
        matcher: Of the model's parameters.

    Returns:
        One list for each rule, and a last list of the parameters that no rule matches; all in model order.

    Raises:
        SpecError: A rule that is not optional gets no parameters.
    """
    parameters = matcher.parameters
    tests = [[matcher.test(pattern) for pattern in rule.patterns] for rule in rules]

    def matches(rule: int, parameter: Parameter) -> bool:
        return any(test(parameter) for test in tests[rule])

    owners = [
        next((rule for rule in range(len(rules)) if matches(rule, parameter)), len(rules)) for parameter in parameters
    ]
    members: list[list[Parameter]] = [[] for _ in range(len(rules) + 1)]
    for parameter, owner in zip(parameters, owners, strict=True):
        members[owner].append(parameter)
    for index, rule in enumerate(rules):
        if not members[index] and not rule.optional:
            pairs = zip(parameters, owners, strict=True)
            taken = {rules[owner].name: None for parameter, owner in pairs if matches(index, parameter)}
            raise SpecError(_nothing_left(rule, list(taken)) if taken else _empty_group(rule, matcher.names))
    return members


def find_unused_patterns(rule: Rule, matcher: Matcher) -> list[str]:
    """Return the patterns of a group that match no parameter at all, whichever group the parameters are in."""
    return [str(pattern) for pattern in rule.patterns if not any(map(matcher.test(pattern), matcher.parameters))]


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
    matcher = Matcher(parameters)
    found = {p.name for p in filter(matcher.test(pattern), parameters)}
    if not found:
        raise SpecError(_no_such_name(f"{what}={pattern!r}", [pattern], matcher.names) + advice)
    return frozenset(found)


def nothing_left(what: str, pattern: str, value: object) -> SpecError:
    """Make the error for a pattern of a table that matches only what patterns before it have taken.

    Args:
        what: The name of the argument.
        pattern: Of the table.
        value: That the table has for it.
    """
    return SpecError(
        f"{what}: {{{pattern!r}: {value!r}}} is never used: patterns before it have taken all that it matches. The "
        "first pattern that matches wins: put the narrower one first."
    )


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


def _no_such_name(what: str, patterns: Sequence[str | Where], names: list[str]) -> str:
    leaves = [leaf for rule in patterns if isinstance(rule, Where) for leaf in rule.leaves if leaf.kind == "pattern"]
    texts = [*(pattern for pattern in patterns if isinstance(pattern, str)), *(leaf.value for leaf in leaves)]
    near = [
        suggestion for pattern in texts if not _matches_any(pattern, names) and (suggestion := _suggest(pattern, names))
    ]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
    return f"{what} matches none of the {len(names)} parameters.{hint} Names begin: {shown}."


def _matches_any(pattern: str, names: list[str]) -> bool:
    return any(map(compile_pattern(pattern), names))


def _suggest(pattern: str, names: list[str]) -> str | None:
    """Return the nearest pattern that matches something, with each misspelt component replaced by a real one."""
    if pattern.startswith(REGEX_PREFIX):
        longer = pattern + ".*"
        return longer if any(map(compile_pattern(longer), names)) else None
    tails = [name for name in names if name.startswith(pattern.strip(".") + ".")]
    if tails:
        return pattern.strip(".")
    first, parts = pattern.partition(".")[0], pattern.split(".")
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
    if first in ("head", "backbone"):  # words, which stand for paths alone
        return first
    ends = [name for name in names if name.endswith("." + pattern) or f".{pattern}." in name]
    return ends[0][: ends[0].index(pattern) + len(pattern)] if ends else None
