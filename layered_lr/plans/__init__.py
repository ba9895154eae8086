"""The plan of a run: exact groups and every rate, before anything trains."""

from layered_lr.plans.group import Part, PlanGroup
from layered_lr.plans.plan import Plan, PlanPhase
from layered_lr.plans.resolve import REST, resolve

__all__ = ["REST", "Part", "Plan", "PlanGroup", "PlanPhase", "resolve"]
