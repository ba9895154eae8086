"""Which differences rounding explains in a comparison: of the runs in each precision, the rates, and the probes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.arrays import Float64, Weights
from layered_lr.backend.base import Backend
from layered_lr.errors import Unsupported
from layered_lr.files import read_archive
from layered_lr.parity.disturbance import Disturbance, margin
from layered_lr.parity.envelope import DROWNED, FLOAT64_BITS, Envelope, measure_envelope
from layered_lr.parity.inner_rounding import has_muon, rounds_inside
from layered_lr.parity.recorder import Advanced, prepare_task
from layered_lr.parity.recording import Recording, record_probes
from layered_lr.parity.shaker import frozen_parameters
from layered_lr.parity.task import Task
from layered_lr.parity.trace import Differences, ProbeTrace, Trace, load_probe, probe_differences

HELD_RATES = 4
"""How often a rate may be rounded on its way: the schedule's, ``lr_scale``, their product, and what is read back."""

SAMPLES, SAMPLES_OF_AUTOCAST = 2, 8
"""Disturbed runs of the reference. Autocast has no room for the wide margin of few: bfloat16 has 8 significant bits."""

MORE_OF_NOISE = 6
"""So many more of them where the first update is noise in part: its signs are drawn anew in each."""

PROBE_SAMPLES = 8


def usual_samples(task: Task) -> int:
    """How many disturbed runs of the reference there are where nobody has said how many."""
    return SAMPLES if task.options.precision.autocast is None else SAMPLES_OF_AUTOCAST


@dataclass(frozen=True, eq=False)
class Rounding:
    """The largest differences that rounding explains.

    Args:
        exact: Of runs in float64, which stand beside those that were asked for; None where the reference has none.
        run: Of runs in the precision that was asked for; None where float64 judges all of them.
        rates: Shape (steps, groups).
        probes: Of each element of the probes, by rung, shape (steps + 1, elements).
        exact_probe: The reference's probe on the bare rung in float64 (in its own dtype where it has no float64).
        rounds_inside: Whether the model, or Muon, rounds to a lower precision inside although it runs in float64.
    """

    exact: Envelope | None
    run: Envelope | None
    rates: Float64
    probes: dict[str, Float64]
    exact_probe: ProbeTrace
    rounds_inside: bool = False

    def save(self, path: Path) -> None:
        """Write it as one ``.npz``."""
        arrays: dict[str, Any] = {"rates": self.rates, "rounds_inside": np.array(self.rounds_inside)}
        arrays |= {f"probe/{rung}": values for rung, values in self.probes.items()}
        arrays |= {"exact_probe/weights": self.exact_probe.weights, "exact_probe/rates": self.exact_probe.rates}
        arrays["exact_probe/parameters"] = np.array(self.exact_probe.parameters)
        for name, envelope in (("run", self.run), ("exact", self.exact)):
            if envelope is not None:
                arrays |= {f"{name}/{field.name}": getattr(envelope, field.name) for field in fields(Envelope)}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Rounding:
        """Read what ``save`` wrote."""
        arrays = read_archive(path)

        def part(prefix: str) -> dict[str, Any]:
            found = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            return {name: array.item() if array.ndim == 0 else array for name, array in found.items()}

        exact, run = part("exact/"), part("run/")
        return cls(
            exact=Envelope(**exact) if exact else None,
            run=Envelope(**run) if run else None,
            rates=arrays["rates"],
            probes=part("probe/"),
            exact_probe=load_probe(arrays, "exact_probe/"),
            rounds_inside=bool(arrays["rounds_inside"]),
        )

    def of_exact(self, one: Recording, other: Recording) -> Envelope | None:
        """What rounding explains of two backends' runs in float64; None where one has none.

        Each of the two may be as far off as its run in float32 is from it, times 2^-29 (a last bit of float64 in last
        bits of float32), times the margin: in which array a backend rounds how much shows in float32.
        """
        if self.exact is None or one.exact is None or other.exact is None:
            return None
        return self.exact.widened([one.rounding, other.rounding], FLOAT64_BITS)

    def of_runs(self, one: Recording, other: Recording) -> Envelope:
        """What rounding explains of two backends' runs as they were asked for, where one has no float64.

        Each of the two may be as far off as it is from float64, or from itself with its sums in another order, times
        the margin.
        """
        assert self.run is not None
        return self.run.widened([each.rounding for each in (one, other) if each.exact or each.own], 1.0)


def _begins_with_noise(rounding: Differences, exact: Trace) -> bool:
    """Whether the first update of an array is another one in float32, as where its gradient is nothing but rounding.

    The signs of nothing are drawn anew in each run, whatever the errors. A few disturbed runs may all draw what the
    reference has drawn, and Lion makes whole updates of them.

    Args:
        rounding: How far the reference's float32 is from its float64.
        exact: Its run in float64.
    """
    if exact.steps == 0 or not exact.keeps_first_update or len(rounding.weights) < 2:
        return False
    moved = exact.update_sizes[0]
    return bool(((moved > 0) & (rounding.weights[1] >= DROWNED * moved)).any())


def measure_rounding(
    backend: Backend,
    task: Task,
    reference: Recording,
    start: Weights,
    *,
    samples: int | None = None,
    all_have_float64: bool = True,
    log: Path | None = None,
    advanced: Advanced = lambda: None,
) -> Rounding:
    """Measure on the reference what rounding explains.

    Args:
        backend: The reference's.
        task: What it ran.
        reference: What it did.
        start: What it began with.
        samples: How many disturbed runs in each precision; None chooses.
        all_have_float64: Whether all the other backends have the run in float64 too.
        log: File that each run's weights go to, one after the other; None is memory.
        advanced: Called after each update of each run.
    """
    samples = samples or usual_samples(task)

    exact = reference.exact
    more = MORE_OF_NOISE if exact is not None and _begins_with_noise(reference.rounding, exact) else 0

    def envelope(of: Task, trace: Trace, nudged: Differences | None = None) -> Envelope:
        return measure_envelope(
            backend, of, trace, start, samples=samples, more=more, nudged=nudged, log=log, advanced=advanced
        )

    in_float64 = task.in_float64()
    inside = exact is not None and (has_muon(task.spec) or rounds_inside(backend, in_float64, exact, start))
    if inside:
        exact = None
    rates = 0.5 * HELD_RATES * reference.run.last_bits(reference.run.rates)
    return Rounding(
        exact=None if exact is None else envelope(in_float64, exact),
        run=envelope(task, reference.run, reference.own) if exact is None or not all_have_float64 else None,
        rates=np.maximum.accumulate(rates, axis=0),
        probes=_measure_probes(backend, task, reference.run, start, advanced),
        exact_probe=_exact_probe(backend, task, start) or reference.run.probes["bare"],
        rounds_inside=inside,
    )


def _measure_probes(
    backend: Backend, task: Task, reference: Trace, start: Weights, advanced: Advanced
) -> dict[str, Float64]:
    """What errors of ``margin`` last bits in each gradient and each weight do to the probes."""
    checks = sum(probe.weights.size for probe in reference.probes.values())
    samples = SAMPLES if reference.dtype == "float64" else PROBE_SAMPLES  # where there is room for a wide margin
    factor = margin(samples, checks)
    ready = prepare_task(backend, task, start)
    frozen = frozen_parameters(ready.model)
    found = []
    for sample in range(samples):
        shaken = Disturbance(np.random.default_rng([task.options.seed, 9, sample]), factor, factor)
        probes = record_probes(ready, task, frozen=frozen, disturbance=shaken, advanced=advanced)
        found.append(probe_differences(reference.probes, probes))
    explained = {}
    for rung, probe in reference.probes.items():
        floor = 0.5 * factor * reference.last_bits(probe.weights)
        widest = np.maximum.reduce([floor, *(each[rung] for each in found)])
        explained[rung] = np.maximum.accumulate(widest, axis=0)
    return explained


def _exact_probe(backend: Backend, task: Task, start: Weights) -> ProbeTrace | None:
    if task.options.precision.dtype == "float64":
        return None
    exact = task.in_float64()
    try:
        ready = prepare_task(backend, exact, start)
        return record_probes(ready, exact, frozen=frozen_parameters(ready.model), only="bare")["bare"]
    except Unsupported:
        return None
