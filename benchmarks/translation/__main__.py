"""Measures how far translated models are from torch, and writes the table in ``docs/translation.md``.

    python -m benchmarks.translation [NAME ...]

Each model is in a process of its own. Its row is kept in ``benchmarks/translation/rows.json`` as soon as it is known.
Without names all models of the zoo are measured: about half an hour on two quiet cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

from benchmarks.frame.pages import replace_part
from benchmarks.translation.zoo import ZOO, make

ROWS = Path(__file__).with_name("rows.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "translation.md"
BEGIN, END = "<!-- models: made by benchmarks.translation -->", "<!-- end of models -->"
HEAD = ("model", "image", "parameters", "answers", "gradients", "buffers", "graph from eager", "translating, s")


def measure(name: str) -> dict[str, float]:
    """Measure one model, in this process."""
    import numpy as np

    from benchmarks.translation.differences import compare
    from layered_lr_torch.trace_model import trace_model

    size = ZOO[name]
    shape = (size.images, 3, size.pixels, size.pixels)
    model = make(name)
    began = time.perf_counter()
    trace_model(model, (np.zeros(shape, "float32"),))
    seconds = time.perf_counter() - began
    found = compare(lambda: make(name), shape)
    return {
        **found._asdict(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": seconds,
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Make the table of all rows that are known."""
    cells = []
    for name, size in ZOO.items():
        if name in rows:
            row = rows[name]
            numbers = [f"{row[key]:.0e}" if row[key] else "0" for key in ("answers", "gradients", "buffers", "graph")]
            millions = f"{row['parameters'] / 1e6:.1f} M"
            cells.append((name, f"{size.pixels} x {size.pixels}", millions, *numbers, f"{row['seconds']:.1f}"))
    return tabulate(cells, HEAD, tablefmt="github", disable_numparse=True)


def write_page(rows: dict[str, dict[str, float]]) -> None:
    """Write the table into the page, between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_part(text, BEGIN, END, f"\n{table(rows)}\n"), encoding="utf-8")


def main(words: list[str]) -> None:
    """Measure the models that are named, or all of them."""
    if words[:1] == ["--one"]:
        print(json.dumps(measure(words[1])))
        return
    rows = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {}
    for name in words or ZOO:
        command = [sys.executable, "-m", "benchmarks.translation", "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: exit code {done.returncode}: {done.stderr[-500:]}", flush=True)
            continue
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, rows[name], flush=True)
        ROWS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        write_page(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
