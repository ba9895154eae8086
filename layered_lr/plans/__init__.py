"""The plan: what will happen. Exact groups and every rate of the run, before anything trains."""

from layered_lr.plans.group import Part, PlanGroup
from layered_lr.plans.plan import Plan, PlanPhase
from layered_lr.plans.resolve import REST, resolve

__all__ = ["REST", "Part", "Plan", "PlanGroup", "PlanPhase", "resolve"]
