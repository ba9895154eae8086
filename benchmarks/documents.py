"""RESULTS.md and the tables of docs/measured.md, made of the JSON files alone: ``python -m benchmarks.documents`` renews both."""

from __future__ import annotations

from pathlib import Path

from benchmarks.frame.command import RESULTS
from benchmarks.frame.report import Report
from benchmarks.frame.tables import markdown, pivot, targets
from benchmarks.frame.worker import ROOT
from benchmarks.suite import MODULES

MEASURED, PAGE = ROOT / "docs" / "measured.md", ROOT / "benchmarks" / "RESULTS.md"
BEGIN, END = "<!-- benchmarks: made by benchmarks.documents -->", "<!-- end of benchmarks -->"

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


def renewed(text: str, found: list[Report]) -> str:
    """A page's text with its tables of benchmarks made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{measured_part(found)}\n{END}{rest.split(END)[1]}"


def renew() -> None:
    """Both files."""
    found = reports()
    PAGE.write_text(results_text(found), encoding="utf-8")
    MEASURED.write_text(renewed(MEASURED.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    renew()
