"""How rates reach the weights: planned, and as a probe of ones shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from tests.support.models import ones, taken, unit_gradients

# A weight that starts at zero and takes one step of a unit gradient is the rate itself: the rate's own float32
# rounding (6e-8), twice where OneFlow multiplies by lr_scale, is all that may differ.
TOLERANCE = 1e-6

STEPS, STEPS_PER_EPOCH, NAMES = 9, 3, [f"p{index}" for index in range(8)]

LENGTHS = {"total_steps": STEPS, "steps_per_epoch": STEPS_PER_EPOCH}


def directions(plan: ll.Plan) -> NDArray[np.float64]:
    """By what each group's rate is multiplied at each step, by momentum; exact in float32, as momentum is 0.5."""
    momentum = np.array([group.optimizer.momentum for group in plan.groups])
    nesterov = np.array([group.optimizer.nesterov for group in plan.groups])
    buffer, table = np.zeros(len(momentum)), []
    for _ in range(STEPS):
        buffer = momentum * buffer + 1
        table.append(np.where(nesterov, 1 + momentum * buffer, buffer))
    return np.array(table)


def planned(plan: ll.Plan) -> NDArray[np.float64]:
    """Each parameter's rate at each step."""
    columns = [plan.group_of[parameter.name] for parameter in plan.parameters]
    return plan.table()[:, columns]


def applied(plan: ll.Plan, steps: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The rates behind the steps that were taken."""
    columns = [plan.group_of[parameter.name] for parameter in plan.parameters]
    return np.array(steps) / directions(plan)[:, columns]


def through_compile(framework: Any, spec: ll.Spec, names: list[str] = NAMES) -> tuple[ll.Plan, NDArray[np.float64]]:
    """A loop of the user's own, with ``ll.compile``."""
    model = unit_gradients(framework, names)
    optimizer, scheduler = ll.compile(spec, model, **LENGTHS)
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        model(ones(framework)).backward()
        optimizer.step()
        scheduler.step()
        steps.append(taken(model, framework))
    plan = ll.resolve(spec, model, **LENGTHS)
    return plan, applied(plan, steps)


def through_attach(flow: Any, spec: ll.Spec, names: list[str] = NAMES) -> tuple[ll.Plan, NDArray[np.float64]]:
    """A graph of the user's own, with ``ll.attach``."""
    model = unit_gradients(flow, names)

    class Graph(flow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.plan = ll.attach(spec, self, model, **LENGTHS).plan

        def build(self, x: Any) -> Any:
            loss = self.net(x)
            loss.backward()
            return loss

    graph, steps = Graph(), []
    for _ in range(STEPS):
        graph(ones(flow))
        steps.append(taken(model, flow))
    return graph.plan, applied(graph.plan, steps)
