"""What rounding alone can do to a run: measured on the reference backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.arrays import Float64, Weights
from layered_lr.backend.base import Backend
from layered_lr.errors import Unsupported
from layered_lr.files import read_archive
from layered_lr.parity.disturbance import Disturbance, margin
from layered_lr.parity.recorder import Advanced, frozen_parameters, prepare_task, record, record_probes
from layered_lr.parity.task import Task
from layered_lr.parity.trace import Differences, ProbeTrace, Trace, differences
from layered_lr.training.grouped_options import Precision

BFLOAT16_BITS = 2.0**16
"""A last bit of bfloat16 (8 significant bits) in last bits of float32 (24): what autocast's products round to."""

HELD_RATES = 4
"""How often a rate may be rounded on its way: the schedule's, ``lr_scale``, their product, and what is read back."""


@dataclass(eq=False)
class Envelope:
    """The largest differences that rounding explains, by step; shapes as in ``Differences``.

    Args:
        losses: Of losses.
        rates: Of rates.
        grad_norms: Of gradient norms.
        update_norms: Of update norms.
        weights: Of each array's elements.
        probes: Of each element of the probes, by rung.
        exact: The reference's probe on the bare rung in float64 (in its own dtype where it has no float64).
        margin: By how many last bits the samples were disturbed; see ``rounding.margin``.
        bits: ``margin`` times the last bits that the frameworks' losses were found to be off; under autocast, last bits
            of bfloat16, counted in those of float32.
        samples: How many disturbed runs there were.
        float64: Whether the reference ran in float64 beside them.
    """

    losses: Float64
    rates: Float64
    grad_norms: Float64
    update_norms: Float64
    weights: Float64
    probes: dict[str, Float64]
    exact: ProbeTrace
    margin: float
    bits: float
    samples: int
    float64: bool

    def save(self, path: Path) -> None:
        """Write it as one ``.npz``."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in (*_SERIES, *_NUMBERS)}
        arrays |= {f"probe/{rung}": values for rung, values in self.probes.items()}
        np.savez(path, exact_weights=self.exact.weights, exact_rates=self.exact.rates, **arrays)

    @classmethod
    def load(cls, path: Path) -> Envelope:
        """Read what ``save`` wrote."""
        arrays = read_archive(path)
        probes = {name.removeprefix("probe/"): array for name, array in arrays.items() if name.startswith("probe/")}
        exact = ProbeTrace(arrays["exact_weights"], arrays["exact_rates"])
        numbers: dict[str, Any] = {name: arrays[name].item() for name in _NUMBERS}
        series: dict[str, Any] = {name: arrays[name] for name in _SERIES}
        return cls(probes=probes, exact=exact, **series, **numbers)


_SERIES = ("losses", "rates", "grad_norms", "update_norms", "weights")
_NUMBERS = ("margin", "bits", "samples", "float64")


def measure(
    backend: Backend,
    task: Task,
    reference: Trace,
    start: Weights,
    *,
    samples: int,
    loss_bits: float = 1.0,
    log: Path | None = None,
    advanced: Advanced = lambda: None,
) -> Envelope:
    """Run the reference again with rounding on purpose, and see how far it gets from itself.

    ``samples`` runs are disturbed (``Disturbance``): each gradient is computed at weights with an error of up to
    ``margin * loss_bits`` last bits (of bfloat16 under autocast), as rounding in a forward and a backward pass would
    change it; the images of each
    batch stand in another order, which sums up otherwise; and after each update every weight keeps an error of up to
    ``margin`` last bits. Each sample's probes have errors of ``margin`` last bits in each gradient and each weight
    at each update. One more run, with its probes, is in float64: its differences count ``margin`` times. The
    envelope at a step is the largest of all these differences up to there, and at least ``margin`` half last bits
    of the number itself, which no float can do without.

    Args:
        backend: The reference's.
        task: What it ran.
        reference: What it did.
        start: What it began with.
        samples: How many disturbed runs.
        loss_bits: The largest of the backends' ``Trace.loss_bits``: what rounding in a forward pass really is here.
        log: File that each run's weights go to, one after the other; None is memory.
        advanced: Called after each update of each run.
    """
    factor = margin(samples, _checks(reference))
    bits = factor * max(1.0, loss_bits) * (1.0 if task.options.precision.autocast is None else BFLOAT16_BITS)
    found = []
    for sample in range(samples):
        disturbance = Disturbance(np.random.default_rng([task.options.seed, 7, sample]), factor, bits)
        ready = prepare_task(backend, task, start)
        frozen = frozen_parameters(ready.model)
        trace = record(ready, task, disturbance=disturbance, log=log, advanced=advanced)
        trace.probes = record_probes(ready, task, frozen=frozen, disturbance=disturbance, advanced=advanced)
        found.append(differences(reference, trace))
    is_exact_known = reference.dtype != "float64" and task.options.precision.autocast is None
    exact = _in_float64(backend, task, start, log, advanced) if is_exact_known else None
    if exact is not None:
        found.append(_scaled(differences(reference, exact), factor))

    def widest(name: str, numbers: Float64, last_bits: float) -> Float64:
        floor = last_bits * np.spacing(np.abs(numbers).astype(reference.dtype)).astype(np.float64)
        return _widest([getattr(each, name) for each in found], floor)

    sizes = [reference.layout.largest(row) for row in reference.weights]
    return Envelope(
        losses=widest("losses", np.maximum(reference.losses, 1.0), 0.5 * bits),
        rates=widest("rates", reference.rates, 0.5 * HELD_RATES),
        grad_norms=widest("grad_norms", reference.grad_norms, 0.5 * factor),
        update_norms=widest("update_norms", reference.update_norms, 0.5 * factor),
        weights=widest("weights", np.array(sizes), 0.5 * factor),
        probes={
            rung: _widest(
                [each.probes[rung] for each in found],
                0.5 * factor * np.spacing(np.abs(probe.weights).astype(reference.dtype)).astype(np.float64),
            )
            for rung, probe in reference.probes.items()
        },
        exact=(exact or reference).probes["bare"],
        margin=factor,
        bits=bits,
        samples=samples,
        float64=exact is not None,
    )


def _in_float64(backend: Backend, task: Task, start: Weights, log: Path | None, advanced: Advanced) -> Trace | None:
    exact = replace(task, options=replace(task.options, precision=Precision("float64")))
    try:
        ready = prepare_task(backend, exact, start)
        frozen = frozen_parameters(ready.model)
        trace = record(ready, exact, log=log, advanced=advanced)
        trace.probes = record_probes(ready, exact, frozen=frozen, advanced=advanced)
    except Unsupported:
        return None
    return trace


def _checks(reference: Trace) -> int:
    """How many numbers a comparison compares."""
    series = (reference.losses, reference.grad_norms, reference.update_norms)
    probes = sum(probe.weights.size for probe in reference.probes.values())
    return sum(array.size for array in series) + len(reference.rows) * len(reference.layout.arrays) + probes


def _scaled(found: Differences, factor: float) -> Differences:
    scaled = {name: factor * getattr(found, name) for name in ("losses", "grad_norms", "update_norms", "weights")}
    return found._replace(**scaled, probes={rung: factor * values for rung, values in found.probes.items()})


def _widest(found: Sequence[Float64], floor: Float64) -> Float64:
    """The largest so far at each step; infinite from where a run ended, since rounding may do that."""
    widest = floor
    for values in found:
        missing = [(0, len(floor) - len(values)), *[(0, 0)] * (floor.ndim - 1)]
        widest = np.maximum(widest, np.pad(values, missing, constant_values=np.inf))
    return np.maximum.accumulate(widest, axis=0)
