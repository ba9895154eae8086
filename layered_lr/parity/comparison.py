"""What a comparison found, as data: verdicts, rates, differences, and what rounding explains of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.files import check_output, write_whole
from layered_lr.parity.envelope import Envelope
from layered_lr.parity.findings import ByObservable, Observed, Pair
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.probe import probe_parameters, probed_rates
from layered_lr.parity.state_vector import Layout
from layered_lr.parity.trace import Differences, Trace, differences
from layered_lr.parity.verdict import judge, uninformative_from
from layered_lr.plans.plan import Plan


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
        allowed: What rounding explains, as ``Pair.differences``; the largest of a section.
        sections: The groups that have parameters, ``buffers`` and ``moving average`` where there are any.
        rows: After how many updates the weights were compared.
        uninformative: For each section, the step from which on rounding alone may move it as far as an update does, so
            that the run cannot tell anything of it any more (rates and probes still do); None where it always can.
        margin: By how many last bits samples were disturbed to measure the envelope.
        samples: How many there were.
        notes: What a reader should know.
        options: What was asked for beside the spec, where it can be written down.
    """

    reference: str
    plan: Plan
    steps: int
    outcomes: dict[str, Outcome]
    observed: dict[str, Observed] = field(repr=False)
    pairs: tuple[Pair, ...]
    allowed: ByObservable = field(repr=False)
    sections: tuple[str, ...]
    rows: Float64 = field(repr=False)
    uninformative: dict[str, int | None]
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
            "allowed": _plain(self.allowed),
            "uninformative_from": self.uninformative,
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
            write_whole(check_output("path", path), [text.encode()])
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
        "differences": _plain(pair.differences),
        "shares": _plain(pair.shares),
    }


def _finite(table: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in table.items()}


def _plain(series: ByObservable) -> dict[str, Any]:
    return {
        name: np.where(np.isfinite(values), values.astype(object), np.array(None)).tolist()
        for name, values in series.items()
    }


def compared(
    traces: Mapping[str, Trace],
    outcomes: Mapping[str, Outcome],
    envelope: Envelope,
    plan: Plan,
    steps: int,
    options: Mapping[str, Any],
) -> Comparison:
    """Put together what backends did.

    Args:
        traces: Of those that ran, the reference first.
        outcomes: Of all of them.
        envelope: Measured on the reference.
        plan: Of the run.
        steps: How many updates were asked for.
        options: What was asked for.
    """
    reference = next(iter(traces))
    layout, first = traces[reference].layout, traces[reference]
    pairs = []
    for one, other in combinations(traces, 2):
        apart = differences(traces[one], traces[other])
        verdict = judge(traces[one], traces[other], envelope, plan, apart)
        shares = _by_section(apart, layout, plan, envelope)
        pairs.append(Pair(one, other, verdict, _by_section(apart, layout, plan), shares))
    notes = [note for trace in traces.values() for note in trace.notes]
    if not envelope.float64 and first.dtype == "float32":
        notes.append(f"{reference} does not run this in float64: the envelope is made of disturbed runs only")
    if len(first.rows) <= first.steps:
        notes.append(f"weights were compared after {len(first.rows)} of {first.steps} updates, for want of disk space")
    return Comparison(
        reference=reference,
        plan=plan,
        steps=steps,
        outcomes=dict(outcomes),
        observed={name: _observed(trace, envelope, plan) for name, trace in traces.items()},
        pairs=tuple(pairs),
        allowed=_by_section(envelope, layout, plan),
        sections=layout.sections,
        rows=first.rows.astype(np.float64),
        uninformative=uninformative_from(first, envelope),
        margin=envelope.margin,
        samples=envelope.samples,
        notes=tuple(notes),
        options=dict(options),
    )


def _observed(trace: Trace, envelope: Envelope, plan: Plan) -> Observed:
    bare = trace.probes["bare"]
    return Observed(
        losses=trace.losses,
        rates=trace.rates,
        probed_rates=probed_rates(bare, envelope.exact, plan),
        grad_norms=trace.grad_norms,
        update_norms=trace.update_norms,
        loss_bits=trace.loss_bits,
        ended=trace.ended,
        versions=trace.versions,
        seconds=trace.seconds,
    )


def _by_section(
    values: Differences | Envelope, layout: Layout, plan: Plan, allowed: Envelope | None = None
) -> dict[str, Float64]:
    """The largest value of each section; with ``allowed``, the largest part of it."""

    def part(name: str, rung: str | None = None) -> Float64:
        found, limit = (_series(each, name, rung) for each in (values, allowed or values))
        if allowed is None:
            return found
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(found == 0, 0.0, found / limit[: len(found)])

    owners = np.array([plan.group_of[p.name] for p in probe_parameters(plan) for _ in range(p.elements)])
    found = {
        "loss": part("losses")[:, None],
        "rate": part("rates"),
        "gradient norm": part("grad_norms"),
        "update norm": part("update_norms"),
        "weights": layout.by_section(part("weights")),
    }
    for rung in values.probes:
        table = part("probes", rung)
        columns = [table[:, owners == group].max(axis=1, initial=0.0) for group in range(len(plan.groups))]
        found[f"probe: {rung}"] = np.stack(columns, axis=1)
    return found


def _series(values: Differences | Envelope, name: str, rung: str | None) -> Float64:
    found: Float64 = getattr(values, name) if rung is None else values.probes[rung][1:]
    return found
