"""Attaches a plan to a ``oneflow.nn.Graph``: native optimizers, ``lr_scale`` and schedules, or dynamic updates."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator

import numpy as np

from layered_lr.errors import SpecError
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.plan import Plan
from layered_lr_oneflow.batch_counts import count_batches_in_build
from layered_lr_oneflow.clipping import GradientClipper, clip_in_build
from layered_lr_oneflow.dynamic_updates import DynamicUpdate
from layered_lr_oneflow.float32_rates import Float32Rates
from layered_lr_oneflow.graph_scheduler import GraphScheduler
from layered_lr_oneflow.lowering import is_dynamic, lower_graph
from layered_lr_oneflow.native_schedulers import build_scheduler, make_sharing_key
from layered_lr_oneflow.oneflow_types import Graph, Module
from layered_lr_oneflow.optimizer import GraphScale, build_optimizer, build_param_groups
from layered_lr_oneflow.runtime import flow, schedule_as_batch
from layered_lr_oneflow.slot_access import TRAIN_STEP
from layered_lr_oneflow.tracing import check_names, collect_garbage_first


def attach(
    plan: Plan,
    graph: Graph,
    model: Module,
    measures: bool = False,
    step: int | None = None,
    counts_batches: bool = True,
    whole: Plan | None = None,
) -> GraphScheduler:
    """Add the plan's optimizers to a graph; call it in the graph's ``__init__``, after ``super().__init__()``.

    Native lowering: groups that one native scheduler can serve share an optimizer; every other schedule has an
    optimizer of its own. Dynamic lowering: update ops at the end of ``build``.
    Gradients that the parameters hold when the graph is compiled are dropped: OneFlow would add them to every step.
    Gradients of ``build`` are clipped at its end, before the updates.

    Args:
        plan: Made for this model.
        graph: Not yet compiled.
        model: What the graph trains.
        measures: Whether a call of the graph also returns each group's gradient norm, shape (groups,), after what
            ``build`` returns.
        step: Updates made before; None is where the plan's schedules begin. The graph itself counts from there.
        counts_batches: Whether the graph counts ``num_batches_tracked`` of batch normalisations; OneFlow does not.
        whole: The plan with phases of which ``plan`` is one; None if there are none.

    Returns:
        The graph's scheduler.

    Raises:
        SpecError: Not a graph, a graph that is compiled already, or one whose optimizers have some of these
            parameters (OneFlow would abort the process).
        Unsupported: A rate that float32 cannot hold, an optimizer that the Graph cannot compute as torch does, or
            global tensors whose gradients have to be clipped. At the graph's first call: it accumulates gradients that
            have to be clipped.
    """
    if not isinstance(graph, flow.nn.Graph):
        raise SpecError(f"attach: graph is a {type(graph).__name__}; must be a oneflow.nn.Graph.")
    if not hasattr(graph, "_opts"):
        raise SpecError("attach: call super().__init__() of the graph first.")
    if graph._is_compiled:
        raise SpecError("attach: the graph is compiled already; call attach in its __init__.")
    check_names(model)
    _check_free(graph, model)
    list(lower_graph(plan))  # raises what the plan cannot be lowered for
    schedule_as_batch()
    collect_garbage_first(graph)
    if counts_batches:
        count_batches_in_build(graph, model)
    clipper = GradientClipper(plan, model, measures)
    if is_dynamic(plan):
        updates = build_dynamic_update(plan, model)
        clip_in_build(graph, clipper)
        updates.bind(graph)  # after clip_in_build: the updates then read the clipped gradients
        return GraphScheduler(plan, graph, model, updates, step, whole)
    param_groups = build_param_groups(plan, model)
    for _, options in param_groups:
        scale = GraphScale(options["lr_scale"])
        scale.parameters = options["params"]
        options["lr_scale"] = scale
    pairs = []
    for members in share_optimizers(plan):
        optimizer = build_optimizer(
            type(plan.groups[members[0]].optimizer),
            [options for index in members for i, options in param_groups if i == index],
        )
        pairs.append((optimizer, build_scheduler(plan, plan.groups[members[0]], optimizer)))
    for optimizer, scheduler in pairs:  # nothing can fail any more
        graph.add_optimizer(optimizer, lr_sch=scheduler)
    if step is not None and step > plan.since:
        graph.load_state_dict({TRAIN_STEP: flow.tensor([step - plan.since], dtype=flow.int64)})
    clip_in_build(graph, clipper)
    return GraphScheduler(plan, graph, model, None, step, whole)


def build_dynamic_update(plan: Plan, model: Module) -> DynamicUpdate:
    """Make the updates of a plan whose rates or momenta a compiled optimizer could not change.

    Rates that are known beforehand become tables inside the graph; a reactive group's rate can be set between calls.

    Raises:
        SpecError: A schedule needs a table, and the plan does not know how long the run is.
    """
    steps = np.arange(plan.since, max(plan.total_steps or 0, plan.since + 1))
    rates = Float32Rates(plan).table(int(steps[0]), int(steps[-1]) + 1)
    static = {group.name: rates[:, index] for index, group in enumerate(plan.groups) if not group.is_reactive}
    moving = [group for group in plan.groups if plan.moves_momentum(group)]
    momenta = {group.name: np.empty(len(steps)) for group in moving}
    for index, step in enumerate(np.maximum(steps, plan.start).tolist() if moving else ()):
        for group, momentum in zip(plan.groups, plan.momenta(step), strict=True):
            if momentum is not None:
                momenta[group.name][index] = momentum
    return DynamicUpdate(plan, model, rate_tables=static, momentum_tables=momenta)


def share_optimizers(plan: Plan) -> list[list[int]]:
    """Sort the indices of the plan's groups into one list for each optimizer, in the graph's order of optimizers."""
    shared: dict[Hashable, list[int]] = {}
    for index, group in enumerate(plan.groups):
        shared.setdefault(make_sharing_key(plan, group), []).append(index)
    return list(shared.values())


def locate_param_groups(plan: Plan) -> Iterator[tuple[int, int]]:
    """For each group of the plan, yield its index, and that of its first param group among all of the graph's."""
    count = 0
    for index in itertools.chain.from_iterable(share_optimizers(plan)):
        yield index, count
        count += len(plan.groups[index].parts)


def _check_free(graph: Graph, model: Module) -> None:
    """Refuse a model with parameters that an optimizer of the graph has already."""
    taken = {id(p) for opt in graph._opts for group in opt["optim"].param_groups for p in group.parameters}
    for parameter, tensor in parameters_of(model):
        if id(tensor) in taken:
            raise SpecError(
                f"attach: {parameter.name!r} is in an optimizer of this graph already; a parameter can be in one only. "
                "Leave out add_optimizer(), and attach one plan only."
            )
