"""The tables of docs/certificate.md from what was measured: ``python -m benchmarks.certificate.figures``."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.certificate.models import KINDS
from benchmarks.frame.pages import replace_part
from benchmarks.frame.worker import ROOT

RESULTS = Path(__file__).resolve().parents[1] / "results" / "certificate.json"  # the machine and the planted faults
HONEST = RESULTS.with_name("certificate-honest.jsonl")  # a line for each verdict on an honest pair
PAGE = ROOT / "docs" / "certificate.md"
BEGIN, END = "<!-- figures: made by benchmarks.certificate -->", "<!-- end of figures -->"

Rows = Sequence[Mapping[str, Any]]


def read_figures() -> dict[str, Any]:
    """What was measured until now: ``machine`` and ``planted`` where they are known, and ``honest``."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    lines = HONEST.read_text(encoding="utf-8").splitlines() if HONEST.exists() else []
    order = list(KINDS)
    rows = sorted((json.loads(line) for line in lines), key=lambda row: (order.index(row["kind"]), row["seed"]))
    return {**found, "honest": rows}


def upper_bound(failures: int, trials: int, confidence: float = 0.95) -> float:
    """The rate above which so few failures would be seen with a chance of ``1 - confidence`` (Clopper and Pearson).

    Args:
        failures: How many were seen.
        trials: Of how many.
        confidence: Of the bound, one-sided.

    Returns:
        The rate at which ``failures`` or fewer of ``trials`` have the probability ``1 - confidence``.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        seen = math.fsum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(failures + 1))
        low, high = (rate, high) if seen > 1 - confidence else (low, rate)
    return high


def honest_part(rows: Rows) -> str:
    """How often honest backends were called what, by kind of model."""
    judged = [row for row in rows if "verdict" in row]
    refused = [row for row in rows if "error" in row]
    wrong = [row for row in judged if row["verdict"] == "different"]
    bound = upper_bound(len(wrong), len(judged))
    seeds = len({row["seed"] for row in judged})
    lines = [
        f"**{len(judged):,} verdicts on honest pairs, {len(wrong)} of them 'different'**: the rate of false alarms "
        f"is at most {100 * bound:.2g} %, with 95 % confidence. {seeds} seeds, "
        f"{len({row['optimizer'] for row in judged})} optimizers, {len({row['pair'] for row in judged})} pairs of "
        "backends, runs in float32 and in float64.",
        "",
        "| kind of model | same bitwise | within rounding | different |",
        "|---|---|---|---|",
    ]
    for kind in dict.fromkeys(row["kind"] for row in judged):
        said = Counter(row["verdict"] for row in judged if row["kind"] == kind)
        lines.append(f"| {kind} | {said['same bitwise']} | {said['same within rounding']} | {said['different']} |")
    if refused:
        reasons = dict.fromkeys(f"{row['kind']}: {row['error']}" for row in refused)
        lines += ["", f"Refused, and so not counted: {len(refused)}. " + " ".join(reasons)]
    return "\n".join(lines)


def planted_part(rows: Rows) -> str:
    """Which planted faults are found, as what, and from which size on."""
    lines = [
        "| planted in a backend | called | update | group | found from, float32 alone | with float64 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        smallest = [_size(row, row["smallest"][judge]) for judge in ("float32", "float64")]
        called = row["cause"] if row["found"] else f"**missed** ({row['cause']})"
        lines.append(
            f"| {row['fault']} | {called} | {row['step']} | {row['group'] or 'all'} | {smallest[0]} | {smallest[1]} |"
        )
    return "\n".join(lines)


def _size(row: Mapping[str, Any], smallest: float | None) -> str:
    if smallest is None:
        return "not found"
    return f"{smallest:.0e}" if row["has_sizes"] else "found"


def page_part(found: Mapping[str, Any]) -> str:
    """Everything between the page's two marks."""
    about = found["machine"]
    parts = [
        "### Honest backends", honest_part(found.get("honest", [])),
        "### Planted faults", planted_part(found.get("planted", [])),
        f"Measured on {about['processor']}, {about['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".",
    ]  # fmt: skip
    return "\n\n".join(parts)


def renew_page(found: Mapping[str, Any]) -> None:
    """Put the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_part(text, BEGIN, END, page_part(found)), encoding="utf-8")


if __name__ == "__main__":
    renew_page(read_figures())
