"""A comparison as text and as one HTML file: tables first, pictures under them."""

from __future__ import annotations

import html
from collections.abc import Iterator
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from layered_lr.arrays import Float64
from layered_lr.errors import LayeredLRError
from layered_lr.parity.findings import Found, Pair


class Part(NamedTuple):
    """A table with what it shows.

    Args:
        title: Of the table.
        headers: Of its columns.
        rows: Texts.
        below: What its words mean.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    below: str = ""


def comparison_text(found: Found) -> str:
    """Verdicts, rates and differences as tables of text."""
    blocks = [_headline(found)]
    for part in _parts(found, worst_only=True):
        table = tabulate(part.rows, part.headers, disable_numparse=True)
        blocks.append("\n".join(filter(None, [f"{part.title}:", table, part.below])))
    return "\n\n".join([*blocks, *_remarks(found)])


def _headline(found: Found) -> str:
    kind = type(found.plan.spec.optimizer).__name__
    ran = "all the same" if found.same else "not all the same"
    names = ", ".join(found.outcomes)
    return f"{names}: {ran} over {found.steps} updates of {kind}, {found.options.get('dtype', 'float32')}"


def _parts(found: Found, worst_only: bool = False) -> Iterator[Part]:
    """The tables; of the differences only the section of the largest share, or all of them."""
    yield Part(
        "Verdicts",
        ["backends", "verdict", "cause", "since update", "group", "why"],
        [_verdict_row(pair) for pair in found.pairs],
    )
    yield Part(
        "Rates",
        [
            "group",
            "backend",
            "read off the framework",
            "largest difference",
            "probed off the weights",
            "largest difference",
        ],
        list(_rate_rows(found)),
        f"differences are relative, to the rates of {found.reference}; "
        "what is probed is as exact as float32 weights show it",
    )
    yield Part(
        "Differences",
        ["backends", "what", "of", "largest", "rounding explains", "share"],
        list(_difference_rows(found, worst_only)),
        "share: the largest part of what rounding explains that was needed at any update; more than 1 is a difference",
    )


def _verdict_row(pair: Pair) -> list[str]:
    verdict = pair.verdict
    first = verdict.first
    since = "" if first is None else str(first.step)
    return [pair.name, verdict.kind, verdict.cause or "", since, (first and first.group) or "", verdict.explanation]


def _rate_rows(found: Found) -> Iterator[list[str]]:
    due = found.observed[found.reference].rates
    for index, group in enumerate(found.plan.groups):
        for name, seen in found.observed.items():
            read, probed = seen.rates[:, index], seen.probed_rates[:, index]
            row = [group.name, name, _span(read), _off(read, due[:, index]), _span(probed), _off(probed, due[:, index])]
            yield row if group.parameters else [*row[:4], "no parameters", ""]


def _off(rates: Float64, due: Float64) -> str:
    steps = min(len(rates), len(due))
    rates, due = rates[:steps], due[:steps]
    known = np.isfinite(rates) & (due > 0)
    return f"{np.max(np.abs(rates[known] / due[known] - 1)):.1e}" if known.any() else ""


def _span(rates: Float64) -> str:
    known = rates[np.isfinite(rates)]
    return f"{known[0]:.6g} → {known[-1]:.6g}" if len(known) else "unknown"


def _difference_rows(found: Found, worst_only: bool) -> Iterator[list[str]]:
    groups = tuple(group.name for group in found.plan.groups)
    owners = {"loss": ("",), "update norm": found.sections, "weights": found.sections}
    for pair in found.pairs:
        for what, values in pair.differences.items():
            shares = pair.shares[what]
            if not shares.size or np.isnan(shares).all():
                continue
            worst = np.fmax.reduce(shares, axis=0)
            allowed = found.allowed[what][: len(values)]
            for column in [int(np.nanargmax(worst))] if worst_only else range(len(worst)):
                largest, explained = np.nanmax(values[:, column]), np.nanmax(allowed[:, column])
                owner = owners.get(what, groups)[column]
                yield [pair.name, what, owner, f"{largest:.1e}", f"{explained:.1e}", _share(float(worst[column]))]


def _share(share: float) -> str:
    return "0" if share == 0 else f"{share:.2g}" if share < 1000 else f"{share:.1e}"


def _remarks(found: Found) -> list[str]:
    remarks = [str(outcome) for outcome in found.outcomes.values() if outcome.status != "ran"]
    remarks += [f"{name} ended early: {seen.ended}" for name, seen in found.observed.items() if seen.ended]
    for section, step in found.uninformative.items():
        if step is not None:
            remarks.append(
                f"{section}: the run itself is no longer informative from update {step} on, where rounding alone may "
                "move weights as far as an update does; rates and probes still are"
            )
    remarks += found.notes
    remarks.append(
        f"what rounding explains was measured on {found.reference}: {found.samples} runs disturbed by "
        f"{found.margin:.1f} times the last bits that are lost anyhow, and one in float64"
    )
    return remarks


def html_text(found: Found) -> str:
    """One file with everything in it: tables, and pictures where matplotlib is installed."""
    title = html.escape(_headline(found))
    _, rates, differences = _parts(found, worst_only=True)  # the verdicts are a list here
    *_, all_differences = _parts(found)
    remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in _remarks(found))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Do backends train alike?</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_style()}</style></head>\n<body><h1>{title}</h1>\n{_verdict_list(found)}\n"
        f"{_heading(rates)}{_table(rates)}{_below(rates)}\n"
        f"{_heading(differences)}{_by_first(differences)}{_below(differences)}\n"
        f"<details><summary>Of every group</summary>{_by_first(all_differences)}</details>\n"
        f"<h2>Pictures</h2>\n{_pictures(found)}\n<h2>Remarks</h2>\n<ul>{remarks}</ul>\n{_made_with(found)}"
        "</body></html>\n"
    )


def _style() -> str:
    return files("layered_lr.reports").joinpath("page.css").read_text()


def _verdict_list(found: Found) -> str:
    items = []
    for pair in found.pairs:
        verdict = pair.verdict
        tone = "bad" if verdict.kind == "different" else "good"
        since = "" if verdict.first is None else f", seen at update {verdict.first.step}"
        cause = "" if verdict.cause is None else f" – {verdict.cause}{since}"
        items.append((tone, f"{pair.name}: {verdict.kind}{cause}", verdict.explanation))
    for outcome in found.outcomes.values():
        if outcome.status != "ran":
            items.append(("bad", f"{outcome.backend}: no verdict", str(outcome)))
    return (
        '<ul class="verdicts">'
        + "".join(
            f'<li class="{tone}"><b>{html.escape(head)}</b>{html.escape(text)}</li>' for tone, head, text in items
        )
        + "</ul>"
    )


def _heading(part: Part) -> str:
    return f"<h2>{html.escape(part.title)}</h2>"


def _table(part: Part) -> str:
    return f'<div class="wide">{tabulate(part.rows, part.headers, "html", disable_numparse=True)}</div>'


def _below(part: Part) -> str:
    return f'<p class="soft">{html.escape(part.below)}</p>' if part.below else ""


def _by_first(part: Part) -> str:
    """A table under each value of the first column, which is then left out: narrow enough for a phone."""
    tables = []
    for value, rows in groupby(part.rows, key=itemgetter(0)):
        narrow = part._replace(headers=part.headers[1:], rows=[row[1:] for row in rows])
        tables.append(f"<h3>{html.escape(value)}</h3>{_table(narrow)}")
    return "".join(tables)


def _pictures(found: Found) -> str:
    from layered_lr.parity.pictures import pictures

    try:
        drawn = pictures(found)
    except LayeredLRError as error:
        return f"<p>No pictures: {html.escape(str(error))}.</p>"
    return f'<div class="pictures">{"".join(f"<figure>{svg}</figure>" for svg in drawn)}</div>'


def _made_with(found: Found) -> str:
    versions: dict[str, Any] = {}
    for seen in found.observed.values():
        versions |= seen.versions
    options = ", ".join(f"{name}={value}" for name, value in found.options.items() if value not in (None, [], ()))
    spec = html.escape(_spec_text(found))
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f'<h2>Made with</h2><p class="soft">{html.escape(packages)}; {html.escape(options)}</p><pre>{spec}</pre>\n'


def _spec_text(found: Found) -> str:
    try:
        return found.plan.spec.to_toml()
    except LayeredLRError:  # a function in it cannot be written down
        return str(found.plan.spec)
