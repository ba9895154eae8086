"""The scheduler of a graph: it sets the rates that are decided while training."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates, check_step_call
from layered_lr_oneflow.dynamic_updates import DynamicUpdate
from layered_lr_oneflow.float32_rates import Float32Rates
from layered_lr_oneflow.oneflow_types import Graph, Module
from layered_lr_oneflow.slot_access import NativeSlots


class GraphScheduler:
    """The scheduler of a graph that a plan was attached to.

    Rates that are known beforehand, and ``get_last_lr``, follow the graph's own step counter and need no call. Only a
    ``Warmup`` before a ``ReduceLROnPlateau`` uses the count of ``step()``: call it after each call of the graph.
    ``step(metrics=...)`` counts nothing: it lets ``ReduceLROnPlateau`` look at a metric. The graph's next call applies
    what it decides, without being compiled again.

    Attributes:
        plan: The plan; ``plan.lowering("oneflow-graph")`` says how each group's rate is applied.
        parameters: What the graph trains, by name.

    Args:
        plan: The plan.
        graph: The graph that it was attached to.
        model: What the graph trains.
        updates: The graph's updates if the lowering is dynamic; None if OneFlow's own optimizers are compiled in.
        step: Updates made before; None is where the plan's schedules begin.
    """

    def __init__(
        self, plan: Plan, graph: Graph, model: Module, updates: DynamicUpdate | None, step: int | None = None
    ) -> None:
        self.plan = plan
        self.updates = updates
        self.parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._model = model
        self._graph = weakref.ref(graph)  # no cycle: a graph must end with its last user
        self.live = LiveRates(plan)
        self._float32_rates = Float32Rates(plan)
        self._step = plan.since if step is None else step
        if updates is not None and self._step > plan.since:
            updates.seek(self._step - plan.since)
        self._apply()

    @property
    def graph(self) -> Graph:
        """The graph; None when it no longer exists."""
        return self._graph()

    def step(self, *unnamed: object, metrics: Any = None) -> None:
        """Count an update that the graph has made, or let reactive schedules look at a metric.

        Args:
            unnamed: Refused: torch takes it for a metric in one scheduler, and for an epoch in the others.
            metrics: A number, or numbers by name (``loss``, ``accuracy``).

        Raises:
            SpecError: An argument without a name, or a metric that is missing or no number.
        """
        check_step_call(unnamed)
        if metrics is not None:
            self.observe(metrics)
            return
        self._step += 1
        self._apply()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric, and apply what they decide.

        Args:
            metrics: A number, or numbers by name (``loss``, ``accuracy``).
            unit: Only schedules that count this, ``"step"`` or ``"epoch"``, look at it; None is all of them.
        """
        self.live.observe(metrics, unit)
        self._apply()

    def get_last_lr(self) -> list[float]:
        """Return the rates of the graph's next call, in the plan's order of groups, by the graph's own count; waits."""
        if self.updates is not None:
            found: list[float] = self.updates.rates().tolist()
            return found
        return self._find_rates(self._count_updates())

    def next_rates(self) -> list[float]:
        """Compute the rates of the next update by the count of ``step()``, as the graph rounds them; never waits."""
        return self._find_rates(self._step)

    def _find_rates(self, step: int) -> list[float]:
        return self._float32_rates.round_rates(step, self.live.rates(step))

    def _count_updates(self) -> int:
        """Read how many updates the graph has made; where it has made none yet, or has ended, as ``step()`` counts."""
        graph = self.graph
        if graph is None or not graph._is_compiled:
            return self._step
        made = NativeSlots(graph, self._model).step() if self.updates is None else self.updates.step()
        return self.plan.since + made

    def state_dict(self) -> dict[str, Any]:
        """The count of updates that the graph has made, and what reactive schedules have seen."""
        count = {"last_step": self._count_updates()}
        return count | ({"reactions": self.live.state()} if self.live.is_reactive else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count. With the native lowering, also call the graph's own ``load_state_dict``."""
        self.go_to(state_dict["last_step"], state_dict.get("reactions", {}))

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """Go on before update ``step``, with what reactive schedules have seen."""
        self.live.restore(reactions)
        self._step = step
        if self.updates is not None:
            self.updates.seek(self._step - self.plan.since)
        self._apply()

    def _apply(self) -> None:
        """Write the rates of reactive groups into the graph's buffers."""
        if self.updates is None or not self.live.is_reactive:
            return
        rates = self.next_rates()
        chosen = [rate if group.is_reactive else None for group, rate in zip(self.plan.groups, rates, strict=True)]
        self.updates.set(chosen)
