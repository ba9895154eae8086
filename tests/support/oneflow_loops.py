"""Loops of a user's own on OneFlow, eager and with a graph, for tests of their state; run graphs in subprocesses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr_oneflow.runtime import flow
from tests.support.timelines import batch, net, start

GROUPS = [ll.Group("head", lr_scale=2.0), ll.Group("norm", schedule=ll.StepLR(2))]
TOTAL, MIDDLE = 9, 4
PLATEAU = ll.ReduceLROnPlateau(patience=0, factor=0.5, threshold=0.5, unit="step")

SPECS = {
    "SGD": ll.Spec(ll.SGD(0.1), GROUPS),
    "SGD momentum": ll.Spec(ll.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01), GROUPS, no_weight_decay="1d"),
    "SGD dampening": ll.Spec(ll.SGD(0.1, momentum=0.9, dampening=0.3), GROUPS),
    "SGD reactive": ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, PLATEAU),
    "AdamW": ll.Spec(ll.AdamW(0.01), GROUPS, ll.CosineAnnealingLR(TOTAL), no_weight_decay="1d"),
    "NAdam": ll.Spec(ll.NAdam(0.01), GROUPS),
    "RMSprop": ll.Spec(ll.RMSprop(0.01, momentum=0.5, centered=True), GROUPS, clip_grad_norm=0.5),
    "Adagrad": ll.Spec(ll.Adagrad(0.1, initial_accumulator_value=0.1), GROUPS),
    "Adagrad decay": ll.Spec(ll.Adagrad(0.1, lr_decay=0.1), GROUPS),
}


class Loop:
    """A loop as the README shows it; reactive schedules see the loss.

    Args:
        spec: What it trains under.
        seed: Of the weights.
        dtype: Of the model.
        counts: Whether it calls ``scheduler.step()``.
    """

    def __init__(self, spec: ll.Spec, seed: int = 0, dtype: str = "float32", counts: bool = True) -> None:
        self.model = net(flow).to(getattr(flow, dtype))
        with flow.no_grad():
            named = dict(self.model.named_parameters())
            for name, array in start(self.model, seed).items():
                named[name].copy_(flow.tensor(array, dtype=named[name].dtype))
        self.spec, self.dtype, self.counts = spec, dtype, counts
        self.optimizer, self.scheduler = self._compile()

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """What ``save_state`` and ``load_state`` take."""
        return self.model, self.optimizer, self.scheduler

    def train(self, steps: range) -> list[float]:
        """The losses of these updates."""
        losses = []
        for step in steps:
            images, labels = batch(step)
            loss = self._update(flow.tensor(images, dtype=getattr(flow, self.dtype)), flow.tensor(labels))
            if self.counts:
                self.scheduler.step()
            losses.append(float(loss.numpy()))
            if self.scheduler.plan.reacting_units:
                self.scheduler.step(metrics=losses[-1])
        return losses

    def weights(self) -> dict[str, NDArray[Any]]:
        """A copy."""
        flow._oneflow_internal.eager.Sync()
        return {name: tensor.detach().numpy().copy() for name, tensor in self.model.state_dict().items()}

    def _compile(self) -> tuple[Any, Any]:
        return ll.compile(self.spec, self.model, TOTAL, 4)

    def _update(self, images: Any, labels: Any) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = flow.nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss


class Outer(flow.nn.Module):  # type: ignore[misc] # OneFlow has no types
    """A model within another one: the graph's names are not the model's."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Any) -> Any:
        """Logits."""
        return self.inner(images)


class Train(flow.nn.Graph):  # type: ignore[misc]
    """A graph whose model is not ``self.model``."""

    def __init__(self, model: Any, spec: ll.Spec) -> None:
        super().__init__()
        self.net = Outer(model)
        self.scheduler = ll.attach(spec, self, model, TOTAL, 4)

    def build(self, images: Any, labels: Any) -> Any:
        """The loss."""
        loss = flow.nn.functional.cross_entropy(self.net(images), labels)
        loss.backward()
        return loss


class GraphLoop(Loop):
    """The same with a graph in the optimizer's place."""

    def _compile(self) -> tuple[Any, Any]:
        graph = Train(self.model, self.spec)
        return graph, graph.scheduler

    def _update(self, images: Any, labels: Any) -> Any:
        return self.optimizer(images, labels)


def resumed(
    kind: type[Loop], case: str, folder: str, dtype: str = "float32", counts: bool = True, from_start: bool = True
) -> list[str]:
    """What differs between a loop and others that go on from its state, new ones and one that has trained.

    Args:
        kind: Of loop.
        case: A name in ``SPECS``.
        folder: For the states.
        dtype: Of the model.
        counts: Whether the loops call ``scheduler.step()``.
        from_start: Whether one of them goes on from the state before any update.
    """
    wrong = []
    whole = kind(SPECS[case], 0, dtype, counts)
    losses = []
    for step in range(TOTAL):
        ll.save_state(f"{folder}/{step}", *whole.parts)
        losses += whole.train(range(step, step + 1))
    end = whole.weights()
    used = kind(SPECS[case], 5, dtype, counts)
    used.train(range(2))
    first = [("new, from 0", kind(SPECS[case], 8, dtype, counts), 0)] if from_start else []
    for what, loop, step in (
        *first,
        ("new", kind(SPECS[case], 8, dtype, counts), MIDDLE),
        ("used", used, MIDDLE),
        ("used, back to 1", used, 1),
        ("used, on to 7", used, 7),
    ):
        ll.load_state(f"{folder}/{step}", *loop.parts)
        ll.save_state(f"{folder}/again", *loop.parts)
        if differ(f"{folder}/{step}", f"{folder}/again"):
            wrong.append(f"{case}, {what}: another state")
        if loop.train(range(step, TOTAL)) != losses[step:]:
            wrong.append(f"{case}, {what}: other losses")
        if any((array != end[name]).any() for name, array in loop.weights().items()):
            wrong.append(f"{case}, {what}: other weights")
    return wrong


def differ(one: str, other: str) -> bool:
    """Whether two folders hold different states."""
    from pathlib import Path

    from layered_lr.state.state_files import read_state

    mine, theirs = read_state(Path(one)), read_state(Path(other))
    if (mine.step, mine.optimizer, mine.reactions) != (theirs.step, theirs.optimizer, theirs.reactions):
        return True
    pairs, others = dict(mine.arrays()), dict(theirs.arrays())
    return pairs.keys() != others.keys() or any(not np.array_equal(pairs[name], others[name]) for name in pairs)
