"""A group of a plan: its parameters, and everything filled in that the spec left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from layered_lr.optimizers import Optimizer
from layered_lr.schedules import Schedule

if TYPE_CHECKING:
    pass


class Part(NamedTuple):
    """Parameters of a group that have every hyperparameter in common.

    Args:
        parameters: Names in model order.
        optimizer: With the group's ``lr`` and every other value.
    """

    parameters: tuple[str, ...]
    optimizer: Optimizer


@dataclass(frozen=True)
class PlanGroup:
    """A group with its parameters, and with everything filled in that the spec left out.

    Args:
        name: The group's name, or ``rest``.
        parameters: Names in model order; empty for an optional group that matches nothing.
        elements: How many numbers the parameters hold together.
        optimizer: The spec's optimizer with what the group sets for itself, ``lr`` among it.
        lr_scale: Multiplies the scheduled rate.
        schedule: The group's own, the spec's, or ``Constant()``.
        undecayed: Those of ``parameters`` whose weight decay is 0 by the spec's ``no_weight_decay``.
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
        """The group, cut in two where only some of its parameters decay; one part otherwise, empty or not."""
        bare = replace(self.optimizer, weight_decay=0.0)
        free = set(self.undecayed) if self.optimizer.weight_decay else set()
        decayed = tuple(name for name in self.parameters if name not in free)
        if not free:
            return (Part(self.parameters, self.optimizer),)
        rest = Part(self.undecayed, bare)
        return (Part(decayed, self.optimizer), rest) if decayed else (rest,)

    @property
    def lr(self) -> float:
        """The rate that the schedule starts from."""
        return self.optimizer.lr

    @property
    def is_reactive(self) -> bool:
        """Whether the rate is decided while training, from what is measured."""
        return self.schedule.start_reaction(self.lr) is not None
