"""What a comparison found, as data: verdicts, rates, differences, and what rounding explains of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.outputs import check_page, write_whole
from layered_lr.parity.findings import ByObservable, Observed, Pair
from layered_lr.parity.inner_rounding import has_muon
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.probe import probe_parameters, probed_rates
from layered_lr.parity.recording import Recording
from layered_lr.parity.rounding import Rounding
from layered_lr.parity.state_vector import Layout
from layered_lr.parity.trace import Differences, Trace, differences
from layered_lr.parity.verdict import Judged, judge, judged
from layered_lr.plans.plan import Plan
from layered_lr.registry import TABLE
from layered_lr.spec.spec import Spec


@dataclass(frozen=True, eq=False)
class Comparison:
    """Whether backends train alike, measured; made by ``layered_lr.compare``, which tells the method.

    Args:
        reference: The first of the backends.
        plan: What each of them was to do.
        steps: How many updates each made, if nothing ended it.
        outcomes: How it went with each backend, by name.
        observed: What each backend did that ran, by name.
        pairs: Every two that ran, those with the reference first.
        sections: The groups that have parameters, ``buffers`` and ``moving average`` where there are any.
        rows: After how many updates the weights were compared.
        uninformative: For each section, the step from which on the runs cannot tell anything of it any more (rates and
            probes still do), because they cannot of any of its arrays; None where they always can.
        cannot_tell: By array, the step from which on the runs cannot tell anything of it: rounding alone may move it a
            tenth as far as an update does. Arrays of which they always can are left out.
        margin: By how many last bits samples were disturbed to measure what rounding explains.
        samples: How many there were.
        notes: What a reader should know.
        options: What was asked for in addition to the spec, where it can be written down.
    """

    reference: str
    plan: Plan
    steps: int
    outcomes: dict[str, Outcome]
    observed: dict[str, Observed] = field(repr=False)
    pairs: tuple[Pair, ...]
    sections: tuple[str, ...]
    rows: Float64 = field(repr=False)
    uninformative: dict[str, int | None]
    cannot_tell: dict[str, int]
    margin: float
    samples: int
    notes: tuple[str, ...]
    options: dict[str, Any]

    @property
    def same(self) -> bool:
        """Whether every backend ran, and all do the same, bitwise or within rounding."""
        ran = all(outcome.status == "ran" for outcome in self.outcomes.values())
        return ran and all(pair.verdict.kind != "different" for pair in self.pairs)

    def pair(self, one: str, other: str) -> Pair:
        """The pair of two backends, in either order.

        Raises:
            KeyError: One of them did not run, or was not asked for.
        """
        for pair in self.pairs:
            if {pair.one, pair.other} == {one, other}:
                return pair
        raise KeyError((one, other))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain tables, lists, strings and numbers; None for what is not a number."""
        return {
            "same": self.same,
            "reference": self.reference,
            "steps": self.steps,
            "groups": [group.name for group in self.plan.groups],
            "sections": list(self.sections),
            "rows": self.rows.tolist(),
            "backends": {name: self._backend(outcome) for name, outcome in self.outcomes.items()},
            "pairs": [_pair(pair) for pair in self.pairs],
            "uninformative_from": self.uninformative,
            "cannot_tell_from": self.cannot_tell,
            "margin": self.margin,
            "samples": self.samples,
            "notes": list(self.notes),
            "options": self.options,
        }

    def _backend(self, outcome: Outcome) -> dict[str, Any]:
        told = {"status": outcome.status, "exit_code": outcome.exit_code, "words": outcome.words}
        if (seen := self.observed.get(outcome.backend)) is None:
            return told
        names = ("losses", "rates", "probed_rates", "grad_norms", "update_norms")
        series = _plain({name: getattr(seen, name) for name in names})
        about = {"loss_bits": seen.loss_bits, "ended": seen.ended, "versions": seen.versions, "seconds": seen.seconds}
        return {**told, **about, **series}

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_html(self, path: str | Path | None = None) -> str:
        """The report: one HTML file that refers to nothing outside it; a table, and below it pictures.

        Without matplotlib there is a note instead of the pictures.

        Args:
            path: File to write it to, whole or not at all; None only returns it.

        Raises:
            SpecError: A path that cannot be.
            LayeredLRError: The file cannot be written.
        """
        from layered_lr.parity.report import html_text

        text = html_text(self)
        if path is not None:
            write_whole(check_page("path", path, ()), [text.encode()])
        return text

    def __str__(self) -> str:
        from layered_lr.parity.report import comparison_text

        return comparison_text(self)


def _pair(pair: Pair) -> dict[str, Any]:
    verdict = pair.verdict
    return {
        "one": pair.one,
        "other": pair.other,
        "verdict": verdict.kind,
        "cause": verdict.cause,
        "explanation": verdict.explanation,
        "first": verdict.first and _finite(verdict.first._asdict()),
        "departures": [_finite(departure._asdict()) for departure in verdict.departures],
        "dtype": pair.dtype,
        "differences": _plain(pair.differences),
        "allowed": _plain(pair.allowed),
        "shares": _plain(pair.shares),
        "run_differences": _plain(pair.run_differences),
    }


def _finite(table: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in table.items()}


def _plain(series: ByObservable) -> dict[str, Any]:
    return {
        name: np.where(np.isfinite(values), values.astype(object), np.array(None)).tolist()
        for name, values in series.items()
    }


def compared(
    recordings: Mapping[str, Recording],
    outcomes: Mapping[str, Outcome],
    rounding: Rounding,
    plan: Plan,
    steps: int,
    options: Mapping[str, Any],
) -> Comparison:
    """Put together what backends did.

    Args:
        recordings: Of those that ran, the reference first.
        outcomes: Of all of them.
        rounding: Measured on the reference.
        plan: Of the run.
        steps: How many updates were asked for.
        options: What was asked for.
    """
    reference = next(iter(recordings))
    first = recordings[reference].run
    layout = first.layout
    pairs, untold = [], []
    for one, other in combinations(recordings, 2):
        both = recordings[one], recordings[other]
        runs, apart = judged(*both, rounding), differences(both[0].run, both[1].run)
        untold.append(runs.until)
        tables = {
            what: _by_section(runs, apart, rounding, layout, plan, what) for what in ("apart", "allowed", "share")
        }
        asked = {"loss": apart.losses[:, None], "weights": layout.by_section(apart.weights)}
        verdict = judge(*both, rounding, plan, runs, apart)
        pairs.append(
            Pair(one, other, verdict, runs.one.dtype, tables["apart"], tables["allowed"], tables["share"], asked)
        )
    envelope = rounding.exact or rounding.run
    assert envelope is not None
    made = [run for found in recordings.values() for run in (found.run, found.exact) if run is not None]
    longest = max(made, key=lambda run: run.steps)  # some may have ended early
    always = np.full(len(layout.arrays), longest.steps + 1)
    until = np.min([always, *(each.arrays for each in untold)], axis=0)
    return Comparison(
        reference=reference,
        plan=plan,
        steps=steps,
        outcomes=dict(outcomes),
        observed={name: _observed(found.run, rounding, plan) for name, found in recordings.items()},
        pairs=tuple(pairs),
        sections=layout.sections,
        rows=longest.rows.astype(np.float64),
        uninformative={
            name: _known(int(until[layout.section_of == place].max()), longest.steps)
            for place, name in enumerate(layout.sections)
        },
        cannot_tell={
            array.name: int(step) for array, step in zip(layout.arrays, until, strict=True) if step < longest.steps
        },
        margin=envelope.margin,
        samples=envelope.samples,
        notes=(*_notes(recordings, first), *([_explain_inner_rounding(plan.spec)] if rounding.rounds_inside else [])),
        options=dict(options),
    )


def _explain_inner_rounding(spec: Spec) -> str:
    if has_muon(spec):
        return (
            "Muon rounds to bfloat16 inside, whatever the weights' dtype is, and the order of sums decides how: "
            "float32 judges the runs alone, less sharply; the probes judge each update"
        )
    return (
        "the model rounds to float32 inside although it runs in float64 (as x.float() does): float32 judges alone, "
        "less sharply"
    )


def _known(step: int, steps: int) -> int | None:
    return step if step < steps else None


def _notes(recordings: Mapping[str, Recording], first: Trace) -> Iterator[str]:
    for found in recordings.values():
        yield from found.run.notes
        if found.no_float64:
            yield f"{found.no_float64}; it is judged in {found.run.dtype} alone, less sharply"
    exact = [name for name, found in recordings.items() if found.exact is not None or found.run.dtype == "float64"]
    frameworks = {TABLE[name].framework for name in exact}
    if len(frameworks) > 1:
        yield (
            "In float64 torch's BatchNorm takes eps and momentum as float32 holds them: OneFlow's kernel has them so "
            "(2e-8 apart)"
        )
    if len(first.rows) <= first.steps:
        yield f"weights were compared after {len(first.rows)} of {first.steps} updates, for want of disk space"


def _observed(trace: Trace, rounding: Rounding, plan: Plan) -> Observed:
    return Observed(
        losses=trace.losses,
        rates=trace.rates,
        probed_rates=probed_rates(trace.probes["bare"], rounding.exact_probe, plan),
        grad_norms=trace.grad_norms,
        update_norms=trace.layout.section_norms(trace.update_norms),
        loss_bits=trace.loss_bits,
        ended=trace.ended,
        versions=trace.versions,
        seconds=trace.seconds,
    )


def _by_section(
    runs: Judged,
    asked: Differences,
    rounding: Rounding,
    layout: Layout,
    plan: Plan,
    what: Literal["apart", "allowed", "share"],
) -> dict[str, Float64]:
    """Of each section, the largest difference, what rounding explains, or the largest share of it.

    Args:
        runs: The runs to look at.
        asked: Of the runs that were asked for, which have rates and probes.
        rounding: What rounding explains of these.
        layout: Of the weights.
        plan: Of the run.
        what: Which of the three.
    """

    def part(apart: Float64, allowed: Float64, until: Any = None, steps: Any = None) -> Float64:
        allowed = allowed[: len(apart)]
        if what == "apart":
            return apart
        if what == "allowed":
            return allowed
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(apart == 0, 0.0, apart / allowed)
        if until is not None:
            updates = np.arange(len(share)) if steps is None else steps[: len(share)]
            share[updates[:, None] >= until] = np.nan
        return share

    apart, allowed, until = runs.apart, runs.allowed, runs.until
    update_norms = part(apart.update_norms, allowed.update_norms, until.arrays)
    rows = runs.one.rows - 1
    found = {
        "loss": part(apart.losses[:, None], allowed.losses[:, None], np.array([until.losses])),
        "rate": part(asked.rates, rounding.rates),
        "gradient norm": part(apart.grad_norms, allowed.grad_norms, until.grad_norms),
        "update norm": layout.by_section(update_norms),
        "weights": layout.by_section(part(apart.weights, allowed.weights, until.arrays, rows)),
    }
    probed = probe_parameters(plan, rounding.exact_probe.parameters)
    owners = np.array([plan.group_of[p.name] for p in probed for _ in range(p.elements)])
    for rung, values in asked.probes.items():
        table = part(values[1:], rounding.probes[rung][1:])
        columns = [table[:, owners == group].max(axis=1, initial=0.0) for group in range(len(plan.groups))]
        found[f"probe: {rung}"] = np.stack(columns, axis=1)
    return found
