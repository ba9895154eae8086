"""What ``python -m benchmarks.NAME`` does: measure, print, write ``results/NAME.json`` and the picture."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from benchmarks.frame.images import DATA_VARIABLE
from benchmarks.frame.machine import machine, versions
from benchmarks.frame.pictures import draw
from benchmarks.frame.report import Report, is_report
from benchmarks.frame.tables import text
from layered_lr.errors import SpecError
from layered_lr.files import as_path
from layered_lr.outputs import check_output

RESULTS = Path(__file__).resolve().parents[1] / "results"


class Benchmark(Protocol):
    """One question, and how it is measured."""

    name: str
    question: str
    rounds: int
    """Where nobody says how many."""

    def run(self, rounds: int, quick: bool) -> Report:
        """Measure.

        Args:
            rounds: Of each opponent, after a warm-up.
            quick: Tiny sizes: everything runs, the figures mean nothing.
        """


@dataclass(frozen=True)
class Asked:
    """How a benchmark is to run.

    Args:
        rounds: None for the benchmark's own number.
        quick: Tiny sizes and one round; nothing is written unless ``out`` says where.
        out: Folder for the JSON and the picture; None is ``benchmarks/results``.
    """

    rounds: int | None = None
    quick: bool = False
    out: Path | None = None


def measured(benchmark: Benchmark, asked: Asked) -> Report:
    """The report of one run, with what it was taken on."""
    rounds = asked.rounds or (1 if asked.quick else benchmark.rounds)
    before, began = machine(), time.perf_counter()
    report = benchmark.run(rounds, asked.quick)
    words = ["python", "-m", f"benchmarks.{benchmark.name}", "--rounds", str(rounds), *["--quick"] * asked.quick]
    about = {
        "command": " ".join(words),
        "rounds": rounds,
        "quick": asked.quick,
        "seconds": round(time.perf_counter() - began, 1),
        "machine": before,
        "versions": {**versions(), **report.about.get("versions", {})},
    }
    return replace(report, about={**report.about, **about})


def written(report: Report, asked: Asked) -> list[Path]:
    """Write a report where it belongs; the files."""
    if asked.quick and asked.out is None:
        return []
    folder = asked.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{report.name}.json"]
    if report.skipped and is_report(files[0]) and not Report.read(files[0]).skipped:
        return []  # what was measured on a machine that can stays
    report.write(files[0])
    picture = folder / f"{report.name}.svg"
    if draw(report, picture):
        files.append(picture)
    return files


def perform(benchmark: Benchmark, asked: Asked) -> Report:
    """Measure, print and write."""
    report = measured(benchmark, asked)
    print(text(report), flush=True)
    files = written(report, asked)
    if files:
        print("written: " + ", ".join(os.path.relpath(file) for file in files), flush=True)
    return report


def main(benchmark: Benchmark, arguments: list[str] | None = None) -> None:
    """The command of one benchmark."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark.name}", description=benchmark.question)
    parser.add_argument("--rounds", type=_rounds, help=f"of each opponent, after a warm-up  [{benchmark.rounds}]")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: see that it works; figures mean nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the JSON and the picture  [benchmarks/results]")
    parser.add_argument("--data", metavar="FILE", help="an .npz of real images, where a benchmark trains on some")
    given = parser.parse_args(arguments)
    given.out = None if given.out is None else as_path("--out", given.out)
    if given.data:
        if not os.path.isfile(given.data):
            parser.error(f"--data {given.data}: there is no such file; give an .npz of real images, or leave it out")
        os.environ[DATA_VARIABLE] = given.data
    if given.out:
        try:
            given.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out {given.out}: must be a folder that can be written to ({error.strerror})")
        _refuse_others(parser, given.out, benchmark.name)
    perform(benchmark, Asked(given.rounds, given.quick, given.out))


def _refuse_others(parser: argparse.ArgumentParser, out: Path, name: str) -> None:
    """End with a word where the files to write are there, and are not those of a benchmark."""
    report, picture = out / f"{name}.json", out / f"{name}.svg"
    try:
        check_output("--out", report, is_ours=is_report)
        check_output("--out", picture, is_ours=lambda _: is_report(report))
    except SpecError as error:
        parser.error(str(error))


def say(message: str) -> None:
    """How far a benchmark is, on stderr."""
    print(f"  {message}", file=sys.stderr, flush=True)


def _rounds(given: str) -> int:
    if not given.isdigit() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is no whole number of rounds from 1 on")
    return int(given)
