"""Updates from batches in parts on ``oneflow-graph``: a graph adds up gradients, an eager optimizer uses the sums.

The graph knows nothing of optimizers, so one ``GradientGraph`` can serve any number of phases, and images of several
sizes can have a graph each.

A second graph could make the update, with bitwise the same result. But OneFlow 0.9 has a race when a graph is called
while none runs (``runtime.schedule_as_batch`` describes it), and each change from one graph to another risks it. On a
busy machine with a tiny model, such sessions crashed in 3 of 16 runs of 1,000 updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import final

from layered_lr.arrays import Array, Slots
from layered_lr.backend.gradient_watch import no_gradient_error
from layered_lr.backend.session import Extras
from layered_lr.console import say
from layered_lr.losses import LossSettings
from layered_lr.models.nn_modules import parameters_of, set_trainable, trainable_parameters
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.dropout import DropoutMasks
from layered_lr_oneflow.eager import EagerUpdates
from layered_lr_oneflow.graph_calls import GraphCaller
from layered_lr_oneflow.lookups import watch_lookups
from layered_lr_oneflow.losses import add_loss
from layered_lr_oneflow.mode_switches import ModeSwitches
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.rules.base import assign
from layered_lr_oneflow.runtime import flow, schedule_as_batch
from layered_lr_oneflow.session import Inputs
from layered_lr_oneflow.tracing import collect_garbage_first, make_lazy_lookup


class GradientGraph(flow.nn.Graph):
    """Forward pass, loss and backward pass of one part of a batch; the gradients are added to sums in buffers.

    One graph can serve several phases: it computes the gradients of all parameters that train in any of them, and
    modules that hold still in some of them have switches.

    Args:
        model: Parameters that never train have ``requires_grad=False``.
        check_logits: Refuses logits of a wrong shape, given the logits and the number of images.
        masks: Of the library's own dropouts in the model.
        loss: What the updates make smaller.
        switches: Of the modules that hold still in some phases; None if there is only one phase.

    Attributes:
        sums: Each parameter with its sum; after the first call only parameters that the loss depends on.
    """

    def __init__(
        self,
        model: Module,
        check_logits: Callable[[Tensor, int], None],
        masks: DropoutMasks,
        loss: LossSettings,
        switches: ModeSwitches | None,
    ) -> None:
        super().__init__()
        schedule_as_batch()
        self.model = model
        self.masks = masks
        self.switches = switches
        self.check_logits = check_logits
        self.compute_loss = add_loss(self, loss)
        parameters = [tensor for _, tensor in parameters_of(model) if tensor.requires_grad]
        self.sums = [(parameter, flow.zeros_like(parameter).detach()) for parameter in parameters]
        buffers = flow.nn.Module()
        for index, (_, total) in enumerate(self.sums):
            buffers.register_buffer(f"sum_{index}", total)
        if switches is not None:
            switches.register_buffers(buffers)
        self.buffers_of_sums = buffers
        self.config._train(True)
        collect_garbage_first(self)

    def build(self, images: Tensor, labels: Tensor, parts: Tensor, positions: Tensor, *masks: Tensor) -> Tensor:
        """Compute the part's loss, as ``lookups.read_loss`` reads it, and add its gradients to the sums.

        Args:
            images: Shape (N, C, H, W).
            labels: As ``losses.make_loss`` takes them.
            parts: How many parts make the update, shape (1,).
            positions: Whether each switch's module trains, shape (switches + 1,).
            masks: One for each of the library's own dropouts that is in use.
        """
        self._drop_gradients()  # those of eager mode: OneFlow would compile them in
        self.masks.insert(masks)
        with ExitStack() as stack:
            if self.switches is not None:
                stack.enter_context(self.switches.trace_both_modes(positions, make_lazy_lookup(self)))
            lookups = stack.enter_context(watch_lookups())
            logits = self.model(images)
            self.masks.remove()
            self.check_logits(logits, images.shape[0])
            loss = self.compute_loss(logits, labels)
        if not loss.requires_grad:
            raise no_gradient_error()
        (loss / parts).sum().backward()
        self._add_gradients()
        self._drop_gradients()
        return lookups.join(loss)

    def _add_gradients(self) -> None:
        self.sums = [(parameter, total) for parameter, total in self.sums if parameter.grad is not None]
        if not self.sums:
            raise no_gradient_error()
        lazy = make_lazy_lookup(self)
        for parameter, total in self.sums:
            before = lazy(total, "a sum of gradients")
            assign(before, before + parameter.grad)

    def _drop_gradients(self) -> None:
        for parameter, _ in self.sums:
            parameter.grad = None


@final
class AccumulatingSession(EagerUpdates):
    """A OneFlow model in training: forward and backward passes are a static graph, updates are eager.

    Args:
        plan: Of the first phase, or of the whole run.
        model: Parameters with ``requires_grad=False`` never train.
        num_classes: Labels are 0 to ``num_classes - 1``.
        device: OneFlow's name of the device that the model is on.
        extras: What the session does beside the updates.
        step: Updates that the run has made before.
        shared: The plans of all phases that the graph serves; empty if it serves this one only.
    """

    def __init__(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        device: str,
        extras: Extras,
        step: int = 0,
        shared: Sequence[Plan] = (),
    ) -> None:
        trainable = trainable_parameters(model)
        super().__init__(plan, model, num_classes, device, extras, step)
        self._switches = None
        if shared:
            set_trainable(model, frozenset.intersection(*(there.frozen for there in shared)), trainable)
            self._switches = ModeSwitches(model, shared)
            self._masks = DropoutMasks(model, extras.seed, always=True)
        self._graph, self._caller = self._make_graph(), GraphCaller()
        self._graphs: dict[int, tuple[GradientGraph, GraphCaller]] = {}
        if extras.sizes:
            self._say_what_graphs_hold()

    def _make_graph(self) -> GradientGraph:
        return GradientGraph(self.model, self._logits_check, self._masks, self.extras.loss, self._switches)

    def _say_what_graphs_hold(self) -> None:
        floats = sum(tensor.numel() * tensor.element_size() for _, tensor in parameters_of(self.model))
        sizes = ", ".join(map(str, self.extras.sizes))
        say(
            f"oneflow-graph: one graph for each of the {len(self.extras.sizes)} sizes ({sizes} pixels), compiled when "
            f"the size first comes. Each holds sums of the gradients, up to {floats / 1e6:.1f} MB, and its own "
            "activations; the system has this memory back when the process ends."
        )

    def _choose_graph(self, images: Tensor) -> None:
        """Take the graph for images of this size; a new one where it comes for the first time."""
        size = images.shape[-1]
        if size not in self._graphs:
            made = (self._make_graph(), GraphCaller()) if self._graphs else (self._graph, self._caller)
            self._graphs[size] = made
        self._graph, self._caller = self._graphs[size]

    def _callers(self) -> list[GraphCaller]:
        return [caller for _, caller in self._graphs.values()] or [self._caller]

    def _begin(self, plan: Plan, step: int) -> None:
        super()._begin(plan, step)
        self._frozen = {id(tensor) for parameter, tensor in parameters_of(self.model) if parameter.name in plan.frozen}
        self._positions: Tensor | None = None

    def enter(self, plan: Plan) -> bool:
        """Go on with the plan of the next phase, if the graph can serve it; the optimizer is a new one.

        Returns:
            Whether it can; if not, nothing has changed.
        """
        if self._switches is None or not self._switches.covers(plan):
            return False
        held = {id(tensor) for tensor, _ in self._graph.sums}
        trains = [tensor for parameter, tensor in parameters_of(self.model) if parameter.name not in plan.frozen]
        if not any(id(tensor) in held for tensor in trains):
            return False  # the backend opens what fits a phase in which nothing trains
        self._follow_plan(plan)
        self._begin(plan, self.step)
        return True

    def _backward(self, parts: Sequence[Inputs]) -> list[Tensor]:
        if self.extras.sizes:
            self._choose_graph(parts[0][0])
        self._caller.check_call(parts[0][0])
        count = flow.tensor([len(parts)], dtype=self.dtype, device=self.device)
        if self._positions is None:
            positions = [True] if self._switches is None else self._switches.find_positions(self.plan)
            self._positions = flow.tensor(positions, dtype=self.dtype, device=self.device)
            if self._switches is not None:
                self._switches.refresh(self.plan)
        with flow.no_grad():
            if self._caller.made:
                for _, total in self._graph.sums:
                    total.zero_()
        losses = [
            self._caller.run(self._graph, images, labels, count, self._positions, *masks)
            for images, labels, *masks in parts
        ]
        self.compile_seconds = sum(caller.compile_seconds for caller in self._callers())
        self._caller.count_passes(len(parts))
        if self._switches is not None:
            self._switches.write_statistics(self.plan)
        for parameter, total in self._graph.sums:
            parameter.grad = None if id(parameter) in self._frozen else total
        return losses

    def _restore(self, state: TrainingState, slots: Slots) -> None:
        super()._restore(state, slots)
        for caller in self._callers():
            caller.passes = 0
        self._positions = None

    def weights(self) -> dict[str, Array]:
        """Copy the model's parameters and buffers."""
        state = super().weights()
        for caller in self._callers():
            caller.add_passes(state, self.model)
        return state
