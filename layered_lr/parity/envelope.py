"""How far rounding alone can change a run, step by step: this is measured on the reference backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64, Weights
from layered_lr.backend.base import Backend
from layered_lr.parity.disturbance import Disturbance, margin
from layered_lr.parity.inner_rounding import FLOAT32_BITS, has_muon
from layered_lr.parity.recorder import Advanced, prepare_task, record
from layered_lr.parity.task import Task
from layered_lr.parity.trace import Differences, Trace, differences

BFLOAT16_BITS = 2.0**16
"""A last bit of bfloat16 (8 significant bits) in last bits of float32 (24): what autocast's products round to."""

FLOAT64_BITS = 2.0**-29
"""A last bit of float64 (53 significant bits) in last bits of float32 (24)."""

JUMP = 10.0
"""In float64 there is room for this much between runs that jump alike. A ReLU that tips over changes a gradient by a
jump, of the same size however small the error. What else differs between a disturbed run and the reference can cancel
a part of it. So the disturbed runs can show less than an honest backend, which has the jump alone."""

DROWNED = 0.1
"""Where rounding may change a number by this share of what an update changes it, a run can tell nothing of it."""


@dataclass(frozen=True, eq=False)
class Envelope:
    """The largest differences that rounding explains, by step; they never become smaller again.

    Args:
        losses: Shape (steps,).
        grad_norms: Shape (steps, groups).
        update_norms: Of each array's change, shape (steps, arrays).
        weights: Of each array's elements, shape (rows, arrays).
        margin: By how many last bits the samples were disturbed, and by how much a measured rounding counts; see
            ``disturbance.margin``.
        samples: How many disturbed runs there were.
        noise_losses: The step from which on much smaller errors do nearly what those of ``margin`` last bits do, so
            that no margin holds any more: what is measured there is noise, such as the sign of nothing.
        noise_grad_norms: The same of each group, shape (groups,).
        noise_arrays: The same of each array, shape (arrays,).
    """

    losses: Float64
    grad_norms: Float64
    update_norms: Float64
    weights: Float64
    margin: float
    samples: int
    noise_losses: int
    noise_grad_norms: NDArray[np.int64]
    noise_arrays: NDArray[np.int64]

    def widened(self, found: Sequence[Differences], factor: float) -> Envelope:
        """With room for measured differences, each of them times a factor and the margin."""
        factor *= self.margin

        def wider(name: str) -> Float64:
            return _widest([factor * getattr(each, name) for each in found], getattr(self, name), missing=0.0)

        return replace(
            self,
            losses=wider("losses"),
            grad_norms=wider("grad_norms"),
            update_norms=wider("update_norms"),
            weights=wider("weights"),
        )


@dataclass(frozen=True, eq=False)
class Informative:
    """From which step on a run can tell nothing any more, of each number; past the last step where it always can.

    Args:
        losses: One step.
        grad_norms: Shape (groups,).
        arrays: Shape (arrays,).
    """

    losses: int
    grad_norms: NDArray[np.int64]
    arrays: NDArray[np.int64]


def informative_until(trace: Trace, allowed: Envelope) -> Informative:
    """Where rounding drowns what an update does.

    Honest backends then differ as much as others. That is so after many steps of a chaotic training, and from the
    first one on where a gradient is zero but for rounding, as of a bias before a batch normalisation, and in what
    hangs on it.

    Args:
        trace: Of the reference, or another run of the pair.
        allowed: What rounding explains.
    """
    moved = np.maximum.accumulate(trace.update_sizes, axis=0)
    limits = allowed.weights[1 : len(trace.rows)]
    steps = np.minimum(trace.rows[1 : len(limits) + 1], trace.steps) - 1  # the update before each row of weights
    still = moved[steps] == 0  # what is frozen is the same in every run
    drowned = ~still & (limits >= DROWNED * moved[steps])
    never = trace.steps + 1
    arrays = np.where(drowned.any(axis=0), steps[np.argmax(drowned, axis=0)] if len(steps) else never, never)
    loss = allowed.losses[: trace.steps] >= DROWNED * np.abs(trace.losses)
    norms = (trace.grad_norms > 0) & (allowed.grad_norms[: trace.steps] >= DROWNED * trace.grad_norms)
    return Informative(
        min(int(np.argmax(loss)) if loss.any() else never, allowed.noise_losses),
        np.minimum(np.where(norms.any(axis=0), np.argmax(norms, axis=0), never), allowed.noise_grad_norms),
        np.minimum(arrays, allowed.noise_arrays).astype(np.int64),
    )


def measure_envelope(
    backend: Backend,
    task: Task,
    reference: Trace,
    start: Weights,
    *,
    samples: int,
    more: int = 0,
    nudged: Differences | None = None,
    log: Path | None = None,
    advanced: Advanced = lambda: None,
) -> Envelope:
    """Run the reference again with rounding errors on purpose, and see how far it gets from itself.

    In each sample (``Disturbance``) every gradient is computed at weights with an error of up to
    ``margin * loss_bits`` last bits (of bfloat16 under autocast), as rounding in a forward and a backward pass would
    change it; the images of each batch stand in another order, which sums up otherwise; and after each update every
    weight keeps an error of up to ``margin`` last bits. The envelope at a step is the largest of all differences up to
    there (in float64 ``JUMP`` times as large), and at least ``margin`` half last bits of the number itself, which no
    float can do without.

    With Muon, which sums in float32, last bits are those of float32 at least.

    One more run has the opposite errors of the first one, the square root of ``margin`` times smaller. To first order
    it is off by as many times less. Where it is nearly as far off, what the samples measure does not grow with the
    errors, and no margin covers it.

    The norm of an array's update may differ by as much as its elements may. Signs of nothing, such as Lion's of a
    gradient that is only rounding, are others in each disturbed run, and the norm is the same in all. Another backend
    may have a zero there, and so another norm.

    Args:
        backend: The reference's.
        task: What it ran.
        reference: What it did.
        start: What it began with.
        samples: How many disturbed runs; the margin follows from it.
        more: How many more, of the same margin.
        nudged: How far the run with errors of one last bit is off, if it is known.
        log: File that each run's weights go to, one after the other; None is memory.
        advanced: Called after each update of each run.
    """
    unit = FLOAT32_BITS if has_muon(task.spec) and reference.dtype == "float64" else 1.0
    factor = unit * margin(samples, _checks(reference))
    autocast = task.options.precision.autocast is not None
    single = BFLOAT16_BITS if autocast else 1.0
    bits = factor * single * max(1.0, reference.loss_bits)
    whole = replace(task, resume_at=None)

    def disturbed(sample: int, share: float = 1.0, sign: Literal[1, -1] = 1) -> Differences:
        rng = np.random.default_rng([task.options.seed, 7, sample])
        disturbance = Disturbance(rng, share * factor, share * bits, sign)
        ready = prepare_task(backend, whole, start)
        return differences(reference, record(ready, whole, disturbance=disturbance, log=log, advanced=advanced))

    found = [disturbed(sample) for sample in range(samples + more)]
    times = factor / unit  # by which the errors of one more run are smaller
    if nudged is None and not autocast:
        times = np.sqrt(times)
        nudged = disturbed(0, 1 / times, -1)

    room = JUMP if reference.dtype == "float64" and unit == 1.0 else 1.0
    sizes = np.array([reference.layout.largest(row) for row in reference.weights])
    floors = {
        "losses": (np.maximum(reference.losses, 1.0), 0.5 * bits),
        "grad_norms": (reference.grad_norms, 0.5 * factor),
        "update_norms": (reference.update_norms, 0.5 * factor),
        "weights": (sizes, 0.5 * factor),
    }

    def widest(name: str, room: float) -> Float64:
        numbers, least_bits = floors[name]
        floor = least_bits * reference.last_bits(numbers)
        return _widest([room * getattr(each, name) for each in found], floor, missing=np.inf)

    def noise(name: str, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        limits = widest(name, 1.0)
        if nudged is None or autocast:
            return np.full(limits.shape[1:], reference.steps + 1)
        apart: Float64 = getattr(nudged, name)[: len(limits)]
        ended = np.full((1, *limits.shape[1:]), True)  # small errors may end a run
        near = np.concatenate([np.sqrt(times) * apart >= limits[: len(apart)], ended])
        known: NDArray[np.int64] = np.append(steps, reference.steps + 1)
        first: NDArray[np.int64] = known[np.argmax(near, axis=0)]
        return first

    updates = np.arange(reference.steps)
    allowed = {name: widest(name, room) for name in floors}
    kept = np.minimum(np.searchsorted(reference.rows, updates + 1), len(reference.rows) - 1)  # after each update
    elements = np.sqrt([array.size for array in reference.layout.arrays])
    allowed["update_norms"] = np.maximum(allowed["update_norms"], elements * allowed["weights"][kept])
    return Envelope(
        **allowed,
        margin=factor,
        samples=len(found),
        noise_losses=int(noise("losses", updates)),
        noise_grad_norms=noise("grad_norms", updates),
        noise_arrays=np.minimum(noise("update_norms", updates), noise("weights", np.maximum(reference.rows - 1, 0))),
    )


def _checks(reference: Trace) -> int:
    """How many numbers of two runs are compared."""
    series = (reference.losses, reference.grad_norms, reference.update_norms)
    return sum(array.size for array in series) + len(reference.rows) * len(reference.layout.arrays)


def _widest(found: Sequence[Float64], floor: Float64, missing: float) -> Float64:
    """The largest so far at each step.

    Args:
        found: Shapes as ``floor``, or fewer steps where a run ended early.
        floor: What it is at least.
        missing: What stands for the steps that a run did not make: infinity where rounding alone may end a run.
    """
    widest = floor
    for longer in found:
        values = longer[: len(floor)]
        absent = [(0, len(floor) - len(values)), *[(0, 0)] * (floor.ndim - 1)]
        widest = np.maximum(widest, np.pad(values, absent, constant_values=missing))
    return np.maximum.accumulate(widest, axis=0)
