"""How a backend applies a plan's rates: decided before anything runs, by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from layered_lr.plans.view import PlanView
from layered_lr.registry import check_name, load_attribute


class Lowering(NamedTuple):
    """How one group's rate reaches the weights.

    Args:
        schedule: ``"constant"``: compiled in, never changes. ``"native"``: the framework's own scheduler, exact
            here. ``"table"``: the framework's own table of rates by step. ``"host"``: set from Python before
            each update. ``"dynamic"``: update ops inside a graph read it from a buffer.
        lr_scale: ``"native"``: the framework multiplies. ``"folded"``: multiplied into the rate beforehand.
        detail: The scheduler's name, or the table's size.
        update: What makes the update: the framework's own optimizer or ops of this library's, in words.
    """

    schedule: Literal["constant", "native", "table", "host", "dynamic"]
    lr_scale: Literal["native", "folded"]
    detail: str = ""
    update: str = ""

    @property
    def how(self) -> str:
        """The schedule's part, in words."""
        words = {
            "constant": "constant",
            "native": "native",
            "table": "native table",
            "host": "set each step",
            "dynamic": "dynamic",
        }
        return f"{words[self.schedule]} {self.detail}".rstrip()

    def __str__(self) -> str:
        return f"{self.how}, {'native lr_scale' if self.lr_scale == 'native' else 'lr_scale folded in'}"


def lowering_of(plan: PlanView, backend: str, timeline: Sequence[PlanView] = ()) -> tuple[Lowering, ...]:
    """How a backend will apply each group's rate, in the order of ``plan.groups``; needs no framework.

    Args:
        plan: Of the whole run, or of one of its phases.
        backend: Its name.
        timeline: The plans of all phases, where it is of one of them.

    Raises:
        SpecError: No backend has that name.
        Unsupported: The backend cannot apply this plan exactly.
    """
    lower = load_attribute(check_name(backend).lowering)
    return tuple(lower(plan, timeline))


def cost_of_phases(plan: PlanView, backend: str) -> str:
    """What a plan's phases cost on a backend, in words; empty where there is nothing to say."""
    path = check_name(backend).phases
    return load_attribute(path)(plan) if path is not None and plan.phases else ""
