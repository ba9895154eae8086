"""What steers the rates of a graph from outside, where anything has to."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates
from layered_lr_oneflow.dynamic_updates import DynamicUpdate
from layered_lr_oneflow.float32_rates import GraphRates


class GraphScheduler:
    """The scheduler of a graph that a plan was attached to.

    Rates that are known beforehand follow the graph's own step counter and need no call. ``step()`` after each
    call of the graph keeps the count, for ``get_last_lr`` and for a ``Warmup`` before a ``ReduceLROnPlateau``;
    ``step(metrics=...)`` counts nothing: it lets ``ReduceLROnPlateau`` look at a metric, and the graph's next call
    takes what it decides, without being compiled anew.

    Attributes:
        plan: The plan; ``plan.lowering("oneflow-graph")`` says how each group's rate is applied.
        parameters: What the graph trains, by name.

    Args:
        plan: The plan.
        graph: The graph that it was attached to.
        model: What the graph trains.
        updates: The graph's updates where the lowering is dynamic; None where OneFlow's own optimizers are native.
        step: Updates made before.
    """

    def __init__(
        self, plan: Plan, graph: Any, model: Any, updates: DynamicUpdate | None, step: int | None = None
    ) -> None:
        self.plan = plan
        self.updates = updates
        self.parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._graph = weakref.ref(graph)  # no cycle: a graph must go when its user lets go
        self.live = LiveRates(plan)
        self._rounding = GraphRates(plan)
        self._step = plan.since if step is None else step
        if updates is not None and self._step > plan.since:
            updates.seek(self._step - plan.since)
        self._apply()

    @property
    def graph(self) -> Any:
        """The graph, None where it is gone."""
        return self._graph()

    def step(self, metrics: Any = None) -> None:
        """Count an update that the graph has made, or let reactive schedules look at a metric.

        Args:
            metrics: A number, or numbers by name (``loss``, ``accuracy``).

        Raises:
            SpecError: A metric that is missing or no number.
        """
        if metrics is not None:
            self.observe(metrics)
            return
        self._step += 1
        self._apply()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric; see ``LiveRates.observe``."""
        self.live.observe(metrics, unit)
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The rates of the update that comes, in the order of the plan's groups, as the graph's float32 has them."""
        return self._rounding.rounded(self._step, self.live.rates(self._step))

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, and what reactive schedules have seen; a graph's ``state_dict`` has its own count."""
        return {"last_step": self._step} | ({"reactions": self.live.state()} if self.live.is_reactive else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count; a native lowering also needs the graph's own ``load_state_dict``."""
        self.live.restore(state_dict.get("reactions", {}))
        self._step = state_dict["last_step"]
        if self.updates is not None:
            self.updates.seek(self._step - self.plan.since)
        self._apply()

    def _apply(self) -> None:
        if self.updates is None or not self.live.is_reactive:
            return
        rates = self.get_last_lr()
        chosen = [rate if group.is_reactive else None for group, rate in zip(self.plan.groups, rates, strict=True)]
        self.updates.set(chosen)


def dynamic_updates(plan: Plan, model: Any) -> DynamicUpdate:
    """The updates of a plan whose rates or momenta a compiled optimizer could not change.

    What is known beforehand becomes tables inside the graph; a reactive group's rate stays open.

    Raises:
        SpecError: A table that does not know how long the run is.
    """
    steps = np.arange(plan.since, max(plan.total_steps or 0, plan.since + 1))
    rates = GraphRates(plan).table(int(steps[0]), int(steps[-1]) + 1)
    static = {group.name: rates[:, index] for index, group in enumerate(plan.groups) if not group.is_reactive}
    moving = [group for group in plan.groups if plan.moves_momentum(group)]
    momenta = {group.name: np.empty(len(steps)) for group in moving}
    for index, step in enumerate(np.maximum(steps, plan.start).tolist() if moving else ()):
        for group, momentum in zip(plan.groups, plan.momenta(step), strict=True):
            if momentum is not None:
                momenta[group.name][index] = momentum
    return DynamicUpdate(plan, model, rate_tables=static, momentum_tables=momenta)
