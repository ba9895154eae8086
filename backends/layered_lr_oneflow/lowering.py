"""Says how OneFlow applies a plan's rates; imports no OneFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from layered_lr.arrays import FLOAT32_MAX, FLOAT32_TINY, Float64, Int64
from layered_lr.errors import SpecError, Unsupported
from layered_lr.optimizers import LBFGS, SGD, Adagrad, Optimizer, SparseAdam
from layered_lr.plans.group import PlanGroup, list_kinds
from layered_lr.plans.lowering import Lowering
from layered_lr.plans.plan import Plan
from layered_lr.schedules import Constant
from layered_lr_oneflow.native_schedules import find_native_schedule

LONGEST_TABLE = 100_000  # values of a native table: 1.2 s of compile time and 35 % of a 0.4 ms step at this length

_BLOCK_STEPS = 65_536  # whose rates are held at once

MOST_REBUILDS = 2  # a graph takes 143 MB with MobileNetV2, which OneFlow never gives back, and 3 s to compile


def shares_graph(timeline: Sequence[Plan]) -> bool:
    """Whether the phases of a run share one graph, because a graph for each would take too much memory.

    A shared graph computes the gradients of all parameters that train in any phase, and adds them to buffers. Eager
    optimizers use them from there.
    """
    return len(timeline) > MOST_REBUILDS + 1


def is_native(optimizer: Optimizer) -> bool:
    """Whether OneFlow's own optimizer equals torch's in float32, to the rounding of its operations.

    Measured on OneFlow 0.9 over 200 steps, by the distance moved: SGD 1.2e-7 and Adagrad 2e-7 to 4e-7 from torch,
    where float32 itself is up to 2e-6 from float64. Dampening's first step and ``maximize`` differ from torch's.
    Adagrad's ``lr_decay`` counts the updates of the whole optimizer. Adam (7e-6) and Adadelta (6e-6) compute
    ``1 - beta`` in float32, and RMSprop adds eps inside of the root.
    """
    if optimizer.maximize:
        return False
    if isinstance(optimizer, SGD):
        return not (optimizer.momentum and optimizer.dampening)
    return isinstance(optimizer, Adagrad) and optimizer.lr_decay == 0


def check_optimizers(plan: Plan) -> None:
    """Refuse optimizers that OneFlow cannot have.

    Raises:
        Unsupported: A group has one.
    """
    for group in plan.groups:
        kind = type(group.optimizer).__name__
        if not group.parameters:
            continue
        if isinstance(group.optimizer, SparseAdam):
            reason = "which takes sparse gradients, and OneFlow has none. Use Adam there"
        elif isinstance(group.optimizer, LBFGS):
            reason = "which calls the model several times for each update. Use another optimizer"
        else:
            continue
        raise Unsupported(f"group {group.name!r}: OneFlow backends do not have {kind}, {reason}, or a torch backend.")


def has_native_updates(plan: Plan) -> bool:
    """Whether OneFlow's own optimizers make the updates, or its own update ops if the rates are dynamic.

    Otherwise updates are composed of ordinary ops, as torch computes them: for other optimizers, and for every dtype
    except float32, because OneFlow's optimizers always hold the rate in float32.
    """
    return all(p.dtype == "float32" for p in plan.parameters) and all(is_native(g.optimizer) for g in plan.groups)


def lower_eager(plan: Plan, timeline: Sequence[Plan] = ()) -> Iterator[Lowering]:
    """Say for each group how eager mode applies its rates.

    OneFlow's eager optimizers ignore ``lr_scale``: the scheduler sets each group's rate, already scaled, before every
    update.
    """
    check_optimizers(plan)
    is_composed = len(list_kinds(plan)) > 1  # one optimizer for all kinds
    for group in plan.groups:
        update = _describe_op(plan, group) if is_composed else _describe_update(plan, group)
        yield Lowering("host", "folded", update=update)


def _describe_update(plan: Plan, group: PlanGroup) -> str:
    kind = type(group.optimizer).__name__
    return f"oneflow.optim.{kind}" if has_native_updates(plan) else _describe_composed(group)


def _describe_op(plan: Plan, group: PlanGroup) -> str:
    """Describe an update that no optimizer of OneFlow makes; where its op equals torch's, the rules use it."""
    if all(p.dtype == "float32" for p in plan.parameters) and is_native(group.optimizer):
        return f"OneFlow's op of {type(group.optimizer).__name__}"
    return _describe_composed(group)


def _describe_composed(group: PlanGroup) -> str:
    return f"composed of ops, as torch computes {type(group.optimizer).__name__}"


def describe_phases(plan: Plan) -> str:
    """Describe what a plan's phases cost in OneFlow's Graph."""
    later = [f"{phase.start:,}" for phase in plan.phases[1:]]
    if not later:
        return "frozen parameters are compiled out"
    if shares_graph(plan.phase_plans):
        return (
            f"one graph for all {len(plan.phases)} phases, with eager updates: it computes the gradients of all that "
            "trains in any of them, so that freezing saves no time"
        )
    return (
        f"a graph for each phase: at step {' and '.join(later)} another one is compiled, which takes some seconds, and "
        "memory that OneFlow does not give back; frozen parameters are compiled out"
    )


def lower_graph(plan: Plan, timeline: Sequence[Plan] = ()) -> Iterator[Lowering]:
    """Say for each group how OneFlow's Graph applies its rates.

    *Native*, in most cases: OneFlow's own optimizers, which multiply by ``lr_scale`` themselves, with OneFlow's own
    schedulers if they are exact, else its step tables. *Dynamic*, for the whole graph, if one group needs what a
    compiled optimizer cannot do, or cannot do as torch does: update ops inside the graph that read each rate from a
    buffer.

    Args:
        plan: Of the whole run, or of one of its phases.
        timeline: The plans of all phases; if they share a graph, updates are eager.

    Raises:
        Unsupported: A rate before ``lr_scale`` that float32 cannot hold.
    """
    if shares_graph(timeline):
        yield from lower_eager(plan)
        return
    check_optimizers(plan)
    lower = _lower_dynamically if is_dynamic(plan) else _lower_natively
    for group in plan.groups:
        yield lower(plan, group)


def is_dynamic(plan: Plan) -> bool:
    """Whether a Graph cannot use OneFlow's own optimizer.

    The optimizer differs from torch's, a group's rate is decided while training, its momentum moves, or its table
    would be too long.
    """
    return not has_native_updates(plan) or any(
        group.is_reactive or plan.moves_momentum(group) or _is_too_long(plan, group) for group in plan.groups
    )


def _is_too_long(plan: Plan, group: PlanGroup) -> bool:
    if (plan.total_steps or 0) <= LONGEST_TABLE or find_native_schedule(plan, group) is not None:
        return False
    changes = 0
    for steps, _ in _runs_of_equal_rates(plan, group):
        changes += len(steps)
        if changes >= LONGEST_TABLE:
            return True
    return False


def _lower_dynamically(plan: Plan, group: PlanGroup) -> Lowering:
    _check_scaled(plan, group)
    update = _describe_op(plan, group)
    if group.is_reactive:
        return Lowering("dynamic", "folded", "decided while training", update)
    if isinstance(group.schedule, Constant) and not plan.moves_momentum(group):
        return Lowering("dynamic", "folded", "constant", update)
    if plan.total_steps is None:
        raise _make_length_error(group)
    what = "rates and momenta" if plan.moves_momentum(group) else "rates"
    return Lowering("dynamic", "folded", f"table of {plan.total_steps} {what}", update)


def _lower_natively(plan: Plan, group: PlanGroup) -> Lowering:
    _check_range(plan, group)
    schedule = find_native_schedule(plan, group)
    update = f"{_describe_update(plan, group)}, compiled in"
    if isinstance(schedule, Constant):
        return Lowering("constant", "native", update=update)
    if schedule is not None:
        return Lowering("native", "native", type(schedule).__name__, update)
    if plan.total_steps is None:
        return Lowering("table", "native", "(needs total_steps)", update)
    return Lowering("table", "native", f"of {len(make_rate_table(plan, group)[1])} rates", update)


def _make_length_error(group: PlanGroup) -> SpecError:
    return SpecError(
        f"group {group.name!r}: {type(group.schedule).__name__} becomes a table of rates in a OneFlow Graph: "
        "give total_steps=..., the number of updates of the whole run."
    )


def _check_range(plan: Plan, group: PlanGroup) -> None:
    """Refuse rates that are lost when the Graph rounds to float32, before it multiplies by ``lr_scale``."""
    for rates in chain(_unscaled(plan, group), [np.array([group.lr])]):
        with np.errstate(over="ignore"):
            lost = (rates > FLOAT32_MAX) | ((rates < FLOAT32_TINY) & (rates * group.lr_scale >= FLOAT32_TINY))
        if lost.any():
            raise _make_range_error(group, rates[lost][0])
    if not (group.lr_scale == 0 or FLOAT32_TINY <= group.lr_scale <= FLOAT32_MAX):
        raise _make_range_error(group, group.lr)
    _check_scaled(plan, group)


def _make_range_error(group: PlanGroup, rate: float) -> Unsupported:
    return Unsupported(
        f"backend 'oneflow-graph' rounds the rate to float32 before it multiplies lr_scale={group.lr_scale:g}: "
        f"group {group.name!r} has a rate of {rate:g} there, which float32 cannot hold. Choose lr and lr_scale nearer "
        "to 1, or use 'torch-eager'."
    )


def _check_scaled(plan: Plan, group: PlanGroup) -> None:
    """Refuse rates that float32 cannot hold: OneFlow would make infinity of them."""
    largest = max(float(rates.max()) for rates in _unscaled(plan, group)) * group.lr_scale
    if largest > FLOAT32_MAX:
        raise Unsupported(
            f"group {group.name!r}: the rate {largest:g} is more than float32 holds. Choose a smaller lr or lr_scale."
        )


def _unscaled(plan: Plan, group: PlanGroup) -> Iterator[Float64]:
    """Yield the group's rates, before ``lr_scale``, from the begin of its schedule to the end of the run, in blocks.

    If the length of the run is not known, only the first one.
    """
    stop = max(plan.total_steps or 0, plan.since + 1)
    for start in range(plan.since, stop, _BLOCK_STEPS):
        yield plan.rates_before_scale(group, np.arange(start, min(start + _BLOCK_STEPS, stop)))


def _runs_of_equal_rates(plan: Plan, group: PlanGroup) -> Iterator[tuple[Int64, Float64]]:
    """Yield each run of equal rates except the last in blocks: the last steps of the runs, and their rates."""
    before: Float64 = np.empty(0)  # the last rate of the block before
    first = 0  # the step of the first rate of both, counted from ``plan.since``
    for rates in _unscaled(plan, group):
        joined = np.concatenate([before, rates])
        last = np.flatnonzero(np.diff(joined))
        yield first + last, joined[last]
        first += len(joined) - 1
        before = joined[-1:]


def make_rate_table(plan: Plan, group: PlanGroup) -> tuple[list[int], list[float]]:
    """Make a table of the group's rates over the whole run, before ``lr_scale``, as runs of equal values.

    Returns:
        The last step of each run of equal values except the last, counted from ``plan.since``; and each run's rate.

    Raises:
        SpecError: The plan does not know how long the run is.
    """
    if plan.total_steps is None:
        raise _make_length_error(group)
    steps, rates = zip(*_runs_of_equal_rates(plan, group), strict=True)
    end = plan.rates_before_scale(group, np.array([max(plan.total_steps - 1, plan.since)]))
    return np.concatenate(steps).tolist(), np.concatenate([*rates, end]).tolist()
