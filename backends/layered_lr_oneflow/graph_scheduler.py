"""The scheduler of a graph: it sets the rates that are decided while training."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from layered_lr.arrays import Slots
from layered_lr.errors import CheckpointError, SpecError
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import (
    LiveRates,
    Reactions,
    carry_reactions,
    choose_reactions,
    list_reactive,
    observe_ended,
    read_step_call,
)
from layered_lr.state.scheduler_states import read_scheduler_state
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.dynamic_updates import DynamicUpdate
from layered_lr_oneflow.float32_rates import Float32Rates
from layered_lr_oneflow.oneflow_types import Graph, Module
from layered_lr_oneflow.optimizer import check_rates
from layered_lr_oneflow.slot_access import NativeSlots


class GraphScheduler:
    """The scheduler of a graph that a plan was attached to.

    Rates that are known beforehand, and ``get_last_lr``, follow the graph's own step counter and need no call. Only a
    ``Warmup`` before a ``ReduceLROnPlateau`` uses the count of ``step()``: call it after each call of the graph.
    ``step(metrics=...)`` counts nothing: it lets ``ReduceLROnPlateau`` look at a metric. The graph's next call applies
    what it decides, without being compiled again.

    Attributes:
        plan: The whole plan; ``plan.lowering("oneflow-graph")`` says how each group's rate is applied.
        waiting: The optimizer's slots of parameters that the graph's phase freezes.
        parameters: What the graph trains, by name.

    Args:
        plan: The plan, or the one of the graph's phase.
        graph: The graph that it was attached to.
        model: What the graph trains.
        updates: The graph's updates if the lowering is dynamic; None if OneFlow's own optimizers are compiled in.
        step: Updates made before; None is where the plan's schedules begin.
        whole: The plan with phases of which ``plan`` is one; None if there are none.
    """

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        model: Module,
        updates: DynamicUpdate | None,
        step: int | None = None,
        whole: Plan | None = None,
    ) -> None:
        self.plan = plan if whole is None else whole
        self._here = plan
        self._place = next((place for place, each in enumerate(self.plan.phases) if each.plan is plan), 0)
        self.waiting: Slots = {}
        self._earlier_reactions: Mapping[str, Mapping[str, float]] = {}
        self.updates = updates
        self.parameters = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self._model = model
        self._graph = weakref.ref(graph)  # no cycle: a graph must end with its last user
        self.live = LiveRates(plan)
        self._float32_rates = Float32Rates(plan)
        self._step = plan.since if step is None else step
        self._call = self._began = self._step
        if updates is not None and self._step > plan.since:
            updates.seek(self._step - plan.since)
        self._apply()

    @property
    def graph(self) -> Graph:
        """The graph; None when it no longer exists."""
        return self._graph()

    @property
    def here(self) -> Plan:
        """The plan that the graph is compiled for."""
        return self._here

    @property
    def total_steps(self) -> int | None:
        """Updates of the whole run; None if the plan does not know it."""
        return self.plan.total_steps

    def check_call(self) -> None:
        """Refuse a call of the graph after the end of its phase.

        Raises:
            SpecError: The phase has ended.
        """
        if self.plan.phase_index(self._call) != self._place:
            ended = f"phase {self._place + 1} has ended before update {self._call}."
            raise SpecError(f"{ended} {_describe_next(self._call)}")

    def count_call(self) -> None:
        """Count a call of the graph."""
        self._call += 1

    def reactions(self) -> dict[str, Mapping[str, float]]:
        """What reactive schedules of all phases so far have seen, by group."""
        return {**self._earlier_reactions, **self.live.state()}

    def check_state(self, state: TrainingState) -> None:
        """Refuse a state that the graph cannot go on from, before anything is changed.

        Raises:
            CheckpointError: Its reactive groups are not the plan's, or it is of another phase than the graph.
            SpecError: A schedule has no rate for its step.
        """
        if self.plan.phase_index(state.step) != self._place:
            raise CheckpointError(
                f"the state's next update is {state.step}, in phase {self.plan.phase_index(state.step) + 1}, and the "
                f"graph is compiled for phase {self._place + 1}. Make one with ll.attach(..., step={state.step})."
            )
        if self.plan.phases:
            state.check_reactions(list_reactive(self.plan) & set(state.reactions))
        else:
            state.check_reactions(self.live.state())
        check_rates(self._here, state.step, self._choose_reactions(state.step, state.reactions))

    def _choose_reactions(self, step: int, reactions: Reactions) -> Reactions:
        """What the reactive schedules of the graph's phase go on with."""
        return choose_reactions(self.plan, step, reactions) if self.plan.phases else reactions

    @property
    def _next_update(self) -> int:
        return self._step if self._step > self._began else self._call  # not everybody calls step()

    def _follow(self) -> None:
        """After the phase's last update, take the schedules of the next phase for those of the state."""
        step = self._next_update
        if self.live.plan is self._here and self.plan.phase_index(step) == self._place + 1:
            self._earlier_reactions = self.reactions()
            self.live = LiveRates(self.plan.plan_at(step))
            self.live.restore(carry_reactions(self.plan, self._place + 1, self._earlier_reactions))

    def step(self, *unnamed: object, metrics: Any = None) -> None:
        """Count an update that the graph has made, or let reactive schedules look at a metric.

        Args:
            unnamed: A metric with a fraction, as torch's ``ReduceLROnPlateau`` takes it, if a schedule reads metrics.
                Anything else is refused: torch's other schedulers take it for an epoch.
            metrics: A number, or numbers by name (``loss``, ``accuracy``).

        Raises:
            SpecError: An argument that may be an epoch, or a metric that is missing or no number.
        """
        metrics = read_step_call(unnamed, metrics, bool(self.plan.reacting_units))
        if metrics is not None:
            self.observe(metrics)
            return
        self._step += 1
        self._follow()
        self._apply()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric, and apply what they decide.

        Args:
            metrics: A number, or numbers by name (``loss``, ``accuracy``).
            unit: Only schedules that count this, ``"step"`` or ``"epoch"``, look at it; None is all of them.
        """
        self._follow()
        started = self.plan.phase_index(self._next_update)
        if started and self._next_update == self.plan.phases[started - 1].stop:  # the metric is of the phase before
            self._earlier_reactions = observe_ended(self.plan, started, self._earlier_reactions, metrics, unit)
            self.live.restore(carry_reactions(self.plan, started, self._earlier_reactions))
        else:
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
        return self._here.since + made

    def state_dict(self) -> dict[str, Any]:
        """The count of updates that the graph has made, and what reactive schedules have seen."""
        count = {"last_step": self._count_updates()}
        reactions = self.reactions()
        return count | ({"reactions": reactions} if reactions else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count. With the native lowering, also call the graph's own ``load_state_dict``.

        Raises:
            CheckpointError: It is no result of ``state_dict``.
        """
        self.go_to(*read_scheduler_state(state_dict, "last_step"))

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """Go on before update ``step``, with what reactive schedules have seen."""
        self.live = LiveRates(self._here)
        self.live.restore(self._choose_reactions(step, reactions))
        self._earlier_reactions = dict(reactions) if self.plan.phases else {}
        self._step = self._call = self._began = step
        if self.updates is not None:
            self.updates.seek(self._step - self._here.since)
        self._apply()

    def _apply(self) -> None:
        """Write the rates of reactive groups into the graph's buffers."""
        if self.updates is None or not self.live.is_reactive or self.live.plan is not self._here:
            return
        rates = self.next_rates()
        chosen = [rate if group.is_reactive else None for group, rate in zip(self._here.groups, rates, strict=True)]
        self.updates.set(chosen)


def _describe_next(step: int) -> str:
    """Say what to do at the end of a phase."""
    return (
        "A graph is compiled for one phase. Save the state: ll.save_state(path, model, graph, graph.scheduler). Make "
        f"another graph, with ll.attach(spec, self, model, ..., step={step}) in its __init__. Give it the state: "
        "ll.load_state(path, model, new, new.scheduler)."
    )
