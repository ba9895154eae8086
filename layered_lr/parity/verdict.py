"""Whether two traces are of the same training, and if not, where they part and why.

The method, from the outside in:

1. **The run.** Every backend makes the same run: the same weights, batches and rates. At each step its losses,
   gradient and update norms and weights are held against those of the other. Training in float32 is chaotic, so that
   honest backends drift apart too; how far rounding alone can drive them is measured, not chosen
   (``layered_lr.parity.envelope``), with a margin from the number of samples (``rounding.margin``). A difference beyond
   it is *different*; where the envelope is as large as an update, the run can no longer tell anything, and the
   comparison says from which step on.
2. **The probe.** Beside it, every backend's own session trains a model whose gradients are known
   (``layered_lr.parity.probe``): no chaos, so that a rate that is off by 0.1 % shows at once, at every step of
   the run. It has rungs (rates and state; decay; clipping; accumulation): the first to differ names the cause.
3. **The rates** that each framework says it applied, which may differ by the few roundings that a rate goes through
   (``envelope.HELD_RATES``).
4. **The loss** on batches whose answer is known: where it loses more than half of the dtype's digits it is no
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

from layered_lr.arrays import Float64
from layered_lr.parity.envelope import Envelope
from layered_lr.parity.probe import probe_parameters
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
    """

    observable: str
    step: int
    group: str | None
    parameter: str | None
    difference: float
    allowed: float


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


def judge(one: Trace, other: Trace, envelope: Envelope, plan: Plan, apart: Differences | None = None) -> Verdict:
    """The verdict on two traces of one task.

    Args:
        one: The reference, or any other backend.
        other: Another backend.
        envelope: What rounding explains.
        plan: Of the run.
        apart: How they differ, if it is known.
    """
    apart = differences(one, other) if apart is None else apart
    found = tuple(_departures(one, other, apart, envelope, plan))
    if not found:
        if _is_bitwise(one, other):
            return Verdict("same bitwise", None, None, "every loss and weight is the same to the last bit", ())
        return Verdict("same within rounding", None, None, "nothing differs by more than rounding explains", ())
    first, cause, explanation = _cause(found, one, other, envelope, plan)
    return Verdict("different", cause, first, explanation, found)


def _is_bitwise(one: Trace, other: Trace) -> bool:
    probes = all(np.array_equal(one.probes[rung].weights, other.probes[rung].weights) for rung in one.probes)
    return probes and np.array_equal(one.losses, other.losses) and np.array_equal(one.digests, other.digests)


def _departures(one: Trace, other: Trace, apart: Differences, allowed: Envelope, plan: Plan) -> Iterator[Departure]:
    groups = [group.name for group in plan.groups]
    sections = one.layout.sections
    steps = min(one.steps, other.steps)
    if len(swapped := np.flatnonzero(one.batches[:steps] != other.batches[:steps])):
        yield Departure("batch", int(swapped[0]), None, None, float(len(swapped)), 0.0)
    yield from _first("rate", apart.rates, allowed.rates, [(group, None) for group in groups])
    elements = [(groups[plan.group_of[p.name]], p.name) for p in probe_parameters(plan) for _ in range(p.elements)]
    for rung, values in apart.probes.items():
        yield from _first(f"probe: {rung}", values[1:], allowed.probes[rung][1:], elements)
    for trace in (one, other):
        if trace.loss_bits > half_the_digits(trace.dtype):
            yield Departure("loss function", 0, None, None, trace.loss_bits, half_the_digits(trace.dtype))
            break
    yield from _first("loss", apart.losses[:, None], allowed.losses[:, None], [(None, None)])
    yield from _first("gradient norm", apart.grad_norms, allowed.grad_norms, [(group, None) for group in groups])
    yield from _first("update norm", apart.update_norms, allowed.update_norms, [(name, None) for name in sections])
    arrays = [(array.section, array.name) for array in one.layout.arrays]
    yield from _first("weights", apart.weights, allowed.weights, arrays, one.rows - 1)
    if one.steps != other.steps and np.isfinite(allowed.losses[min(steps, len(allowed.losses) - 1)]):
        yield Departure("loss", steps, None, None, np.inf, float(allowed.losses[min(steps, len(allowed.losses) - 1)]))


def half_the_digits(dtype: str) -> float:
    """How many last bits half of a float's digits are."""
    return float(2.0 ** ((np.finfo(dtype).nmant + 1) / 2))


def _first(
    observable: str,
    values: Float64,
    allowed: Float64,
    owners: Sequence[tuple[str | None, str | None]],
    steps: Any = None,
) -> Iterator[Departure]:
    """The first step with a difference that is not allowed, and there the one that is farthest beyond."""
    allowed = allowed[: len(values)]
    beyond = values[: len(allowed)] > allowed
    rows = np.flatnonzero(beyond.any(axis=1))
    if not len(rows):
        return
    row = int(rows[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        column = int(np.argmax(np.where(beyond[row], values[row] / allowed[row], -1.0)))
    step = row if steps is None else int(steps[row])
    yield Departure(observable, step, *owners[column], float(values[row, column]), float(allowed[row, column]))


def _cause(
    found: tuple[Departure, ...], one: Trace, other: Trace, envelope: Envelope, plan: Plan
) -> tuple[Departure, Cause, str]:
    by_name = {departure.observable: departure for departure in reversed(found)}
    if batch := by_name.get("batch"):
        return batch, "data", f"another batch than the other backend's at update {batch.step}"
    rate, bare = by_name.get("rate"), by_name.get("probe: bare")
    if rate is not None and (bare is None or rate.step <= bare.step):
        off = _relative(rate, one, plan)
        shown = "" if bare else "; its weights move as they should, so that only what it says is wrong"
        return rate, "rate", f"the rate of group {rate.group!r} is off by {off:.2g} % from update {rate.step} on{shown}"
    if bare is not None:
        return bare, *_rate_or_state(bare, one.probes["bare"], other.probes["bare"], envelope, plan)
    for rung, cause in _RUNG_CAUSES.items():
        if departure := by_name.get(f"probe: {rung}"):
            return departure, cause, _RUNG_WORDS[rung].format(**departure._asdict())
    if loss := by_name.get("loss function"):
        return (
            loss,
            "forward",
            (f"the cross-entropy of known logits is off by {loss.difference:.2g} last bits: the forward pass differs"),
        )
    order = {"loss": 0, "gradient norm": 1, "update norm": 2, "weights": 3}
    first = min(found, key=lambda departure: (departure.step, order[departure.observable]))
    return first, *_cause_in_run(first, one, other)


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
    first: Departure, one: ProbeTrace, other: ProbeTrace, envelope: Envelope, plan: Plan
) -> tuple[Cause, str]:
    ratios = []
    at = 0
    for parameter in probe_parameters(plan):
        span = slice(at, at + parameter.elements)
        at += parameter.elements
        if plan.groups[plan.group_of[parameter.name]].name == first.group:
            ratio = _common_ratio(
                one.weights[:, span], other.weights[:, span], envelope.probes["bare"][:, span], first.step
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


def uninformative_from(one: Trace, envelope: Envelope) -> dict[str, int | None]:
    """For each section, the step from which on the run itself can tell nothing any more; None where it always can.

    That is where rounding alone may have driven half of the section's arrays as far apart as an update goes: runs
    that are equal to rounding then differ as much as runs that are not. Probes and rates go on telling.
    """
    found: dict[str, int | None] = {}
    steps = one.rows[1:] - 1
    for place, section in enumerate(one.layout.sections):
        columns = one.layout.section_of == place
        largest = np.maximum.accumulate(one.update_sizes[:, columns], axis=0)[steps]
        moved = largest > 0  # what is frozen so far is the same in every run, and says so
        drowned = (moved & (envelope.weights[1:, columns] >= largest)).mean(axis=1) > 0.5
        found[section] = int(steps[np.argmax(drowned)]) if drowned.any() else None
    return found
