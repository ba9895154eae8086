"""Decides whether two recordings are of the same training, and if not, where they begin to differ and why.

The method, from the outside in:

1. **The run, in float64.** Every backend makes the same run: the same weights, batches and rates, once as the user
   asked for it (float32) and once in float64. In float64 honest backends differ by 1e-16 and faults by what they are:
   there is room for a wide margin and for sharp eyes. At each step losses, gradient norms, and each array's change and
   weights are held against each other. How far rounding alone can drive them is measured (``parity.envelope``): by
   disturbed runs of the reference, and by each backend's own distance between its two precisions. A difference beyond
   that is *different*. Where rounding drowns what an update does, nothing can be told of that array from there on.
   Where there is no float64, the runs as they were asked for are judged so, less sharply.
2. **The first update, in float32**, says whether a backend rounds as floats do: from the same weights, its loss and its
   running statistics keep half of their digits, its gradients all but 5 % (a ReLU may tip over).
3. **The probe.** Beside it, every backend's own session trains a model whose gradients are known
   (``layered_lr.parity.probe``): no chaos, so that a rate that is off by 0.001 % shows at once, at every step of
   the run. It has rungs (rates and state; decay; clipping; accumulation): the first to differ names the cause.
4. **The rates** that each framework says it applied, which may differ by the few roundings that a rate goes through
   (``rounding.HELD_RATES``).
5. **The loss** on batches whose answer is known: where it loses more than half of the dtype's digits it is no
   rounding; what it loses beside that widens the run's envelope.

On the bare rung a wrong *rate* is told from a wrong *state* (momentum, betas, eps, counters) by what it does: with a
wrong rate, every element of a parameter still moves along the right direction, by one factor; with a wrong state they
do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.parity.envelope import Envelope, Informative, informative_until
from layered_lr.parity.probe import probe_parameters
from layered_lr.parity.recording import Recording
from layered_lr.parity.rounding import Rounding
from layered_lr.parity.state_vector import AVERAGE, BUFFERS
from layered_lr.parity.trace import Differences, ProbeTrace, Trace, differences
from layered_lr.plans.plan import Plan

Kind: TypeAlias = Literal["same bitwise", "same within rounding", "different"]
Cause: TypeAlias = Literal["rate", "state", "decay", "clip", "accumulation", "data", "forward", "backward", "average"]

_RUNG_CAUSES: dict[str, Cause] = {"decay": "decay", "clip": "clip", "accumulation": "accumulation"}


class Departure(NamedTuple):
    """Where something differs by more than rounding explains, first.

    Args:
        observable: ``rate``, ``probe: bare`` and the other rungs, ``loss``, ``gradient norm``, ``update norm``,
            ``weights``, ``batch`` or ``loss function``.
        step: The update at which it shows; it began there or, where rounding hid it, before.
        group: Of the plan, or ``buffers`` or ``moving average``; None where it concerns all.
        parameter: Name, where it is known.
        difference: Its size.
        allowed: What rounding explains.
        dtype: Of the runs that show it.
    """

    observable: str
    step: int
    group: str | None
    parameter: str | None
    difference: float
    allowed: float
    dtype: str


@dataclass(frozen=True)
class Verdict:
    """What there is to say of two backends.

    Args:
        kind: ``"same bitwise"``, ``"same within rounding"`` or ``"different"``.
        cause: The likely cause of a difference: ``rate``, ``state``, ``decay``, ``clip``, ``accumulation``,
            ``data``, ``forward``, ``backward`` or ``average``; None where there is none.
        first: What tells the cause; None where nothing differs.
        explanation: A sentence.
        departures: Everything that differs, each observable once.
    """

    kind: Kind
    cause: Cause | None
    first: Departure | None
    explanation: str
    departures: tuple[Departure, ...]


class Judged(NamedTuple):
    """Two runs in one precision, and how much of their difference rounding explains.

    Args:
        one: A backend's run.
        other: Another backend's.
        apart: How they differ.
        allowed: What rounding explains.
        until: From which step on they can tell nothing.
    """

    one: Trace
    other: Trace
    apart: Differences
    allowed: Envelope
    until: Informative


def judged(one: Recording, other: Recording, rounding: Rounding) -> Judged:
    """The two backends' runs in float64, where both have it, or else as they were asked for."""
    exact = rounding.of_exact(one, other)
    if exact is not None and one.exact is not None and other.exact is not None:
        return _beside(one.exact, other.exact, exact)
    return _beside(one.run, other.run, rounding.of_runs(one, other))


def _beside(one: Trace, other: Trace, allowed: Envelope) -> Judged:
    return Judged(one, other, differences(one, other), allowed, informative_until(one, allowed))


def judge(
    one: Recording,
    other: Recording,
    rounding: Rounding,
    plan: Plan,
    runs: Judged | None = None,
    apart: Differences | None = None,
) -> Verdict:
    """The verdict on two recordings of one task.

    Args:
        one: The reference, or any other backend.
        other: Another backend.
        rounding: What rounding explains.
        plan: Of the run.
        runs: Their runs that are judged, beside each other, if they are known.
        apart: How the runs differ that were asked for, if it is known.
    """
    runs = judged(one, other, rounding) if runs is None else runs
    apart = differences(one.run, other.run) if apart is None else apart
    facts = tuple(_facts(one.run, other.run, apart, rounding, plan))
    parted = tuple(_departures(runs, plan))
    if runs.one is not one.run:
        parted += tuple(_first_update(one.run, other.run, one.rounding, apart, plan))
    if not facts and not parted:
        if _is_bitwise(one.run, other.run):
            return Verdict("same bitwise", None, None, "every loss and weight is the same to the last bit", ())
        return Verdict("same within rounding", None, None, "nothing differs by more than rounding explains", ())
    first, cause, explanation = _cause(facts, parted, runs, one.run, other.run, rounding, plan)
    return Verdict("different", cause, first, explanation, (*facts, *parted))


def _is_bitwise(one: Trace, other: Trace) -> bool:
    probes = all(np.array_equal(one.probes[rung].weights, other.probes[rung].weights) for rung in one.probes)
    return probes and np.array_equal(one.losses, other.losses) and np.array_equal(one.digests, other.digests)


def _facts(one: Trace, other: Trace, apart: Differences, rounding: Rounding, plan: Plan) -> Iterator[Departure]:
    """What differs apart from the training itself: batches, rates, probes, the loss where its answer is known."""
    groups = [group.name for group in plan.groups]
    steps = min(one.steps, other.steps)
    if len(swapped := np.flatnonzero(one.batches[:steps] != other.batches[:steps])):
        yield Departure("batch", int(swapped[0]), None, None, float(len(swapped)), 0.0, one.dtype)
    yield from _first("rate", one.dtype, apart.rates, rounding.rates, [(group, None) for group in groups])
    probed = probe_parameters(plan, rounding.exact_probe.parameters)
    elements = [(groups[plan.group_of[p.name]], p.name) for p in probed for _ in range(p.elements)]
    for rung, values in apart.probes.items():
        yield from _first(f"probe: {rung}", one.dtype, values[1:], rounding.probes[rung][1:], elements)
    for trace in (one, other):
        if trace.loss_bits > half_the_digits(trace.dtype):
            yield Departure("loss function", 0, None, None, trace.loss_bits, half_the_digits(trace.dtype), trace.dtype)
            break


def _departures(runs: Judged, plan: Plan) -> Iterator[Departure]:
    """Where two runs differ by more than rounding explains, as long as they can tell."""
    one, other, apart, allowed, until = runs
    groups = [(group.name, None) for group in plan.groups]
    arrays = [(array.section, array.name) for array in one.layout.arrays]
    dtype, losses = one.dtype, apart.losses[:, None]
    yield from _first("loss", dtype, losses, allowed.losses[:, None], [(None, None)], until=np.array([until.losses]))
    yield from _first("gradient norm", dtype, apart.grad_norms, allowed.grad_norms, groups, until=until.grad_norms)
    yield from _first("update norm", dtype, apart.update_norms, allowed.update_norms, arrays, until=until.arrays)
    yield from _first("weights", dtype, apart.weights, allowed.weights, arrays, one.rows - 1, until.arrays)
    steps = min(one.steps, other.steps)
    if one.steps != other.steps and steps < until.losses:
        limit = float(allowed.losses[min(steps, len(allowed.losses) - 1)])
        if np.isfinite(limit):
            yield Departure("loss", steps, None, None, np.inf, limit, dtype)


_GRADIENT_SHARE = 0.05
"""How much of a gradient's norm rounding may change at one update: a ReLU that tips over moves it by a step."""


def _first_update(one: Trace, other: Trace, own: Differences, apart: Differences, plan: Plan) -> Iterator[Departure]:
    """Where a backend does not round as floats do at the first update, which all make from the same weights.

    Args:
        one: A run.
        other: Another backend's.
        own: How far the first backend is from its own float64: where the numbers themselves are ill-conditioned.
        apart: How the two runs differ.
        plan: Of the run.
    """
    if min(one.steps, other.steps) == 0:
        return
    digits = half_the_digits(one.dtype)
    last_bits = digits * np.spacing(np.maximum(np.abs(one.losses[:1]), 1.0).astype(one.dtype)).astype(np.float64)
    losses, limit = apart.losses[:1, None], np.maximum(last_bits, digits * own.losses[:1])[:, None]
    yield from _first("loss", one.dtype, losses, limit, [(None, None)])
    norms = np.maximum(_GRADIENT_SHARE * one.grad_norms[:1], digits * own.grad_norms[:1])
    groups = [(group.name, None) for group in plan.groups]
    yield from _first("gradient norm", one.dtype, apart.grad_norms[:1], norms, groups)
    if len(one.rows) > 1 and one.rows[1] == 1 and len(apart.weights) > 1 and len(own.weights) > 1:
        sizes = one.layout.largest(one.weights[1])
        floors = digits * np.spacing(sizes.astype(one.dtype)).astype(np.float64)
        is_buffer = np.array([array.section == BUFFERS for array in one.layout.arrays])
        limits = np.where(is_buffer, np.maximum(floors, digits * own.weights[1]), np.inf)
        arrays = [(array.section, array.name) for array in one.layout.arrays]
        yield from _first("weights", one.dtype, apart.weights[1:2], limits[None], arrays)


def half_the_digits(dtype: str) -> float:
    """How many last bits half of a float's digits are."""
    return float(2.0 ** ((1 - np.log2(np.spacing(np.ones((), dtype)))) / 2))


def _first(
    observable: str,
    dtype: str,
    values: Float64,
    allowed: Float64,
    owners: Sequence[tuple[str | None, str | None]],
    steps: Any = None,
    until: NDArray[np.int64] | None = None,
) -> Iterator[Departure]:
    """The first step with a difference that is not allowed, and there the one that is farthest beyond.

    Args:
        observable: Its name.
        dtype: Of the runs.
        values: The differences, shape (rows, columns).
        allowed: What rounding explains, rows as ``values`` or more.
        owners: Of each column, its group and parameter.
        steps: The update of each row; None counts the rows.
        until: Of each column, the step from which on nothing can be told; None always can.
    """
    allowed = allowed[: len(values)]
    beyond = ~(values[: len(allowed)] <= allowed)  # a difference that is NaN is one
    if until is not None:
        updates = np.arange(len(beyond)) if steps is None else steps[: len(beyond)]
        beyond &= updates[:, None] < until
    rows = np.flatnonzero(beyond.any(axis=1))
    if not len(rows):
        return
    row = int(rows[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        column = int(np.argmax(np.where(beyond[row], values[row] / allowed[row], -1.0)))
    step = row if steps is None else int(steps[row])
    yield Departure(observable, step, *owners[column], float(values[row, column]), float(allowed[row, column]), dtype)


def _cause(
    facts: tuple[Departure, ...],
    parted: tuple[Departure, ...],
    runs: Judged,
    one: Trace,
    other: Trace,
    rounding: Rounding,
    plan: Plan,
) -> tuple[Departure, Cause, str]:
    by_name = {departure.observable: departure for departure in reversed(facts)}
    if batch := by_name.get("batch"):
        return batch, "data", f"another batch than the other backend's at update {batch.step}"
    in_run = _first_of(parted, runs.one.dtype)
    known_from = min((departure.step for departure in facts), default=np.inf)
    if in_run is not None and in_run.observable in _BEFORE_THE_UPDATE and in_run.step <= known_from:
        return _run_cause(in_run, runs, one, other)  # what an optimizer does wrong shows in the next loss, not in this
    rate, bare = by_name.get("rate"), by_name.get("probe: bare")
    if rate is not None and (bare is None or rate.step <= bare.step):
        off = _relative(rate, one, plan)
        shown = "" if bare else "; its weights move as they should, so that only what it says is wrong"
        return rate, "rate", f"the rate of group {rate.group!r} is off by {off:.2g} % from update {rate.step} on{shown}"
    if bare is not None:
        return bare, *_rate_or_state(bare, one.probes["bare"], other.probes["bare"], rounding, plan)
    for rung, cause in _RUNG_CAUSES.items():
        if departure := by_name.get(f"probe: {rung}"):
            return departure, cause, _RUNG_WORDS[rung].format(**departure._asdict())
    if loss := by_name.get("loss function"):
        return (
            loss,
            "forward",
            (f"the cross-entropy of known logits is off by {loss.difference:.2g} last bits: the forward pass differs"),
        )
    assert in_run is not None
    return _run_cause(in_run, runs, one, other)


_ORDER = {"loss": 0, "gradient norm": 1, "update norm": 2, "weights": 3}
_BEFORE_THE_UPDATE = ("loss", "gradient norm")


def _first_of(parted: tuple[Departure, ...], dtype: str) -> Departure | None:
    """Where runs part first: in the dtype in which they are judged, or else in the other one."""
    judged_in = [found for found in parted if found.dtype == dtype]
    return min(judged_in or parted, key=lambda departure: (departure.step, _ORDER[departure.observable]), default=None)


def _run_cause(first: Departure, runs: Judged, one: Trace, other: Trace) -> tuple[Departure, Cause, str]:
    if first.dtype == runs.one.dtype:
        return first, *_cause_in_run(first, runs.one, runs.other)
    cause, explanation = _cause_in_run(first, one, other)
    explanation += f" (in {first.dtype} alone, where it is more than rounding; in {runs.one.dtype} they train alike)"
    return first, cause, explanation


_RUNG_WORDS = {
    "decay": "without weight decay the updates are the same; with it {parameter!r} (group {group!r}) differs",
    "clip": "without clipping the updates are the same; with it {parameter!r} (group {group!r}) differs",
    "accumulation": "batch by batch the updates are the same; accumulated, {parameter!r} (group {group!r}) differs",
}


def _relative(rate: Departure, one: Trace, plan: Plan) -> float:
    index = [group.name for group in plan.groups].index(str(rate.group))
    due = abs(float(one.rates[rate.step, index]))
    return 100 * rate.difference / due if due else np.inf


def _cause_in_run(first: Departure, one: Trace, other: Trace) -> tuple[Cause, str]:
    """The cause of a difference that the probes do not show."""
    where = f"at update {first.step}"
    if first.observable == "loss":
        if max(one.steps, other.steps) > first.step == min(one.steps, other.steps):
            ended = one if one.steps == first.step else other
            return "forward", (
                f"{ended.backend}: {ended.ended}; the optimizer does the same where gradients are known, so that the "
                "forward pass differs, or the backward pass before it"
            )
        if first.step == 0:
            return "forward", "the same weights and batch give another loss: the forward pass differs"
        return "data", f"the loss differs {where} although the weights were the same: the model saw another batch"
    if first.group == BUFFERS:
        parameter = first.parameter or "somewhere"
        return (
            "forward",
            f"the statistics of a normalisation differ {where}, {parameter} first: the forward pass differs",
        )
    if first.group == AVERAGE:
        return "average", f"the moving average differs {where} although the weights are the same"
    if first.observable == "gradient norm" or np.isnan(one.grad_norms + other.grad_norms).any():
        return "backward", f"the same loss has another gradient {where}: the backward pass differs"
    return "state", f"the same gradients make another update {where}, which the probe does not show"


def _rate_or_state(
    first: Departure, one: ProbeTrace, other: ProbeTrace, rounding: Rounding, plan: Plan
) -> tuple[Cause, str]:
    ratios = []
    at = 0
    for parameter in probe_parameters(plan, one.parameters):
        span = slice(at, at + parameter.elements)
        at += parameter.elements
        if plan.groups[plan.group_of[parameter.name]].name == first.group:
            ratio = _common_ratio(
                one.weights[:, span], other.weights[:, span], rounding.probes["bare"][:, span], first.step
            )
            if ratio is None:
                begins = "from the first update on" if first.step == 0 else f"from update {first.step} on, not before"
                return "state", (
                    f"{first.parameter!r} (group {first.group!r}) moves in another direction {begins}: momentum, "
                    "betas, eps or a counter"
                )
            ratios.append(ratio)
    ratio = float(np.median(ratios))
    if ratio < 0:
        return "state", f"group {first.group!r} moves the other way (maximize)"
    return "rate", f"group {first.group!r} moves {ratio:.6g} times as far as it should, in the right direction"


def _common_ratio(one: Float64, other: Float64, allowed: Float64, start: int) -> float | None:
    """The factor by which all elements of a parameter move farther, at each step its own; None if there is none.

    Args:
        one: Weights, shape (steps + 1, elements).
        other: The other backend's weights, shape (steps + 1, elements).
        allowed: What rounding explains.
        start: The first step to look at.

    Returns:
        The factor at the first step at which it can be told.
    """
    mine, theirs = np.diff(one, axis=0)[start:], np.diff(other, axis=0)[start:]
    noise = (allowed[1:] + allowed[:-1])[start:]
    first = None
    for due, moved, error in zip(mine, theirs, noise, strict=True):
        best = int(np.argmax(np.abs(due) / error))
        if abs(due[best]) <= error[best]:
            continue
        ratio = moved[best] / due[best]
        uncertain = error[best] * (1 + abs(ratio)) / abs(due[best])
        if (np.abs(moved - ratio * due) > error * (1 + abs(ratio)) + np.abs(due) * uncertain).any():
            return None
        first = ratio if first is None else first
    return 1.0 if first is None else float(first)
