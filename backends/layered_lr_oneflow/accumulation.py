"""Updates from batches in parts on ``oneflow-graph``: a graph adds gradients up, an eager optimizer takes the sums.

The graph knows nothing of optimizers: it serves any number of phases as well, see ``PartGraph``.

A second graph that makes the update would do as well, bit for bit, but for OneFlow 0.9's race when a graph is called
while none runs (see ``runtime.schedule_as_batch``): changing from one graph to another waits for that each time. On a
busy machine with a tiny model, such sessions crashed in 3 of 16 runs of 1,000 updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, final

from numpy.typing import NDArray

from layered_lr.backend.base import Extras
from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import parameters_of, set_trainable, trainable_parameters
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.dropout import Masks
from layered_lr_oneflow.eager import EagerUpdates
from layered_lr_oneflow.graph_calls import GraphCalls
from layered_lr_oneflow.mode_switches import Switches
from layered_lr_oneflow.rules.base import assign
from layered_lr_oneflow.runtime import flow, schedule_as_batch
from layered_lr_oneflow.session import Inputs
from layered_lr_oneflow.slot_access import Held
from layered_lr_oneflow.tracing import collect_garbage_first, lazy_tensors


class PartGraph(flow.nn.Graph):  # type: ignore[misc] # OneFlow has no types
    """Forward, loss and backward of one part of a batch, whose gradients are added to sums in buffers.

    One graph can serve several phases: it computes the gradients of all that trains in any of them, and modules that
    hold still in some of them have switches.

    Args:
        model: With ``requires_grad=False`` for what never trains.
        check_logits: See ``Session.check_logits``.
        masks: Of the model's own dropouts.
        switches: Of the modules.

    Attributes:
        sums: The parameters that the loss depends on, each with its sum; after the first call.
    """

    def __init__(
        self, model: Any, check_logits: Callable[[Any, int], None], masks: Masks, switches: Switches | None
    ) -> None:
        super().__init__()
        schedule_as_batch()
        self.model = model
        self.masks = masks
        self.switches = switches
        self.check_logits = check_logits
        parameters = [tensor for _, tensor in parameters_of(model) if tensor.requires_grad]
        self.sums = [(parameter, flow.zeros_like(parameter).detach()) for parameter in parameters]
        buffers = flow.nn.Module()
        for index, (_, total) in enumerate(self.sums):
            buffers.register_buffer(f"sum_{index}", total)
        if switches is not None:
            switches.register(buffers)
        self.buffers_of_sums = buffers
        self.config._train(True)
        collect_garbage_first(self)

    def build(self, images: Any, labels: Any, parts: Any, positions: Any, *masks: Any) -> Any:
        """The part's mean cross-entropy.

        Args:
            images: Shape (N, C, H, W).
            labels: Shape (N,).
            parts: Shape (1,): how many of them make the update.
            positions: Of the switches; see ``Switches.positions``.
            masks: See ``Masks``.
        """
        self._drop_gradients()  # of eager mode: OneFlow would compile them in
        self.masks.hand_in(masks)
        with nullcontext() if self.switches is None else self.switches.traced(positions, lazy_tensors(self)):
            logits = self.model(images)
        self.masks.take_back()
        self.check_logits(logits, images.shape[0])
        loss = flow.nn.functional.cross_entropy(logits, labels)
        (loss / parts).sum().backward()
        self._add()
        self._drop_gradients()
        return loss

    def _add(self) -> None:
        self.sums = [(parameter, total) for parameter, total in self.sums if parameter.grad is not None]
        if not self.sums:
            raise SpecError("model: its answer depends on none of its trainable parameters; there is nothing to train.")
        lazy = lazy_tensors(self)
        for parameter, total in self.sums:
            before = lazy(total, "a sum of gradients")
            assign(before, before + parameter.grad)

    def _drop_gradients(self) -> None:
        for parameter, _ in self.sums:
            parameter.grad = None


@final
class AccumulatingSession(EagerUpdates):
    """A OneFlow model whose forward and backward passes are a static graph, and whose updates are eager ones.

    Args:
        plan: Of the phase to begin with, or of the whole run.
        model: Parameters with ``requires_grad=False`` never train.
        num_classes: As in ``Session``.
        device: OneFlow's name.
        extras: As in ``Session``.
        step: As in ``Session``.
        shared: The plans of all phases that the graph shall serve; empty for this one alone.
    """

    def __init__(
        self,
        plan: Plan,
        model: Any,
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
            self._switches = Switches(model, shared)
            self._masks = Masks(model, extras.seed, always=True)
        self._graph = PartGraph(model, self.check_logits, self._masks, self._switches)
        self._calls = GraphCalls()

    def _begin(self, plan: Plan, step: int) -> None:
        super()._begin(plan, step)
        self._frozen = {id(tensor) for parameter, tensor in parameters_of(self.model) if parameter.name in plan.frozen}
        self._positions: Any = None

    def enter(self, plan: Plan) -> bool:
        """See ``Session.enter``: the optimizer is a new one, ready for update ``self.step``."""
        if self._switches is None or not self._switches.covers(plan):
            return False
        held = {id(tensor) for tensor, _ in self._graph.sums}
        trains = [tensor for parameter, tensor in parameters_of(self.model) if parameter.name not in plan.frozen]
        if not any(id(tensor) in held for tensor in trains):
            return False
        self._take_plan(plan)
        self._begin(plan, self.step)
        return True

    def _backward(self, parts: Sequence[Inputs]) -> list[Any]:
        self._calls.check(parts[0][0])
        count = flow.tensor([len(parts)], dtype=self.dtype, device=self.device)
        if self._positions is None:
            positions = [True] if self._switches is None else self._switches.positions(self.plan)
            self._positions = flow.tensor(positions, dtype=self.dtype, device=self.device)
            if self._switches is not None:
                self._switches.refresh(self.plan)
        with flow.no_grad():
            if self._calls.made:
                for _, total in self._graph.sums:
                    total.zero_()
        losses = [
            self._calls.run(self._graph, images, labels, count, self._positions, *masks)
            for images, labels, *masks in parts
        ]
        self.compile_seconds = self._calls.compile_seconds
        self._calls.count(len(parts))
        if self._switches is not None:
            self._switches.settle(self.plan)
        for parameter, total in self._graph.sums:
            parameter.grad = None if id(parameter) in self._frozen else total
        return losses

    def _seek(self, state: TrainingState, slots: Held) -> None:
        super()._seek(state, slots)
        self._calls.passes = 0
        self._positions = None

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return self._calls.count_in(super().weights(), self.model)
