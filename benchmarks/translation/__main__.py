"""Measures how far translated models are from torch, and writes the table in ``docs/translation.md``.

    python -m benchmarks.translation [NAME ...]

Each model is in a process of its own. Its row is appended to ``benchmarks/translation/rows.jsonl`` as soon as it is
known. Without names the classifiers of torchvision that have no row yet are measured, one of each family first; with
names these, anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from benchmarks.frame.pages import replace_part
from benchmarks.translation.zoo import list_zoo

ROWS = Path(__file__).with_name("rows.jsonl")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "translation.md"
BEGIN, END = "<!-- models: made by benchmarks.translation -->", "<!-- end of models -->"
HEAD = (
    "model",
    "image",
    "parameters",
    "eager: answers",
    "gradients",
    "graph: answers",
    "gradients",
    "torch itself",
    "float32, eager",
    "graph",
    "20 updates, eager",
    "graph",
    "certificate",
    "tracing, s of a processor",
)
TIMEOUT_SECONDS = 1800
BACKENDS = ("oneflow-eager", "oneflow-graph")


def read_rows() -> dict[str, dict[str, Any]]:
    """The newest row of each model, in the order in which they were first measured."""
    if not ROWS.exists():
        return {}
    rows = map(json.loads, ROWS.read_text(encoding="utf-8").splitlines())
    return {row["model"]: row for row in rows}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Make the table of all rows that are known."""
    return tabulate(list(map(_cells, rows.values())), HEAD, tablefmt="github", disable_numparse=True)


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["model"], row["error"], *[""] * (len(HEAD) - 2)]
    cells = [row["model"], f"{row['pixels']} x {row['pixels']}", f"{row['parameters'] / 1e6:.1f} M"]
    for backend in BACKENDS:
        cells += [_worst(row["float64"][backend], kind) for kind in ("answers", "gradients")]
    cells.append(_worst(row["itself"], "gradients") if "itself" in row else "–")
    cells += [f"{max(row['float32'][backend].values()):.1f}" for backend in BACKENDS]
    cells += [_short(row["updates"][backend]) if row["updates"] else "–" for backend in BACKENDS]
    return [*cells, row.get("verdict", "–"), f"{row['seconds'] / 2:.1f}"]


def _worst(distances: dict[str, float], kind: str) -> str:
    return _short(max(value for name, value in distances.items() if name.endswith(kind)))


def _short(distance: float) -> str:
    return f"{distance:.0e}" if distance else "0"


def write_page(rows: dict[str, dict[str, Any]]) -> None:
    """Write the table into the page, between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_part(text, BEGIN, END, f"\n{table(rows)}\n"), encoding="utf-8")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--one", help="Measure this model in this process, and print its row alone.")
def main(names: tuple[str, ...], one: str | None) -> None:
    """Measure the models of torchvision that are named, or those that have no row."""
    known_names = list_zoo()
    for name in (*names, *([one] if one else [])):
        if name not in known_names:
            raise click.BadParameter(f"torchvision has no classifier {name!r} of this size.")
    if one:
        from benchmarks.translation.matrix import measure

        print(json.dumps(measure(one)))
        return
    known = read_rows()
    for name in names or [name for name in known_names if "error" in known.get(name, {"error": "missing"})]:
        row = _measure_apart(name)
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(_cells(row), flush=True)
        write_page(read_rows())


def _measure_apart(name: str) -> dict[str, Any]:
    """Measure a model in a process of its own; one that dies or says no costs its own row alone."""
    command = [sys.executable, "-m", "benchmarks.translation", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return {"model": name, "error": f"took longer than {TIMEOUT_SECONDS} s"}
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        return {"model": name, "error": last or f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
