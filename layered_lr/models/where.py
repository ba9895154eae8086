"""Rules that choose parameters by what they are (type, dimensions, bias, norm, depth), joined by and, or, not."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from layered_lr.errors import SpecError
from layered_lr.models.parameter import Parameter
from layered_lr.models.patterns import check_pattern
from layered_lr.printed import shown
from layered_lr.spelling import did_you_mean
from layered_lr.yes_or_no import check_yes_or_no

Kind: TypeAlias = Literal["pattern", "type", "ndim", "shape", "bias", "norm", "depth", "all", "any", "not"]

ANY_LENGTH = -1  # in a shape
_KINDS = ("pattern", "type", "ndim", "shape", "bias", "norm", "depth", "all", "any", "not")
_NORM = re.compile(r"(batch|layer|group|instance|rms)_?norm|norm(\dd)?$", re.IGNORECASE)
_NORM_NAME = re.compile(r"norm|^(bn|ln|gn)(_?\w*\d*)?$", re.IGNORECASE)
_JOINTS = {"all": " and ", "any": " or "}


@dataclass(frozen=True, repr=False)
class Where:
    """A rule that chooses parameters; ``where`` makes one, and ``&``, ``|`` and ``~`` join them.

    Args:
        kind: What the rule asks.
        value: A pattern, a type's name, a number of dimensions, a shape, the first and last depth, True for ``bias``
            and ``norm``, the rule that ``not`` turns around, or a tuple of rules for ``all`` and ``any``.

    Example:
        >>> import layered_lr as ll
        >>> ll.where(ndim=2) & ~ll.where("embed*")
        where(ndim=2) & ~where('embed*')
    """

    kind: Kind
    value: Any

    def __and__(self, other: object) -> Where:
        return _join("all", self, other)

    def __or__(self, other: object) -> Where:
        return _join("any", self, other)

    def __rand__(self, other: object) -> Where:
        return _join("all", other, self)

    def __ror__(self, other: object) -> Where:
        return _join("any", other, self)

    def __invert__(self) -> Where:
        turned: Where = self.value if self.kind == "not" else Where("not", self)
        return turned

    def __repr__(self) -> str:
        if self.kind == "pattern":
            return f"where({self.value!r})"
        if self.kind == "not":
            return f"~{_in_brackets(self.value)}"
        if self.kind in _JOINTS:
            return (" & " if self.kind == "all" else " | ").join(map(_in_brackets, self.value))
        return f"where({self.kind}={self.value!r})"

    def __str__(self) -> str:
        """The rule in words, as a group's name has it."""
        if self.kind == "pattern":
            return str(self.value)
        if self.kind == "not":
            return f"not {_words_in_brackets(self.value)}"
        if self.kind in _JOINTS:
            return _JOINTS[self.kind].join(map(_words_in_brackets, self.value))
        if self.kind in ("bias", "norm"):
            return self.kind
        if self.kind == "depth":
            first, last = self.value
            return f"depth {first}" if first == last else f"depth {first} to {last}"
        shape = (
            " x ".join("*" if length == ANY_LENGTH else str(length) for length in self.value)
            if (self.kind == "shape")
            else self.value
        )
        return f"{self.kind} {shape}"

    def to_table(self) -> Any:
        """The rule as TOML and JSON have it; ``where_from_table`` reads it."""
        if self.kind == "pattern":
            return self.value
        if self.kind == "not":
            return {"not": self.value.to_table()}
        if self.kind in _JOINTS:
            return {self.kind: [rule.to_table() for rule in self.value]}
        return {self.kind: list(self.value) if isinstance(self.value, tuple) else self.value}

    @property
    def leaves(self) -> list[Where]:
        """The rules that it is made of, which join no others."""
        if self.kind == "not":
            return self.value.leaves  # type: ignore[no-any-return]
        return [leaf for rule in self.value for leaf in rule.leaves] if self.kind in _JOINTS else [self]


def where(
    *patterns: str,
    type: str | Sequence[str] | None = None,
    ndim: int | Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    bias: bool | None = None,
    norm: bool | None = None,
    depth: int | tuple[int, int] | None = None,
) -> Where:
    """Make a rule for ``Group.match`` that chooses parameters by what they are.

    A parameter must be as all arguments say. Rules are joined by ``&`` (and), ``|`` (or) and ``~`` (not). They need no
    framework: they look at names, shapes, and the names of the classes of modules.

    Args:
        patterns: Paths, globs or ``"re:<regex>"``, as in ``Group.match``; one of them has to match.
        type: The class of the module that holds the parameter, or one that it is derived from: ``"LayerNorm"``; or a
            list of which one has to be right. Only a model tells it, not a list of names and shapes.
        ndim: The number of dimensions, or a list of which one has to be right.
        shape: The shape, with -1 for any length: ``(-1, 3, 3, 3)``.
        bias: Whether it is a bias: the last part of its name is ``bias``, begins with ``bias_`` or ends with ``_bias``.
        norm: Whether a normalisation holds it: the module's class is called so (BatchNorm2d, LayerNorm, RMSNorm).
        depth: The layer's number, from 0 next to the images to the head, or the first and the last; ``layer_decay``
            tells how layers are counted.

    Raises:
        SpecError: There are no arguments, or one of them is none of these.

    Example:
        >>> import layered_lr as ll
        >>> matrices = ll.Group(ll.where(ndim=2) & ~ll.where("embed*"), name="matrices")
        >>> plan = ll.resolve(
        ...     ll.Spec(ll.SGD(0.1), [matrices]), [("embed.weight", (9, 4)), ("fc.weight", (2, 4)), ("fc.bias", (2,))]
        ... )
        >>> {group.name: group.parameters for group in plan.groups}
        {'matrices': ('fc.weight',), 'rest': ('embed.weight', 'fc.bias')}
    """
    given: dict[str, Any] = {"type": type, "ndim": ndim, "shape": shape, "bias": bias, "norm": norm, "depth": depth}
    rules = [_any([Where("pattern", check_pattern(pattern, "where")) for pattern in patterns])] if patterns else []
    rules += [_leaf(kind, value) for kind, value in given.items() if value is not None]
    if not rules:
        raise SpecError(f"where(): needs at least one pattern, or one of {', '.join(f'{name}=...' for name in given)}.")
    return rules[0] if len(rules) == 1 else Where("all", tuple(rules))


def where_from_table(table: object) -> Where:
    """Make the rule that a table describes, such as ``{ndim = 2, not = "embed*"}``: all that it says has to be so.

    Raises:
        SpecError: A key is unknown, or a value is not allowed.

    Example:
        >>> where_from_table({"any": [{"type": "LayerNorm"}, {"bias": True}]})
        where(type='LayerNorm') | where(bias=True)
    """
    if isinstance(table, str):
        return Where("pattern", check_pattern(table))
    if not isinstance(table, Mapping) or not table:
        raise SpecError(f"match={shown(table)}: must be a pattern, or a table with {', '.join(_KINDS)}.")
    rules = []
    for kind, value in table.items():
        if kind not in _KINDS:
            raise SpecError(
                f"match has no {shown(kind)}.{did_you_mean(str(kind), _KINDS)} It takes: {', '.join(_KINDS)}."
            )
        if kind == "not":
            rules.append(~where_from_table(value))
        elif kind in _JOINTS:
            if not isinstance(value, list | tuple) or not value:
                raise SpecError(f"match: {kind} = {shown(value)}: must be a list of patterns and tables.")
            parts = tuple(where_from_table(part) for part in value)
            rules.append(parts[0] if len(parts) == 1 else Where(kind, parts))
        elif kind == "pattern":
            given = value if isinstance(value, list | tuple) else [value]
            rules.append(_any([Where("pattern", check_pattern(pattern)) for pattern in given]))
        else:
            rules.append(_leaf(kind, value))
    return rules[0] if len(rules) == 1 else Where("all", tuple(rules))


def is_bias(parameter: Parameter) -> bool:
    """Whether a parameter is called a bias, as by the modules of torch: ``bias``, ``in_proj_bias``, ``bias_hh_l0``."""
    ends = [name.rpartition(".")[2] for name in parameter.names]
    return any(end == "bias" or end.startswith("bias_") or end.endswith("_bias") for end in ends)


def is_of_a_norm(parameter: Parameter) -> bool:
    """Whether a normalisation holds a parameter, by the names of the module's classes."""
    return any(_NORM.search(name) for name in parameter.types)


def is_named_as_norm(parameter: Parameter) -> bool:
    """Whether the name of the module that holds a parameter is one that people give to normalisations."""
    holders = [name.split(".")[-2] for name in parameter.names if "." in name]
    return len(parameter.shape) <= 1 and any(_NORM_NAME.search(holder) for holder in holders)


def _leaf(kind: str, value: Any) -> Where:
    if kind in ("bias", "norm"):
        check_yes_or_no("where", kind, value)
        return Where(kind, True) if value else ~Where(kind, True)  # type: ignore[arg-type]
    if kind == "type":
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n for n in names):
            raise SpecError(
                f"where(type={shown(value)}): must be the name of a module's class, such as 'LayerNorm', or a list of "
                "names."
            )
        return _any([Where("type", name) for name in names])
    if kind == "ndim":
        numbers = value if isinstance(value, list | tuple) else [value]
        if not numbers:
            _refuse("ndim", value)
        return _any([Where("ndim", _whole("ndim", number, value)) for number in numbers])
    if kind == "shape":
        if not isinstance(value, list | tuple):
            _refuse("shape", value)
        return Where("shape", tuple(_whole("shape", length, value, ANY_LENGTH) for length in value))
    ends = value if isinstance(value, list | tuple) else (value, value)
    if len(ends) != 2:
        _refuse("depth", value)
    first, last = (_whole("depth", end, value) for end in ends)
    if first > last:
        raise SpecError(f"where(depth={shown(value)}): the first depth is beyond the last one. Swap them.")
    return Where("depth", (first, last))


_FORMS = {
    "ndim": "a whole number of dimensions, such as 2, or a list of them",
    "shape": "a list of lengths, with -1 for any: (-1, 3, 3, 3)",
    "depth": "the number of a layer from 0 on, or the first and the last one: (0, 3)",
}


def _whole(kind: str, number: Any, value: Any, least: int = 0) -> int:
    try:
        whole = least - 1 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        whole = least - 1
    if whole < least:
        _refuse(kind, value)
    return whole


def _refuse(kind: str, value: Any) -> NoReturn:
    raise SpecError(f"where({kind}={shown(value)}): must be {_FORMS[kind]}.")


def _any(rules: list[Where]) -> Where:
    return rules[0] if len(rules) == 1 else Where("any", tuple(rules))


def _join(kind: Literal["all", "any"], one: object, other: object) -> Where:
    parts: list[Where] = []
    for side in (one, other):
        rule = Where("pattern", check_pattern(side, "where")) if isinstance(side, str) else side
        if not isinstance(rule, Where):
            raise SpecError(f"{shown(side)} stands beside a where(...): join it with another where(...) or a pattern.")
        parts += rule.value if rule.kind == kind else [rule]
    return Where(kind, tuple(parts))


def _in_brackets(rule: Where) -> str:
    return f"({rule!r})" if rule.kind in _JOINTS else repr(rule)


def _words_in_brackets(rule: Where) -> str:
    return f"({rule})" if rule.kind in _JOINTS else str(rule)
