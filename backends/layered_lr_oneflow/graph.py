"""Backend ``oneflow-graph``: OneFlow's static graph, with its native optimizers, ``lr_scale`` and schedules."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.backend.base import NO_EXTRAS, Extras
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.accumulation import AccumulatingSession
from layered_lr_oneflow.attach import attach, configured
from layered_lr_oneflow.backend import OneFlowBackend
from layered_lr_oneflow.compiled_rates import CompiledRates
from layered_lr_oneflow.dropout import Masks
from layered_lr_oneflow.graph_calls import GraphCalls
from layered_lr_oneflow.lowering import shares_graph
from layered_lr_oneflow.mode_switches import Switches
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.session import Inputs, OneFlowSession
from layered_lr_oneflow.slot_access import Held, NativeSlots


class TrainGraph(flow.nn.Graph):  # type: ignore[misc] # OneFlow has no types
    """Forward, loss, backward and update of one batch."""

    def __init__(
        self, plan: Plan, model: Any, measured: bool, check_logits: Callable[[Any, int], None], masks: Masks, step: int
    ) -> None:
        super().__init__()
        self.model = model
        self.masks = masks
        self.check_logits = check_logits
        self.scheduler = attach(plan, self, model, measured, step)

    def build(self, images: Any, labels: Any, *masks: Any) -> Any:
        """The batch's mean cross-entropy, before the update."""
        self.masks.hand_in(masks)
        logits = self.model(images)
        self.masks.take_back()
        self.check_logits(logits, images.shape[0])
        loss = flow.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        return loss


@final
class GraphSession(OneFlowSession):
    """A OneFlow model in training, as a static graph that is compiled at the first update."""

    def __init__(self, plan: Plan, model: Any, num_classes: int, device: str, extras: Extras, step: int = 0) -> None:
        super().__init__(plan, model, num_classes, device, extras, step)
        self._graph = TrainGraph(plan, model, self.extras.grad_norms, self.check_logits, self._masks, step)
        self._native_slots = NativeSlots(self._graph, model)
        self._calls = GraphCalls()
        self._compiled: CompiledRates | None = None
        self._chosen = array("d")
        self._updated_names: tuple[str, ...] = ()

    def _train(self, parts: Sequence[Inputs]) -> tuple[list[Any], Any]:
        ((images, labels, *masks),) = parts
        self._calls.check(images)
        if self._graph.scheduler.updates is not None:
            self._chosen.extend(self._graph.scheduler.get_last_lr())
        answer = self._calls.run(self._graph, images, labels, *masks)
        self.compile_seconds = self._calls.compile_seconds
        self._calls.count(1)
        self._graph.scheduler.step()
        loss, norms = answer if self.extras.grad_norms else (answer, None)
        return [loss], norms

    def _updated(self) -> Sequence[str]:
        updates = self._graph.scheduler.updates
        if updates is not None:
            return updates.updated
        if not self._updated_names:
            compiled = self._job().variables
            self._updated_names = tuple(name for name in self._book.rules if f"model.{name}" in compiled)
        return self._updated_names

    def _held(self) -> Held:
        updates = self._graph.scheduler.updates
        return self._native_slots.read() if updates is None else updates.slots()

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return self._graph.scheduler.live.state()

    def _seek(self, state: TrainingState, slots: Held) -> None:
        scheduler = self._graph.scheduler
        if scheduler.updates is None:
            self._native_slots.write(slots, state.step - self.plan.since)
        else:
            own = scheduler.updates.slots()
            scheduler.updates.load_slots({name: {slot: slots[name][slot] for slot in own[name]} for name in own})
        scheduler.load_state_dict({"last_step": state.step, "reactions": state.reactions})
        self._chosen = array("d")
        self._calls.passes = 0

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """See ``Session.observe``."""
        self._graph.scheduler.observe(metrics, unit)

    def rates(self, start: int, stop: int) -> Float64:
        """See ``Session.rates``.

        Read from the compiled job: for each parameter, the ``lr_scale`` that its update op carries times the rate
        of the schedule op that it reads, up to where the job's own step counter stands. With the dynamic lowering:
        the table that the graph holds in a buffer, or what was put into the buffer before each update.

        Raises:
            RuntimeError: The parameters of a group have different rates (it can only be a defect).
        """
        start, stop = max(start, self.start), max(stop, self.start)
        if not self._calls.made:
            return np.empty((0, len(self.plan.groups)))
        if (updates := self._graph.scheduler.updates) is not None:
            groups = len(self.plan.groups)
            first, last = (groups * step for step in self._since_start(start, stop))
            chosen = np.array(self._chosen[first:last]).reshape(-1, groups)
            return updates.applied(start - self.plan.since, chosen)
        compiled = self._job()
        start, stop = start - self.plan.since, min(stop - self.plan.since, compiled.steps())
        table = np.empty((max(stop - start, 0), len(self.plan.groups)))
        for column, conf in configured(self.plan):
            table[:, column] = self._group_rates(compiled, conf, column, start, stop)
        return table

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return self._calls.count_in(super().weights(), self.model)

    def _job(self) -> CompiledRates:
        """The compiled job, read once."""
        if self._compiled is None:
            self._compiled = CompiledRates(self._graph)
        return self._compiled

    def _group_rates(self, compiled: CompiledRates, conf: int, column: int, start: int, stop: int) -> Float64:
        names = [f"model.{name}" for name in self.plan.groups[column].parameters]
        updated = [name for name in names if name in compiled.variables]
        if not updated and self.plan.is_frozen(self.plan.groups[column]):
            return np.zeros(max(stop - start, 0))
        if not updated:
            return compiled.configured(conf, start, stop)
        # One for each part of the group, if it has parts: parameters of one source have one rate.
        sources = {compiled.source(name): name for name in updated}
        rates = [compiled.rates(name, start, stop) for name in sources.values()]
        if any((other != rates[0]).any() for other in rates):
            raise RuntimeError(
                f"group {self.plan.groups[column].name!r}: its parameters were compiled with different rates"
            )
        return rates[0]


@final
class OneFlowGraph(OneFlowBackend):
    """OneFlow's static graph."""

    name: ClassVar[str] = "oneflow-graph"

    def open(
        self,
        plan: Plan,
        model: Any,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> GraphSession | AccumulatingSession:
        """See ``Backend.open``; ``timeline`` is the plans of all phases of the run, before this one and after it.

        Whether they share a graph depends on all of them, so that a run that is resumed does what it did before.
        """
        if shares_graph(timeline) and Switches(model, timeline).possible:
            return AccumulatingSession(plan, model, num_classes, self.device, extras, step, timeline)
        session = GraphSession if extras.accumulate_steps == 1 else AccumulatingSession
        return session(plan, model, num_classes, self.device, extras, step)
