"""What falls into ``rest`` and trains at the full rate, though other groups are slower: normalisations, a lone head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layered_lr.models.parameter import Parameter
from layered_lr.models.where import is_named_as_norm, is_of_a_norm
from layered_lr.plans.group import PlanGroup

_MOST_NAMES = 2


def describe_rest(rest: PlanGroup, others: Sequence[PlanGroup], parameters: Sequence[Parameter]) -> Iterator[str]:
    """Yield a note for each of the two.

    Args:
        rest: The group of the parameters that no group matches.
        others: The groups of the spec.
        parameters: All of the model's.
    """
    rate = rest.lr * rest.lr_scale
    if not any(group.parameters and group.lr * group.lr_scale < rate for group in others):
        return
    members = set(rest.parameters)
    there = [parameter for parameter in parameters if parameter.name in members]
    norms = [p.name for p in there if (is_of_a_norm(p) if p.types else is_named_as_norm(p))]
    modules = {parameter.name.rpartition(".")[0] for parameter in there}
    if norms:
        more, many = ", …" if len(norms) > _MOST_NAMES else "", "s" if len(norms) > 1 else ""
        yield (
            f"group {rest.name!r} trains {len(norms)} parameter{many} of normalisations at the full rate: "
            f"{', '.join(norms[:_MOST_NAMES])}{more}. ll.where(norm=True) chooses them"
        )
    elif len(modules) == 1:
        yield (
            f"group {rest.name!r} is {modules.pop() or there[0].name} alone, at the full rate. If it is the head, a "
            "group of its own says so"
        )
