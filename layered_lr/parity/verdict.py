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
            ``weights``, ``rounding``, ``batch`` or ``loss function``.
        step: The update at which it shows; it began there or, where rounding hid it, before.
        group: Of the plan, or ``buffers`` or ``moving average``; None where it concerns all.
        parameter: Name, where it is known; of ``rounding`` the backend.
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
        parted += tuple(_coarse_rounding(one, other))
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
    if one.steps == other.steps:
        yield from _other_counts(one, other)


def _other_counts(one: Trace, other: Trace) -> Iterator[Departure]:
    """The first buffer of whole numbers that is another one at the end: nothing rounds there."""
    for name in [name for name in one.counts if name in other.counts]:
        mine, theirs = one.counts[name].astype(np.float64), other.counts[name].astype(np.float64)
        if mine.shape != theirs.shape or not np.array_equal(mine, theirs):
            apart = np.abs(mine - theirs).max() if mine.shape == theirs.shape else np.inf
            yield Departure("weights", one.steps - 1, BUFFERS, name, float(apart), 0.0, one.dtype)
            return


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
    floor = digits * one.last_bits(np.maximum(np.abs(one.losses[:1]), 1.0))
    losses, limit = apart.losses[:1, None], np.maximum(floor, digits * own.losses[:1])[:, None]
    yield from _first("loss", one.dtype, losses, limit, [(None, None)])
    norms = np.maximum(_GRADIENT_SHARE * one.grad_norms[:1], digits * own.grad_norms[:1])
    groups = [(group.name, None) for group in plan.groups]
    yield from _first("gradient norm", one.dtype, apart.grad_norms[:1], norms, groups)
    if one.keeps_first_update and len(apart.weights) > 1 and len(own.weights) > 1:
        floors = digits * one.last_bits(one.layout.largest(one.weights[1]))
        limits = np.where(one.layout.is_buffer, np.maximum(floors, digits * own.weights[1]), np.inf)
        arrays = [(array.section, array.name) for array in one.layout.arrays]
        yield from _first("weights", one.dtype, apart.weights[1:2], limits[None], arrays)


_COARSE = 32.0
"""How many times as many last bits as the other backend one may lose at the first update: honest ones lose at most 5
times as many (``docs/certificate.md``), TF32 has 13 fewer bits in each product, bfloat16 16."""


def _coarse_rounding(one: Recording, other: Recording) -> Iterator[Departure]:
    """Whether one of two backends computes its first update in float32 more coarsely than the other."""
    fewer, more = sorted((_lost_bits(found), found.run.backend) for found in (one, other))
    allowed = _COARSE * max(1.0, fewer[0])
    if more[0] > allowed:
        yield Departure("rounding", 0, None, more[1], more[0], allowed, one.run.dtype)


def _lost_bits(found: Recording) -> float:
    """How many last bits of float32 a backend's first update is from its own float64.

    It is the median over the loss, the gradient norm of each group, and each buffer's largest element. 0 where there
    is no such update.
    """
    run, own = found.run, found.rounding
    if run.steps == 0 or len(own.losses) == 0:
        return 0.0
    numbers, apart = [run.losses[:1], run.grad_norms[0]], [own.losses[:1], own.grad_norms[0]]
    if run.keeps_first_update and len(own.weights) > 1:
        numbers.append(run.layout.largest(run.weights[1])[run.layout.is_buffer])
        apart.append(own.weights[1][run.layout.is_buffer])
    sizes = np.concatenate(numbers)
    bits = (np.concatenate(apart) / run.last_bits(sizes))[sizes != 0]
    return float(np.median(bits)) if len(bits) else 0.0


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
    accumulation = by_name.get("probe: accumulation")
    is_alone = accumulation is not None and not any(name in by_name for name in _WHOLE_BATCH_RUNGS)
    if accumulation is not None and is_alone and (in_run is None or accumulation.step <= in_run.step):
        # What is accumulated wrongly is in the run's loss or gradient too.
        return accumulation, "accumulation", _RUNG_WORDS["accumulation"].format(**accumulation._asdict())
    known_from = min((departure.step for departure in facts), default=np.inf)
    if in_run is not None and in_run.observable in _BEFORE_THE_UPDATE and in_run.step <= known_from:
        # What an optimizer does wrong shows in the next loss, not in this.
        return _run_cause(in_run, runs, one, other, plan)
    rate, bare = by_name.get("rate"), by_name.get("probe: bare")
    if rate is not None and (bare is None or rate.step <= bare.step):
        shown = "" if bare else "; its weights move as they should, so that only what it says is wrong"
        return rate, "rate", f"the rate of group {rate.group!r} {_off_by(rate, one, plan)}{shown}"
    if bare is not None:
        begun = _begun(bare, parted, runs.one.dtype)
        sooner = bare._replace(step=begun.step)
        return begun, *_rate_or_state(sooner, one.probes["bare"], other.probes["bare"], rounding, plan)
    for rung, cause in _RUNG_CAUSES.items():
        if departure := by_name.get(f"probe: {rung}"):
            begun = _begun(departure, parted, runs.one.dtype)
            return begun, cause, _RUNG_WORDS[rung].format(**departure._asdict())
    if loss := by_name.get("loss function"):
        return (
            loss,
            "forward",
            (f"the cross-entropy of known logits is off by {loss.difference:.2g} last bits: the forward pass differs"),
        )
    assert in_run is not None
    return _run_cause(in_run, runs, one, other, plan)


def _begun(probed: Departure, parted: tuple[Departure, ...], dtype: str) -> Departure:
    """Where a difference that a probe shows begins: the run may show it earlier, where it is judged in float64."""
    seen = [
        found
        for found in parted
        if found.dtype == dtype and found.group == probed.group and found.observable in _AFTER_THE_UPDATE
    ]
    return min((probed, *seen), key=lambda departure: departure.step)


_WHOLE_BATCH_RUNGS = ("probe: bare", "probe: decay", "probe: clip")
_ORDER = {"loss": 0, "gradient norm": 1, "update norm": 2, "weights": 3, "rounding": 4}
_BEFORE_THE_UPDATE = ("loss", "gradient norm")
_AFTER_THE_UPDATE = ("update norm", "weights")


def _first_of(parted: tuple[Departure, ...], dtype: str) -> Departure | None:
    """Where runs part first: in the dtype in which they are judged, or else in the other one."""
    judged_in = [found for found in parted if found.dtype == dtype]
    return min(judged_in or parted, key=lambda departure: (departure.step, _ORDER[departure.observable]), default=None)


def _run_cause(first: Departure, runs: Judged, one: Trace, other: Trace, plan: Plan) -> tuple[Departure, Cause, str]:
    if first.dtype == runs.one.dtype:
        if first.observable == "update norm" and (scaled := _scaled_update(first, runs, plan)):
            return first, *scaled
        return first, *_cause_in_run(first, runs.one, runs.other)
    cause, explanation = _cause_in_run(first, one, other)
    explanation += f" (in {first.dtype} alone, where it is more than rounding; in {runs.one.dtype} they train alike)"
    return first, cause, explanation


def _scaled_update(first: Departure, runs: Judged, plan: Plan) -> tuple[Cause, str] | None:
    """The cause where all arrays of a group move farther by one factor, from the same weights and gradients.

    Another state or decay moves each array farther by a factor of its own. One array alone tells nothing.
    """
    row, layout = first.step, runs.one.layout
    due, moved = runs.one.update_norms[row], runs.other.update_norms[row]
    allowed = runs.allowed.update_norms[row]
    sections = np.array([array.section for array in layout.arrays])
    known = (due > allowed) & (runs.until.arrays > row) & ~np.isin(sections, (BUFFERS, AVERAGE))
    own = known & (sections == first.group)
    if own.sum() < 2:
        return None
    sharpest = int(np.argmin(np.where(own, allowed / np.maximum(due, np.finfo(np.float64).tiny), np.inf)))
    ratio = float(moved[sharpest] / due[sharpest])
    error = (allowed + due * allowed[sharpest] / due[sharpest]) * (1 + abs(ratio))
    fits = np.abs(moved - ratio * due) <= error
    if not fits[own].all() or abs(ratio - 1) * due[sharpest] <= allowed[sharpest]:
        return None
    others = known & ~own
    if plan.spec.clip_grad_norm is not None and others.any() and fits[others].all():
        return "clip", f"all groups move {_how_far(ratio, 'they')}, at update {row}"
    return "rate", f"group {first.group!r} moves {_how_far(ratio)}, at update {row}"


_RUNG_WORDS = {
    "decay": "without weight decay the updates are the same; with it {parameter!r} (group {group!r}) differs",
    "clip": "without clipping the updates are the same; with it {parameter!r} (group {group!r}) differs",
    "accumulation": "batch by batch the updates are the same; accumulated, {parameter!r} (group {group!r}) differs",
}


def _off_by(rate: Departure, one: Trace, plan: Plan) -> str:
    index = [group.name for group in plan.groups].index(str(rate.group))
    due = abs(float(one.rates[rate.step, index]))
    if not due:
        return f"is {rate.difference:.3g} at update {rate.step}, and should be 0"
    return f"is off by {100 * rate.difference / due:.2g} % from update {rate.step} on"


def _cause_in_run(first: Departure, one: Trace, other: Trace) -> tuple[Cause, str]:
    """The cause of a difference that the probes do not show."""
    where = f"at update {first.step}"
    if first.observable == "rounding":
        return "forward", (
            f"{first.parameter} loses {first.difference:.3g} last bits at the first update, where {first.allowed:.3g} "
            "are allowed: it computes more coarsely than in float32, such as in TF32 or bfloat16"
        )
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
        return "forward", f"the buffers differ {where}, {parameter} first: the forward pass differs"
    if first.group == AVERAGE:
        return "average", f"the moving average differs {where} although the weights are the same"
    if first.observable == "gradient norm" or np.isnan(one.grad_norms + other.grad_norms).any():
        return "backward", f"the same loss has another gradient {where}: the backward pass differs"
    return "state", f"the same gradients make another update {where}, which the probe does not show"


class _Moves(NamedTuple):
    """How far a parameter moves beside how far it should.

    Args:
        ratio: At the first update at which it can be told from 1; 1 where it never can.
        strays: Whether it moves where it should not move at all.
    """

    ratio: float
    strays: bool


def _rate_or_state(
    first: Departure, one: ProbeTrace, other: ProbeTrace, rounding: Rounding, plan: Plan
) -> tuple[Cause, str]:
    allowed = rounding.probes["bare"]
    begins = "from the first update on" if first.step == 0 else f"from update {first.step} on, not before"
    moves: dict[str, _Moves] = {}
    columns: list[int] = []
    at = 0
    for parameter in probe_parameters(plan, one.parameters):
        span = slice(at, at + parameter.elements)
        at += parameter.elements
        if plan.groups[plan.group_of[parameter.name]].name == first.group:
            found = _beside_due(one.weights[:, span], other.weights[:, span], allowed[:, span], first.step)
            if found is None:
                return "state", (
                    f"{first.parameter!r} (group {first.group!r}) moves in another direction {begins}: momentum, "
                    "betas, eps or a counter"
                )
            moves[parameter.name] = found
            columns += range(span.start, span.stop)
    off = {name: move.ratio for name, move in moves.items() if move.ratio != 1}
    strays = [name for name, move in moves.items() if move.strays]
    whole = f"group {first.group!r}"
    ratio = float(np.median(list(off.values()))) if off else 1.0
    if ratio < 0:
        return "state", f"{whole} moves the other way (maximize)"
    common = _find_common_factor(one.weights[:, columns], other.weights[:, columns], allowed[:, columns], first.step)
    if common is not None:
        return "rate", f"{whole} moves {_how_far(common)}"
    if off:
        return "rate", f"{_who(list(off), len(moves), whole)} moves {_how_far(ratio)}"
    if strays:
        return "rate", f"{_who(strays, len(moves), whole)} moves where its rate is 0"
    return "state", (
        f"{first.parameter!r} (group {first.group!r}) moves a little otherwise {begins}: momentum, betas, eps or a "
        "counter"
    )


def _who(names: list[str], count: int, whole: str) -> str:
    """Name the parameters that are off, where they are not all of their group.

    Args:
        names: Of these parameters.
        count: How many the group has.
        whole: What the group is called.
    """
    if len(names) == count:
        return whole
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"of {whole}, {names[0]!r}{others} (of {count} parameters)"


def _how_far(ratio: float, who: str = "it") -> str:
    if abs(ratio - 1) < _SMALL:
        how = f"{100 * abs(ratio - 1):.2g} % {'farther' if ratio > 1 else 'less far'} than"
    else:
        how = f"{ratio:.6g} times as far as"
    return f"{how} {who} should, in the right direction"


_SMALL = 1e-3
"""From which distance from 1 on a ratio is shown as such; nearer ones are shown as their distance."""


def _beside_due(one: Float64, other: Float64, allowed: Float64, start: int) -> _Moves | None:
    """By which factor all elements of a parameter move farther, at each step its own; None if there is none.

    Args:
        one: Weights, shape (steps + 1, elements).
        other: The other backend's weights, shape (steps + 1, elements).
        allowed: What rounding explains.
        start: The first step to look at.
    """
    mine, theirs = np.diff(one, axis=0)[start:], np.diff(other, axis=0)[start:]
    noise = (allowed[1:] + allowed[:-1])[start:]
    first, strays = 1.0, False
    for due, moved, error in zip(mine, theirs, noise, strict=True):
        best = int(np.argmax(np.abs(due) / error))
        if abs(due[best]) <= error[best]:
            strays |= bool((np.abs(moved) > error).any())
            continue
        ratio = moved[best] / due[best]
        uncertain = error[best] * (1 + abs(ratio)) / abs(due[best])
        if (np.abs(moved - ratio * due) > error * (1 + abs(ratio)) + np.abs(due) * uncertain).any():
            return None
        if first == 1.0 and abs(ratio - 1) > uncertain:
            first = float(ratio)
    return _Moves(first, strays)


_FITS = 0.5
"""What is left of a difference, of what rounding explains, where a common factor explains the rest."""


def _find_common_factor(one: Float64, other: Float64, allowed: Float64, step: int) -> float | None:
    """The factor by which all elements move farther from some update on, if one explains the difference; else None.

    A small factor shows in no update by itself, but in the sum of many.

    Args:
        one: Weights of a group, shape (steps + 1, elements).
        other: The other backend's.
        allowed: What rounding explains.
        step: The update at which the difference shows.
    """

    def fit(since: int, row: int) -> tuple[float, float]:
        path, apart = one[row] - one[since], other[row] - one[row]
        weight = allowed[row] ** -2.0
        excess = float((weight * path * apart).sum() / max((weight * path**2).sum(), np.finfo(np.float64).tiny))
        return float((np.abs(apart - excess * path) / allowed[row]).max()), excess

    (left, excess), since = min((fit(since, step + 1), since) for since in range(step + 1))
    left_later, later = fit(since, len(one) - 1)
    if max(left, left_later) > _FITS or abs(later - excess) > _FITS * abs(excess):
        return None
    return 1 + excess
