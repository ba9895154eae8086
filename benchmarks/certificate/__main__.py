"""``python -m benchmarks.certificate [--seeds 20] [--only honest|planted]``: measure, and renew the figures in docs/.

Twenty seeds take some five hours on two cores; four take one, and give more than a thousand verdicts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import click

from benchmarks.certificate.figures import RESULTS, renew_page
from benchmarks.certificate.honest import OPTIMIZERS, run_kind
from benchmarks.certificate.models import KINDS
from benchmarks.certificate.planted import FAULTS, row_of
from benchmarks.frame.machine import machine, versions


@click.command()
@click.option("--seeds", default=20, show_default=True, help="Of each kind of model and optimizer.")
@click.option("--big-seeds", default=1, show_default=True, help="The same for MobileNetV2.")
@click.option("--compile-seeds", default=1, show_default=True, help="How many of them torch-compile takes part in.")
@click.option("--processes", default=2, show_default=True, help="How many at once.")
@click.option("--only", type=click.Choice(["honest", "planted"]), help="Leave the other part as it is.")
def main(seeds: int, big_seeds: int, compile_seeds: int, processes: int, only: str | None) -> None:
    """Measure how often the certificate is wrong, and renew docs/certificate.md."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found["machine"] = {**machine(), "versions": versions()}
    if only != "planted":
        found["honest"] = list(_honest(seeds, big_seeds, compile_seeds, processes))
    if only != "honest":
        found["planted"] = []
        for fault in FAULTS:
            found["planted"].append(row_of(fault))
            click.echo(f"{fault.name}: {'found' if found['planted'][-1]['found'] else 'NOT FOUND'}")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    renew_page(found)
    wrong = [row for row in found.get("honest", []) if row.get("verdict") == "different" or "error" in row]
    missed = [row for row in found.get("planted", []) if not row["found"]]
    sys.exit(1 if wrong or missed else 0)


def _honest(seeds: int, big_seeds: int, compile_seeds: int, processes: int) -> Iterator[dict[str, Any]]:
    cases = list(product(OPTIMIZERS, KINDS))
    with ThreadPoolExecutor(processes) as pool:
        runs = [
            pool.submit(run_kind, kind, optimizer, seeds if KINDS[kind] else big_seeds, compile_seeds)
            for optimizer, kind in cases
        ]
        for (optimizer, kind), run in zip(cases, runs, strict=True):
            rows, crashes = run.result()
            different = [row for row in rows if row.get("verdict") == "different"]
            click.echo(f"{kind}, {optimizer}: {len(rows)} verdicts, {len(different)} different, {crashes} crashes")
            yield from rows


if __name__ == "__main__":
    main()
