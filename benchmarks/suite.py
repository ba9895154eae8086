"""Which benchmarks there are, in the order in which RESULTS.md shows them, and how some of them are run together."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import cast

from benchmarks.frame.command import Benchmark
from benchmarks.frame.worker import ROOT
from layered_lr.errors import SpecError
from layered_lr.files import as_path
from layered_lr.reports.tables import wrapped
from layered_lr.spelling import did_you_mean

MODULES = {
    "backends": "benchmarks.backends",
    "hand_loop": "benchmarks.hand_loop",
    "peers": "benchmarks.peers.race",
    "groups": "benchmarks.groups",
    "data_pipeline": "benchmarks.data_pipeline",
    "folder_pipeline": "benchmarks.folder_pipeline",
    "overhead": "benchmarks.overhead",
    "startup": "benchmarks.startup",
    "growth": "benchmarks.growth",
    "gpu": "benchmarks.gpu",
    "plan_speed": "benchmarks.plan_speed",
    "phases_cost": "benchmarks.phases_cost",
    "checkpoint_cost": "benchmarks.checkpoint_cost",
    "rate_search": "benchmarks.rate_search",
    "mixed_precision": "benchmarks.mixed_precision",
    "scaling": "benchmarks.scaling",
    "faults": "benchmarks.faults",
    "convolutions": "benchmarks.convolutions",
}
"""Where each is."""

MADE_BY_MAKE = tuple(name for name in MODULES if name != "peers")
"""What ``make bench`` runs; ``make bench-peers`` runs the peers, in an environment of their own."""


def load(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        SpecError: There is none.
    """
    check_name(name)
    return cast(Benchmark, importlib.import_module(MODULES[name]).BENCHMARK)


def check_name(name: str) -> None:
    """Raise ``SpecError`` where no benchmark has that name."""
    if name not in MODULES:
        raise SpecError(
            f"bench: there is no benchmark {name!r}.{did_you_mean(name, MODULES)} There are: {', '.join(MODULES)}."
        )


def listed() -> str:
    """Every benchmark, and the question that it answers, in lines that fit the terminal."""
    longest = max(map(len, MODULES)) + 2
    questions = {name: load(name).question + " (make bench-peers)" * (name == "peers") for name in MODULES}
    return "\n".join(wrapped(f"{name:{longest}}{question}", indent=longest) for name, question in questions.items())


def measure(
    names: Sequence[str],
    quick: bool = False,
    rounds: int | None = None,
    out: str | None = None,
    data: str | None = None,
) -> bool:
    """Run benchmarks one after the other, each in a process of its own; whether all did.

    Args:
        names: Which; none is all that ``make bench`` runs.
        quick: Tiny sizes.
        rounds: None for each one's own.
        out: Folder for what is written.
        data: An .npz of real images.

    Raises:
        SpecError: A name is unknown.
    """
    for name in names:
        check_name(name)
    words = ["--quick"] * quick
    for option, value in (("--rounds", rounds), ("--out", out), ("--data", data)):
        if value is not None:
            words += [option, str(value) if option == "--rounds" else str(as_path(option, value).absolute())]
    paths = [str(ROOT), str(ROOT / "backends"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    failed = []
    for name in names or MADE_BY_MAKE:
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *words]
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            failed.append(name)
        print(f"{name}: {time.monotonic() - began:.0f} s\n", file=sys.stderr, flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr, flush=True)
    return not failed
