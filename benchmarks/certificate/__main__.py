"""``python -m benchmarks.certificate [--seeds 20] [--only honest|planted]``: measure, and renew the figures in docs/.

Twenty seeds take two to five hours on two cores; four take one, and give more than a thousand verdicts. Each seed is
written down when it is done, and a second start goes on with those that are missing (``--anew`` forgets them all).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product

import click

from benchmarks.certificate.figures import HONEST, RESULTS, read_figures, renew_page
from benchmarks.certificate.honest import OPTIMIZERS, run_kind
from benchmarks.certificate.models import KINDS
from benchmarks.certificate.planted import FAULTS, row_of
from benchmarks.frame.machine import machine, versions

_SEEDS_AT_ONCE = 4  # of one kind, in one process


@click.command()
@click.option("--seeds", default=20, show_default=True, help="Of each kind of model and optimizer.")
@click.option("--big-seeds", default=20, show_default=True, help="The same for MobileNetV2.")
@click.option("--compile-seeds", default=1, show_default=True, help="How many of them torch-compile takes part in.")
@click.option("--processes", default=2, show_default=True, help="How many at once.")
@click.option("--only", type=click.Choice(["honest", "planted"]), help="Leave the other part as it is.")
@click.option("--anew", is_flag=True, help="Forget the honest runs that are written down.")
def main(seeds: int, big_seeds: int, compile_seeds: int, processes: int, only: str | None, anew: bool) -> None:
    """Measure how often the certificate is wrong, and renew docs/certificate.md."""
    found = read_figures()
    if anew or found.get("machine", {}).get("versions") != versions():
        HONEST.unlink(missing_ok=True)
    found["machine"] = {**machine(), "versions": versions()}
    if only != "honest":
        found["planted"] = []
        for fault in FAULTS:
            found["planted"].append(row_of(fault))
            click.echo(f"{fault.name}: {'found' if found['planted'][-1]['found'] else 'NOT FOUND'}")
    RESULTS.write_text(
        json.dumps({part: found[part] for part in ("machine", "planted") if part in found}, indent=1) + "\n"
    )
    if only != "planted":
        _go_through_honest(seeds, big_seeds, compile_seeds, processes)
    found = read_figures()
    renew_page(found)
    wrong = [row for row in found["honest"] if row.get("verdict") == "different" or "error" in row]
    missed = [row for row in found.get("planted", []) if not row["found"]]
    sys.exit(1 if wrong or missed else 0)


def _go_through_honest(seeds: int, big_seeds: int, compile_seeds: int, processes: int) -> None:
    """Run what is missing, the first seeds of every kind before the next ones, and write each row down."""
    known = {(row["kind"], row["optimizer"], row["seed"]) for row in read_figures()["honest"]}
    with ThreadPoolExecutor(processes) as pool:
        runs = {}
        for first, optimizer, kind in product(range(1, seeds + 1, _SEEDS_AT_ONCE), OPTIMIZERS, KINDS):
            last = min(first + _SEEDS_AT_ONCE - 1, big_seeds if KINDS[kind] is None else seeds)
            missing = [seed for seed in range(first, last + 1) if (kind, optimizer, seed) not in known]
            if missing:
                runs[pool.submit(run_kind, kind, optimizer, missing, compile_seeds)] = f"{kind}, {optimizer}"
        for run in as_completed(runs):
            rows, crashes = run.result()
            with HONEST.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
            different = Counter(row.get("verdict") for row in rows)["different"]
            click.echo(f"{runs[run]}: {len(rows)} verdicts, {different} different, {crashes} crashes")


if __name__ == "__main__":
    main()
