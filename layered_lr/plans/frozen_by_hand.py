"""Parameters that the user froze (``requires_grad=False``): the plan has a rate for them, but they never change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from layered_lr.models.parameter import Parameter
from layered_lr.plans.group import PlanGroup


def find_frozen_by_hand(parameters: Iterable[Parameter]) -> frozenset[str]:
    """Return the names of the parameters that had ``requires_grad=False`` when the plan was made.

    Example:
        >>> import layered_lr as ll
        >>> parameters = [ll.Parameter("body.weight", (2, 2), requires_grad=False), ll.Parameter("head.weight", (2, 2))]
        >>> sorted(find_frozen_by_hand(parameters))
        ['body.weight']
    """
    return frozenset(parameter.name for parameter in parameters if not parameter.requires_grad)


def count_training(names: Collection[str], frozen: frozenset[str]) -> str:
    """Say how many of some parameters may train.

    Example:
        >>> count_training(["a", "b"], frozenset()), count_training(["a", "b"], frozenset("a"))
        ('2', '1 of 2')
    """
    training = len(names) - len(frozen.intersection(names))
    return str(training) if training == len(names) else f"{training} of {len(names)}"


def describe_frozen_by_hand(groups: Iterable[PlanGroup], parameters: Iterable[Parameter]) -> Iterator[str]:
    """Yield a sentence for each group with parameters that had ``requires_grad=False`` when the plan was made.

    Example:
        >>> import layered_lr as ll
        >>> frozen = ll.Parameter("body.weight", (2, 2), requires_grad=False)
        >>> plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("body")]), [frozen, ("head.weight", (2, 2))])
        >>> list(describe_frozen_by_hand(plan.groups, plan.parameters))
        ["group 'body': all of its parameters have requires_grad=False and stay as they are, whatever its rate is"]
    """
    frozen = find_frozen_by_hand(parameters)
    for group in groups:
        if count := len(frozen.intersection(group.parameters)):
            many = len(group.parameters)
            which = "all of its parameters" if count == many else f"{count} of its {many} parameters"
            yield f"group {group.name!r}: {which} have requires_grad=False and stay as they are, whatever its rate is"
