"""The session of ``oneflow-graph`` in several processes: one graph of global tensors computes the gradients.

The graph has a copy of the model as global tensors, ``broadcast`` to all processes; images are ``split(0)``. Updates
are those of ``oneflow-eager``, on the model itself, and equal in all processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import final

from layered_lr.arrays import Array, Float64, Slots, Targets
from layered_lr.backend.gradient_watch import no_gradient_error
from layered_lr.backend.session import Extras
from layered_lr.errors import Unsupported
from layered_lr.files import one_line
from layered_lr.losses import ClassLoss, FunctionLoss, LossSettings
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.dropout import DropoutMasks
from layered_lr_oneflow.eager import EagerUpdates
from layered_lr_oneflow.graph_calls import GraphCaller
from layered_lr_oneflow.lookups import watch_lookups
from layered_lr_oneflow.losses import add_loss
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.processes import OneFlowProcesses
from layered_lr_oneflow.runtime import flow, schedule_as_batch
from layered_lr_oneflow.session import Inputs
from layered_lr_oneflow.tracing import collect_garbage_first
from layered_lr_oneflow.translated_program import collect_writes


def check_one_size(extras: Extras) -> None:
    """Refuse images of several sizes.

    Raises:
        Unsupported: There are several.
    """
    if extras.sizes:
        raise Unsupported(
            "sizes: 'oneflow-graph' trains with one image size in several processes. Leave sizes out, or use "
            "'oneflow-eager'."
        )


class GlobalGradientGraph(flow.nn.Graph):
    """Forward pass, loss and backward pass of one part of a batch, over the images of all processes.

    Args:
        model: Of global tensors.
        check_logits: Refuses logits of a wrong shape, given the logits and the number of images.
        masks: Of the dropouts in the model.
        loss: What the updates make smaller.

    Attributes:
        updated: Indices of the parameters that have gradients, after the first call.
        written: Names of the buffers that a translated model writes, after the first call.
    """

    def __init__(
        self,
        model: Module,
        check_logits: Callable[[Tensor, int], None],
        masks: DropoutMasks,
        loss: LossSettings,
    ) -> None:
        super().__init__()
        schedule_as_batch()
        self.model = model
        self.masks = masks
        self.check_logits = check_logits
        self.compute_loss = add_loss(self, loss)
        self.parameters_in_order = list(model.parameters())
        self.updated: list[int] = []
        self.written: list[str] = []
        self.config._train(True)
        collect_garbage_first(self)

    def build(self, images: Tensor, labels: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        """Compute the part's loss, the gradients of parameters that it depends on, and what buffers are to hold."""
        self.masks.insert(masks)
        with watch_lookups() as lookups:
            with collect_writes() as written:
                logits = self.model(images)
            self.masks.remove()
            self.check_logits(logits, images.shape[0])
            loss = self.compute_loss(logits, labels)
        if not loss.requires_grad:
            raise no_gradient_error()
        loss.backward()
        self.updated = [index for index, each in enumerate(self.parameters_in_order) if each.grad is not None]
        gradients = [self.parameters_in_order[index].grad for index in self.updated]
        for parameter in self.parameters_in_order:
            parameter.grad = None
        self.written = [name for name, _ in written]
        return tuple(_to_all(tensor) for tensor in (lookups.join(loss), *gradients, *(value for _, value in written)))


def _to_all(tensor: Tensor) -> Tensor:
    return tensor.to_global(sbp=flow.sbp.broadcast)


@final
class GlobalGraphSession(EagerUpdates):
    """A OneFlow model that several processes train: gradients by a graph of global tensors, updates by eager ops."""

    def _begin(self, plan: Plan, step: int) -> None:
        super()._begin(plan, step)
        self._copy = copy.deepcopy(self.model)
        trains = [each.requires_grad for each in self.model.parameters()]
        self._placement = flow.placement.all(self.device)
        self._copy.to_global(placement=self._placement, sbp=flow.sbp.broadcast)
        for parameter, does in zip(self._copy.parameters(), trains, strict=True):
            parameter.requires_grad_(does)
        masks = DropoutMasks(self._copy, self.extras.seed)
        self._caller = GraphCaller()
        self._graph = GlobalGradientGraph(self._copy, self._logits_check, masks, self._make_global_loss())
        self._twins = {name: twin.to_local() for name, twin in self._copy.state_dict().items()}
        self._copied = [(own, self._twins[name]) for name, own in self.model.state_dict().items()]

    def _make_global_loss(self) -> LossSettings:
        """The loss with its own tensors, such as the weights of classes, in all processes."""
        loss = self.extras.loss
        if not (isinstance(loss, FunctionLoss) and isinstance(loss.function, flow.nn.Module)):
            return loss
        copied = copy.deepcopy(loss.function)
        return loss._replace(function=copied.to_global(placement=self._placement, sbp=flow.sbp.broadcast))

    def _divide_targets(self, loss: ClassLoss, labels: Targets) -> Float64:
        """Shares of the mean over the images of all processes: the graph's sum goes over all of them."""
        return super()._divide_targets(loss, labels) / self._own_part.share.count

    def _average_gradients(self, processes: OneFlowProcesses) -> None:
        """The graph has done so."""

    def _backward(self, parts: Sequence[Inputs]) -> list[Tensor]:
        self._caller.check_call(parts[0][0])
        with flow.no_grad():
            for own, twin in self._copied:
                twin.copy_(own)
        losses = []
        sums: list[Tensor] = []
        for inputs in parts:
            loss, *others = self._call(inputs)
            losses.append(loss)
            gradients, values = others[: len(self._graph.updated)], others[len(self._graph.updated) :]
            with flow.no_grad():
                for name, value in zip(self._graph.written, values, strict=True):
                    self._twins[name].copy_(value)
                shares = [each / len(parts) for each in gradients]
                sums = [before + more for before, more in zip(sums, shares, strict=True)] if sums else shares
        self.compile_seconds = self._caller.compile_seconds
        self._caller.count_passes(len(parts))
        with flow.no_grad():
            for own, twin in self._copied:
                own.copy_(twin)  # statistics of batch normalisations
        parameters = list(self.model.parameters())
        for index, total in zip(self._graph.updated, sums, strict=True):
            parameters[index].grad = total
        return losses

    def _restore(self, state: TrainingState, slots: Slots) -> None:
        super()._restore(state, slots)
        self._caller.passes = 0

    def weights(self) -> dict[str, Array]:
        """Copy the model's parameters and buffers."""
        return self._caller.add_passes(super().weights(), self.model)

    def _call(self, inputs: Inputs) -> list[Tensor]:
        given = [tensor.to_global(placement=self._placement, sbp=flow.sbp.split(0)) for tensor in inputs]
        try:
            answers = self._caller.run(self._graph, *given)
        except (RuntimeError, Unsupported) as error:  # in all processes
            if self._caller.made or type(error) not in (RuntimeError, Unsupported):
                raise
            refused = Unsupported(
                "backend 'oneflow-graph' in several processes: OneFlow cannot compile this model with global tensors. "
                f"Use 'oneflow-eager' there. It says: {one_line(error)}"
            )
            refused.said_elsewhere = self._processes is not None and not self._processes.is_first
            raise refused from error
        return [each.to_local() for each in answers]
