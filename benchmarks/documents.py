"""RESULTS.md and the tables in README.md and in pages of docs/, from JSON: ``python -m benchmarks.documents``."""

from __future__ import annotations

from pathlib import Path

from benchmarks.frame.command import RESULTS
from benchmarks.frame.pages import replace_part
from benchmarks.frame.report import Report
from benchmarks.frame.tables import markdown, pivot, targets
from benchmarks.frame.worker import ROOT
from benchmarks.suite import MODULES

MEASURED, README, PAGE = ROOT / "docs" / "measured.md", ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md"
TRANSLATION = ROOT / "docs" / "translation.md"
BEGIN, END = "<!-- benchmarks: made by benchmarks.documents -->", "<!-- end of benchmarks -->"

# What README shows of the figures that have a target.
IN_SHORT = (
    "ll.run, torch-eager / torch by hand, time of an epoch",
    "ll.run, oneflow-graph / oneflow-graph by hand, time of an epoch",
    "ll.run, torch-eager / tutorial loop, time of an epoch",
    "ll.run, torch-eager / Lightning, time of an epoch",
    "ll.run minus bare loop, overhead of a step",
    "SGD, a group per parameter, step / SGD, 1 group, step, whole step",
    "torch-eager, resumed bitwise, of 10",
    "oneflow-graph, resumed bitwise, of 10",
)

_HEAD = """# Results

Made by `make bench` (the peers by `make bench-peers`) from the files in `results/`: each has every round. Every figure
is the median of rounds in which the opponents took turns, after a warm-up where nothing else is said; a ratio is that
of one round, and where the rounds lie on both sides of 1 it is called no difference. Targets stand beside, reached or
not."""


def reports(folder: Path = RESULTS) -> list[Report]:
    """What was measured, in the order of the suite."""
    return [Report.read(folder / f"{name}.json") for name in MODULES if (folder / f"{name}.json").exists()]


def results_text(found: list[Report]) -> str:
    """RESULTS.md."""
    return "\n\n".join([_HEAD, *map(markdown, found)]) + "\n"


def measured_part(found: list[Report]) -> str:
    """The tables of docs/measured.md: the backends side by side, and every figure that has a target."""
    measured = [report for report in found if not report.skipped]
    if not measured:
        return "Nothing is measured yet: `make bench`."
    parts = [pivot(report) for report in measured if report.name == "backends"]
    if targets(measured):
        parts.append(targets(measured))
    return "\n\n".join(parts)


def short_part(found: list[Report]) -> str:
    """README's table: a few of the figures that have a target."""
    table = targets([report for report in found if not report.skipped]).splitlines()
    return "\n".join([*table[:2], *(row for row in table[2:] if row.split("|")[2].strip() in IN_SHORT)])


def speed_part(found: list[Report]) -> str:
    """The table of docs/translation.md: convolutions and models, each with every opponent."""
    parts = [pivot(report) for report in found if report.name == "convolutions" and not report.skipped]
    return "\n\n".join(parts) or "Nothing is measured yet: `make bench`."


def renewed(text: str, part: str) -> str:
    """A page's text with its tables of benchmarks made anew."""
    return replace_part(text, BEGIN, END, part)


def renew() -> None:
    """All files."""
    found = reports()
    PAGE.write_text(results_text(found), encoding="utf-8")
    parts = ((MEASURED, measured_part(found)), (README, short_part(found)), (TRANSLATION, speed_part(found)))
    for page, part in parts:
        page.write_text(renewed(page.read_text(encoding="utf-8"), part), encoding="utf-8")


if __name__ == "__main__":
    renew()
