"""Phases in graphs of the user's own: a graph is compiled once, so each phase has a graph of its own."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import find_still_modules, parameters_of, trains_any
from layered_lr.plans.plan import Plan
from layered_lr.plans.single_optimizer import check_single_optimizer
from layered_lr.spec.phases import Phase
from layered_lr_oneflow.attach import attach
from layered_lr_oneflow.graph_scheduler import GraphScheduler
from layered_lr_oneflow.oneflow_types import Graph, Module


def attach_plan(plan: Plan, graph: Graph, model: Module, step: int = 0) -> GraphScheduler:
    """Add a plan's optimizers to a graph of the user's; see ``layered_lr.attach``.

    With phases the graph trains the phase of update ``step``. What the phase freezes is frozen only while the graph is
    compiled: between calls the model's ``requires_grad`` is the user's own, and each phase has its own graph.

    Args:
        plan: Made for this model.
        graph: Not yet compiled.
        model: What the graph trains.
        step: Updates made before.

    Raises:
        SpecError: As ``attach``. At a call of the graph: its phase has ended.
        Unsupported: As ``attach``; or a phase switches to another kind of optimizer, or nothing trains in it.
    """
    if not plan.phases:
        return attach(plan, graph, model)
    check_single_optimizer(plan)
    here = plan.plan_at(step)
    number = plan.phase_index(step) + 1
    if not trains_any(model, here.frozen):
        raise Unsupported(
            f"attach: nothing trains in phase {number}, so its graph would have no gradient to compute. Train this "
            "phase in eager mode (ll.compile), or let it train a parameter."
        )
    with _enter_phase(model, here):
        scheduler = attach(here, graph, model, step=step, whole=plan)
    _compile_in_phase(graph, model, here)
    _end_with_phase(graph, scheduler)
    return scheduler


@contextmanager
def _enter_phase(model: Module, here: Plan) -> Iterator[None]:
    """Freeze what a phase freezes, and hold its modules still, inside of a ``with`` block."""
    phase = here.phase or Phase()
    frozen = [t for parameter, t in parameters_of(model) if parameter.name in here.frozen and t.requires_grad]
    still = find_still_modules(model, here.frozen, phase.batch_norm, phase.dropout)
    modes = [module.training for module in still]
    for tensor in frozen:
        tensor.requires_grad_(False)
        tensor.grad = None
    for module in still:
        module.training = False  # not eval(): a module inside of it may train
    try:
        yield
    finally:
        for tensor in frozen:
            tensor.requires_grad_(True)
        for module, mode in zip(still, modes, strict=True):
            module.training = mode


def _compile_in_phase(graph: Graph, model: Module, here: Plan) -> None:
    """Let a graph be compiled while the phase's parameters are frozen: OneFlow compiles that in."""
    reference, compile_graph = weakref.ref(graph), type(graph)._compile  # no cycle: a graph ends with its last user

    def compile_in_phase(*args: Any, **kwargs: Any) -> Any:
        with _enter_phase(model, here):
            return compile_graph(reference(), *args, **kwargs)

    graph._compile = compile_in_phase


def _end_with_phase(graph: Graph, scheduler: GraphScheduler) -> None:
    """Let a graph count its calls, and refuse those after the end of its phase."""
    name = "_Graph__run"  # what nn.Graph.__call__ calls, after the first call compiled
    reference, run = weakref.ref(graph), getattr(type(graph), name)

    def run_in_phase(*args: Any, **kwargs: Any) -> Any:
        scheduler.check_call()
        outputs = run(reference(), *args, **kwargs)
        scheduler.count_call()
        return outputs

    object.__setattr__(graph, name, run_in_phase)
