"""Backend ``oneflow-graph``: OneFlow's static graph, with its native optimizers, ``lr_scale`` and schedules."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, final

import numpy as np

from layered_lr.arrays import Array, Float64, Slots
from layered_lr.backend.gradient_watch import no_gradient_error
from layered_lr.backend.session import NO_EXTRAS, Extras
from layered_lr.losses import LossSettings
from layered_lr.models.nn_modules import trains_any
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import Metrics
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.accumulation import AccumulatingSession
from layered_lr_oneflow.attach import attach, locate_param_groups
from layered_lr_oneflow.backend import OneFlowBackend
from layered_lr_oneflow.compiled_rates import CompiledRates
from layered_lr_oneflow.dropout import DropoutMasks
from layered_lr_oneflow.eager import EagerSession
from layered_lr_oneflow.global_graph import GlobalGraphSession, check_one_size
from layered_lr_oneflow.graph_calls import GraphCaller
from layered_lr_oneflow.lookups import watch_lookups
from layered_lr_oneflow.losses import add_loss
from layered_lr_oneflow.lowering import shares_graph
from layered_lr_oneflow.mode_switches import ModeSwitches
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.session import Inputs, OneFlowSession
from layered_lr_oneflow.slot_access import NativeSlots
from layered_lr_oneflow.tracing import check_names


class TrainGraph(flow.nn.Graph):
    """Forward pass, loss, backward pass and update of one batch.

    Args:
        plan: Is attached to the graph.
        model: What the graph trains.
        measures: Whether a call also returns each group's gradient norm.
        check_logits: Refuses logits of a wrong shape, given the logits and the number of images.
        masks: Of the library's own dropouts in the model.
        loss: What the updates make smaller.
        step: Updates made before.
    """

    def __init__(
        self,
        plan: Plan,
        model: Module,
        measures: bool,
        check_logits: Callable[[Tensor, int], None],
        masks: DropoutMasks,
        loss: LossSettings,
        step: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.masks = masks
        self.check_logits = check_logits
        self.compute_loss = add_loss(self, loss)
        self.scheduler = attach(plan, self, model, measures, step, counts_batches=False)

    def build(self, images: Tensor, labels: Tensor, *masks: Tensor) -> Tensor:
        """Compute the batch's loss before the update, as ``lookups.read_loss`` reads it, and its gradients."""
        self.masks.insert(masks)
        with watch_lookups() as lookups:
            logits = self.model(images)
            self.masks.remove()
            self.check_logits(logits, images.shape[0])
            loss = self.compute_loss(logits, labels)
        if not loss.requires_grad:
            raise no_gradient_error()
        loss.backward()
        return lookups.join(loss)


@final
class GraphSession(OneFlowSession):
    """A OneFlow model in training, as a static graph that is compiled at the first update."""

    def _begin(self, plan: Plan, step: int) -> None:
        self._graph = TrainGraph(
            plan, self.model, self.extras.grad_norms, self._logits_check, self._masks, self.extras.loss, step
        )
        self._native_slots = NativeSlots(self._graph, self.model)
        self._caller = GraphCaller()
        self._compiled: CompiledRates | None = None
        self._chosen = array("d")
        self._updated_names: tuple[str, ...] = ()

    def _make_update(self, parts: Sequence[Inputs]) -> tuple[list[Tensor], Tensor | None]:
        ((images, labels, *masks),) = parts
        self._caller.check_call(images)
        if self._graph.scheduler.updates is not None:
            self._chosen.extend(self._graph.scheduler.next_rates())
        answer = self._caller.run(self._graph, images, labels, *masks)
        self.compile_seconds = self._caller.compile_seconds
        self._caller.count_passes(1)
        self._graph.scheduler.step()
        loss, norms = answer if self.extras.grad_norms else (answer, None)
        return [loss], norms

    def _list_updated(self) -> Sequence[str]:
        updates = self._graph.scheduler.updates
        if updates is not None:
            return updates.updated
        if not self._updated_names:
            compiled = self._read_job().variables
            self._updated_names = tuple(name for name in self._slot_converter.rules if f"model.{name}" in compiled)
        return self._updated_names

    def _read_slots(self) -> Slots:
        updates = self._graph.scheduler.updates
        return self._native_slots.read() if updates is None else updates.slots()

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return self._graph.scheduler.live.state()

    def _restore(self, state: TrainingState, slots: Slots) -> None:
        scheduler = self._graph.scheduler
        if scheduler.updates is None:
            self._native_slots.write(slots, state.step - self.plan.since)
        else:
            own = scheduler.updates.slots()
            scheduler.updates.load_slots({name: {slot: slots[name][slot] for slot in own[name]} for name in own})
        scheduler.go_to(state.step, state.reactions)
        self._chosen = array("d")
        self._caller.passes = 0

    def observe(self, metrics: Metrics, unit: str) -> None:
        """Let reactive schedules that look at each step, or at each epoch, see its metrics."""
        self._graph.scheduler.observe(metrics, unit)

    def rates(self, start: int, stop: int) -> Float64:
        """Rates of updates ``start`` to ``stop - 1``, read from the graph.

        With the native lowering they are read from the compiled job: for each parameter the ``lr_scale`` of its update
        op times the rate of the schedule op that it reads, as far as the job has counted steps. With the dynamic
        lowering they are the table in the graph's buffer, or what was written into the buffer before each update.

        Raises:
            RuntimeError: The parameters of a group have different rates. This can only be a defect of this library.
        """
        start, stop = max(start, self.start), max(stop, self.start)
        if not self._caller.made:
            return np.empty((0, len(self.plan.groups)))
        if (updates := self._graph.scheduler.updates) is not None:
            groups = len(self.plan.groups)
            first, last = (groups * step for step in self._count_from_start(start, stop))
            chosen = np.array(self._chosen[first:last]).reshape(-1, groups)
            return updates.applied(start - self.plan.since, chosen)
        compiled = self._read_job()
        start, stop = start - self.plan.since, min(stop - self.plan.since, compiled.count_steps())
        table = np.empty((max(stop - start, 0), len(self.plan.groups)))
        for column, conf in locate_param_groups(self.plan):
            table[:, column] = self._read_group_rates(compiled, conf, column, start, stop)
        return table

    def weights(self) -> dict[str, Array]:
        """Copy the model's parameters and buffers."""
        return self._caller.add_passes(super().weights(), self.model)

    def _read_job(self) -> CompiledRates:
        """Read the compiled job, once."""
        if self._compiled is None:
            self._compiled = CompiledRates(self._graph)
        return self._compiled

    def _read_group_rates(self, compiled: CompiledRates, conf: int, column: int, start: int, stop: int) -> Float64:
        names = [f"model.{name}" for name in self.plan.groups[column].parameters]
        updated = [name for name in names if name in compiled.variables]
        if not updated and self.plan.is_frozen(self.plan.groups[column]):
            return np.zeros(max(stop - start, 0))
        if not updated:
            return compiled.read_configured_rates(conf, start, stop)
        # A group with parts has a source for each part; parameters of one source have one rate.
        sources = {compiled.find_source(name): name for name in updated}
        rates = [compiled.read_rates(name, start, stop) for name in sources.values()]
        if any((other != rates[0]).any() for other in rates):
            raise RuntimeError(
                f"group {self.plan.groups[column].name!r}: its parameters were compiled with different rates. This is "
                "a defect of layered_lr: please report it."
            )
        return rates[0]


@final
class OneFlowGraph(OneFlowBackend):
    """OneFlow's static graph."""

    name: ClassVar[str] = "oneflow-graph"

    def open(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> GraphSession | AccumulatingSession | EagerSession | GlobalGraphSession:
        """Put the model under the plan's optimizer, ready to make update ``step``.

        A phase in which nothing trains has nothing to compile, and runs in eager mode. Whether phases share a graph
        depends on all plans in ``timeline``, so a resumed run does what it did before.
        """
        self.check_together(extras)
        check_names(model)
        if not trains_any(model, plan.frozen):
            return EagerSession(plan, model, num_classes, self.device, extras, step, self.together)
        if self.together is not None:
            self.together.agree(lambda: check_one_size(extras))
            return GlobalGraphSession(plan, model, num_classes, self.device, extras, step, self.together)
        if shares_graph(timeline) and ModeSwitches(model, timeline).are_possible:
            return AccumulatingSession(plan, model, num_classes, self.device, extras, step, timeline)
        session = GraphSession if extras.accumulate_steps == 1 and not extras.sizes else AccumulatingSession
        return session(plan, model, num_classes, self.device, extras, step)
