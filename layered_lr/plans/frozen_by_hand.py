"""Parameters that the user froze (``requires_grad=False``): a plan has a rate for them, and no update moves them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from layered_lr.models.parameter import Parameter
from layered_lr.plans.group import PlanGroup


def describe_frozen_by_hand(groups: Iterable[PlanGroup], parameters: Iterable[Parameter]) -> Iterator[str]:
    """Yield a sentence for each group with parameters that had ``requires_grad=False`` when the plan was made.

    Example:
        >>> import layered_lr as ll
        >>> frozen = ll.Parameter("body.weight", (2, 2), requires_grad=False)
        >>> plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("body")]), [frozen, ("head.weight", (2, 2))])
        >>> list(describe_frozen_by_hand(plan.groups, plan.parameters))
        ["group 'body': all of its parameters have requires_grad=False and stay as they are, whatever its rate is"]
    """
    frozen = {parameter.name for parameter in parameters if not parameter.requires_grad}
    for group in groups:
        if count := len(frozen.intersection(group.parameters)):
            many = len(group.parameters)
            which = "all of its parameters" if count == many else f"{count} of its {many} parameters"
            yield f"group {group.name!r}: {which} have requires_grad=False and stay as they are, whatever its rate is"
