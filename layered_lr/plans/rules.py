"""The rule of a group in a model: ``head`` and ``backbone`` are the paths that they stand for there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from layered_lr.models.heads import expand_words, find_word
from layered_lr.models.matching import Rule
from layered_lr.models.parameter import Parameter
from layered_lr.models.where import Where
from layered_lr.spec.groups import Group


def rule_of(group: Group, parameters: Sequence[Parameter]) -> Rule:
    """Return the group's rule with the paths that words stand for in this model."""
    patterns: list[str | Where] = []
    for pattern in group.rule.patterns:
        patterns += (
            [_expand(pattern, parameters)] if isinstance(pattern, Where) else expand_words([pattern], parameters)
        )
    return group.rule._replace(patterns=tuple(patterns))


def list_names(groups: Sequence[Group]) -> Iterator[str]:
    """Yield every path and pattern that groups are chosen by, those inside rules too."""
    for group in groups:
        for pattern in group.patterns:
            if isinstance(pattern, Where):
                yield from (leaf.value for leaf in pattern.leaves if leaf.kind == "pattern")
            else:
                yield pattern


def _expand(rule: Where, parameters: Sequence[Parameter]) -> Where:
    if rule.kind in ("all", "any"):
        return replace(rule, value=tuple(_expand(part, parameters) for part in rule.value))
    if rule.kind == "not":
        return replace(rule, value=_expand(rule.value, parameters))
    paths = find_word(rule.value, parameters) if rule.kind == "pattern" else ()
    return Where("any", tuple(Where("pattern", path) for path in paths)) if paths else rule
