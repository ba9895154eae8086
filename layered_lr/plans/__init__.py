"""The plan: what will happen. Exact groups and every rate of the run, before anything trains."""

from layered_lr.plans.plan import Plan, PlanGroup, Segment, resolve

__all__ = ["Plan", "PlanGroup", "Segment", "resolve"]
