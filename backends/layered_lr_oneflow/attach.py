"""A plan inside a ``oneflow.nn.Graph``: its native optimizers, ``lr_scale`` and schedules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr_oneflow.clipping import Clipping, clip_in_build
from layered_lr_oneflow.graph_scheduler import GraphScheduler, dynamic_updates
from layered_lr_oneflow.lowering import graph as lowerings
from layered_lr_oneflow.lowering import is_dynamic
from layered_lr_oneflow.native_schedulers import build_scheduler, sharing_key
from layered_lr_oneflow.optimizer import GraphScale, build_optimizer, param_groups
from layered_lr_oneflow.runtime import flow, schedule_as_batch
from layered_lr_oneflow.slot_access import TRAIN_STEP
from layered_lr_oneflow.tracing import collect_garbage_first


def attach(plan: Plan, graph: Any, model: Any, measured: bool = False, step: int | None = None) -> GraphScheduler:
    """Add the plan's optimizers to a graph; to be called in its ``__init__``, after ``super().__init__()``.

    Native lowering: groups whose schedules are one to OneFlow share an optimizer; each other schedule has an
    optimizer of its own. Dynamic lowering: update ops at the end of ``build``.
    Gradients that the parameters hold when the graph is compiled are dropped: it would never train right with them.
    Those of ``build`` are clipped where it ends, before the updates.

    Args:
        plan: Made for this model.
        graph: In its ``__init__``.
        model: What the graph trains.
        measured: A call of the graph answers what ``build`` does, and each group's gradient norm, shape (groups,).
        step: Updates made before; None is where the plan's schedules begin. The graph itself counts from there.

    Returns:
        The graph's scheduler.

    Raises:
        SpecError: Not a graph, a graph that is compiled already, or one whose optimizers have some of these
            parameters (OneFlow would abort the process).
        Unsupported: A rate that float32 cannot hold, an optimizer that the Graph cannot do as torch does, or global
            tensors whose gradients are to be clipped. At the graph's first call: it accumulates what is to be clipped.
    """
    if not isinstance(graph, flow.nn.Graph):
        raise SpecError(f"attach: graph is a {type(graph).__name__}; must be a oneflow.nn.Graph.")
    if not hasattr(graph, "_opts"):
        raise SpecError("attach: call super().__init__() of the graph first.")
    if graph._is_compiled:
        raise SpecError("attach: the graph is compiled already; call attach in its __init__.")
    _check_free(graph, model)
    list(lowerings(plan))
    schedule_as_batch()
    collect_garbage_first(graph)
    clipping = Clipping(plan, model, measured)
    if is_dynamic(plan):
        updates = dynamic_updates(plan, model)
        clip_in_build(graph, clipping)
        updates.bind(graph)  # outside of the clipping: it reads the gradients when that is done
        return GraphScheduler(plan, graph, model, updates, step)
    placed = param_groups(plan, model)
    for _, options in placed:
        scale = GraphScale(options["lr_scale"])
        scale.parameters = options["params"]
        options["lr_scale"] = scale
    pairs = []
    for members in sharing(plan):
        optimizer = build_optimizer(plan, [options for index in members for i, options in placed if i == index])
        pairs.append((optimizer, build_scheduler(plan, plan.groups[members[0]], optimizer)))
    for optimizer, scheduler in pairs:  # only now that nothing can fail any more
        graph.add_optimizer(optimizer, lr_sch=scheduler)
    if step is not None and step > plan.since:
        graph.load_state_dict({TRAIN_STEP: flow.tensor([step - plan.since], dtype=flow.int64)})
    clip_in_build(graph, clipping)
    return GraphScheduler(plan, graph, model, None, step)


def sharing(plan: Plan) -> list[list[int]]:
    """Indices of the groups, by the optimizer that serves them, in the order in which a graph has these."""
    shared: dict[tuple[Any, ...], list[int]] = {}
    for index, group in enumerate(plan.groups):
        shared.setdefault(sharing_key(plan, group), []).append(index)
    return list(shared.values())


def configured(plan: Plan) -> Iterator[tuple[int, int]]:
    """For each group its index, and that of its first param group among all of the graph's optimizers."""
    count = 0
    for index in itertools.chain.from_iterable(sharing(plan)):
        yield index, count
        count += len(plan.groups[index].parts)


def _check_free(graph: Any, model: Any) -> None:
    taken = {id(p) for opt in graph._opts for group in opt["optim"].param_groups for p in group.parameters}
    for parameter, tensor in parameters_of(model):
        if id(tensor) in taken:
            raise SpecError(
                f"attach: {parameter.name!r} is in an optimizer of this graph already; every parameter has exactly one."
            )
