"""Which benchmarks there are, in the order in which RESULTS.md shows them."""

from __future__ import annotations

import importlib
from typing import cast

from benchmarks.frame.command import Benchmark

MODULES = {
    "backends": "benchmarks.backends",
    "hand_loop": "benchmarks.hand_loop",
    "peers": "benchmarks.peers.race",
    "groups": "benchmarks.groups",
    "data_pipeline": "benchmarks.data_pipeline",
    "overhead": "benchmarks.overhead",
    "startup": "benchmarks.startup",
    "growth": "benchmarks.growth",
    "gpu": "benchmarks.gpu",
    "plan_speed": "benchmarks.plan_speed",
    "phases_cost": "benchmarks.phases_cost",
    "checkpoint_cost": "benchmarks.checkpoint_cost",
    "faults": "benchmarks.faults",
}
"""Where each is."""

MADE_BY_MAKE = tuple(name for name in MODULES if name != "peers")
"""What ``make bench`` runs; ``make bench-peers`` runs the peers, in an environment of their own."""


def load(name: str) -> Benchmark:
    """The benchmark of that name."""
    return cast(Benchmark, importlib.import_module(MODULES[name]).BENCHMARK)
