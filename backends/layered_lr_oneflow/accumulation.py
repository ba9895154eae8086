"""Updates from batches in parts, in two graphs: one adds a part's gradients up, one makes the update of the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.modules import parameters_of
from layered_lr.plans import Plan
from layered_lr_oneflow.attach import attach
from layered_lr_oneflow.rules import assign
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.tracing import lazy_tensors, zeros_like


class GradientSums:
    """A sum of gradients for each trainable parameter, in buffers that graphs share.

    Args:
        model: Whose parameters; none of them may be frozen or unfrozen later.
    """

    def __init__(self, model: Any) -> None:
        self.module = flow.nn.Module()
        trainable = [tensor for _, tensor in parameters_of(model) if tensor.requires_grad and tensor.numel()]
        for index, tensor in enumerate(trainable):
            self.module.register_buffer(f"sum_{index}", zeros_like(tensor))
        self._pairs = list(zip(trainable, self.module.buffers(), strict=True))

    def drop_gradients(self) -> None:
        """Forget ``p.grad``, which OneFlow would add to what a trace computes."""
        for parameter, _ in self._pairs:
            parameter.grad = None

    def add(self, graph: Any) -> None:
        """In a trace: add each ``p.grad`` to its sum. What has none has no part in the update, as in torch.

        Raises:
            SpecError: No parameter has one.
        """
        lazy = lazy_tensors(graph)
        self._pairs = [(parameter, total) for parameter, total in self._pairs if parameter.grad is not None]
        if not self._pairs:
            raise SpecError("model: its answer depends on none of its trainable parameters; there is nothing to train.")
        for parameter, total in self._pairs:
            before = lazy(total, "a sum of gradients")
            assign(before, before + parameter.grad)

    def as_loss(self, graph: Any) -> Any:
        """In a trace: a number whose gradient is the sums, bit for bit; they begin anew at zero."""
        lazy = lazy_tensors(graph)
        terms = []
        for parameter, total in self._pairs:
            gradient = lazy(total, "a sum of gradients")
            terms.append((lazy(parameter, "a parameter") * gradient).sum())
            assign(gradient, zeros_like(gradient))  # runs after all ops that read the old value
        return flow.stack(terms).sum()


class PartGraph(flow.nn.Graph):  # type: ignore[misc] # OneFlow has no types
    """Forward, loss and backward of one part of a batch; its gradients go into the sums."""

    def __init__(self, model: Any, sums: GradientSums, check_logits: Callable[[Any, int], None]) -> None:
        super().__init__()
        self.model = model
        self.sums_module = sums.module
        self.sums = sums
        self.check_logits = check_logits
        self.config._train(True)

    def build(self, images: Any, labels: Any, parts: Any) -> Any:
        """The part's mean cross-entropy; ``parts``, shape (1,), is how many of them make the update."""
        self.sums.drop_gradients()
        logits = self.model(images)
        self.check_logits(logits, images.shape[0])
        loss = flow.nn.functional.cross_entropy(logits, labels)
        (loss / parts).sum().backward()
        self.sums.add(self)
        self.sums.drop_gradients()
        return loss


class ApplyGraph(flow.nn.Graph):  # type: ignore[misc] # OneFlow has no types
    """One update by the sums, under the plan as in any other graph; to be called after a ``PartGraph``."""

    def __init__(self, plan: Plan, model: Any, sums: GradientSums, measured: bool) -> None:
        super().__init__()
        self.model = model
        self.sums_module = sums.module
        self.sums = sums
        self.scheduler = attach(plan, self, model, measured)

    def build(self) -> Any:
        """Nothing of use: the update is what it is for."""
        loss = self.sums.as_loss(self)
        loss.backward()
        return loss
