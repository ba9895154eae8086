"""A group of a plan: its parameters, and all settings, also those that the spec left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from layered_lr.optimizers import Optimizer
from layered_lr.schedules import Schedule
from layered_lr.spec.spec import Spec


class Part(NamedTuple):
    """Parameters of a group that have all hyperparameters in common.

    Args:
        parameters: Names in model order.
        optimizer: The optimizer with the group's settings, and with the weight decay of these parameters.
    """

    parameters: tuple[str, ...]
    optimizer: Optimizer


@dataclass(frozen=True)
class PlanGroup:
    """A group of a plan: its parameters, and all settings, also those that the spec left out.

    Args:
        name: The group's name, or ``rest``.
        parameters: Names in model order; empty for an optional group that matches nothing.
        elements: How many numbers those of its parameters hold together that may train (``requires_grad``).
        optimizer: The spec's optimizer with the group's own settings, such as ``lr``.
        lr_scale: The factor of the scheduled rate.
        schedule: The schedule of the group, of the spec, or ``Constant()``.
        undecayed: Those of ``parameters`` that never decay because of the spec's ``no_weight_decay``.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("backbone", lr_scale=0.1)])
        >>> plan = ll.resolve(spec, [("backbone.weight", (8, 8)), ("head.weight", (2, 8))])
        >>> [(group.name, group.lr, group.lr_scale, group.elements) for group in plan.groups]
        [('backbone', 0.1, 0.1, 64), ('rest', 0.1, 1.0, 16)]
    """

    name: str
    parameters: tuple[str, ...]
    elements: int
    optimizer: Optimizer
    lr_scale: float
    schedule: Schedule
    undecayed: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The group in two parts if only some of its parameters decay; otherwise in one part, which may be empty."""
        bare = replace(self.optimizer, weight_decay=0.0)
        free = set(self.undecayed) if self.optimizer.weight_decay else set()
        decayed = tuple(name for name in self.parameters if name not in free)
        if not free:
            return (Part(self.parameters, self.optimizer),)
        rest = Part(self.undecayed, bare)
        return (Part(decayed, self.optimizer), rest) if decayed else (rest,)

    @property
    def lr(self) -> float:
        """The group's own rate, before schedule and ``lr_scale``."""
        return self.optimizer.lr

    @property
    def is_reactive(self) -> bool:
        """Whether the rate is decided during training, from what is measured."""
        return self.schedule.start_reaction(self.lr) is not None


class _Grouped(Protocol):
    """A plan, of which this needs the spec and the groups."""

    @property
    def spec(self) -> Spec: ...
    @property
    def groups(self) -> tuple[PlanGroup, ...]: ...


def list_kinds(plan: _Grouped) -> tuple[type[Optimizer], ...]:
    """Return the kinds of optimizers that a plan's parameters have, the spec's first.

    Groups without parameters do not count; if no group has any, it is the spec's.
    """
    used = {type(group.optimizer): None for group in plan.groups if group.parameters}
    usual = type(plan.spec.optimizer)
    return tuple(sorted(used or {usual: None}, key=lambda kind: kind is not usual))


def describe_kinds(plan: _Grouped) -> str:
    """Name the kinds of optimizers of a plan, such as ``AdamW and Muon``."""
    return " and ".join(kind.__name__ for kind in list_kinds(plan))
