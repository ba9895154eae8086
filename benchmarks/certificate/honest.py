"""Honest backends, held against each other: how often is a pair called different?

Each process takes one kind of model and one optimizer, and goes through its seeds. A seed is a comparison of all
backends in the precision of a user's run (float32) and one in float64, so six pairs each, or three without
torch-compile, which takes long to compile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

import layered_lr as ll
from benchmarks.certificate.models import CHANNELS, CLASSES, KINDS, PIXELS, builder
from benchmarks.frame.worker import ROOT
from layered_lr.backend.loading import load_backend
from layered_lr.errors import LayeredLRError
from layered_lr.parity.recorder import prepare_task
from layered_lr.parity.recording import Recording, record_fully
from layered_lr.parity.rounding import measure_rounding
from layered_lr.parity.task import Task
from layered_lr.parity.verdict import judge
from layered_lr.registry import TABLE
from layered_lr.training.grouped_options import Precision
from layered_lr.training.options import RunOptions

BACKENDS = ("torch-eager", "oneflow-eager", "oneflow-graph")
STEPS, BIG_STEPS = 12, 3
_MOST_CRASHES = 5

OPTIMIZERS: dict[str, ll.Optimizer] = {
    "SGD": ll.SGD(0.03, momentum=0.9, weight_decay=1e-4),
    "AdamW": ll.AdamW(3e-3, weight_decay=0.05),
    "RMSprop": ll.RMSprop(1e-3),
    "Lion": ll.Lion(3e-4),
}


def spec_of(optimizer: str, seed: int) -> ll.Spec:
    """A head at three times the rate, a schedule, and with every other seed a clip."""
    head = ll.Group(["head", "classifier"], lr_scale=3.0, name="head")
    clip = 1.0 if seed % 2 else None
    return ll.Spec(OPTIMIZERS[optimizer], [head], ll.CosineAnnealingLR(T_max=20), clip_grad_norm=clip)


def images_of(seed: int) -> dict[str, Any]:
    """48 images of four classes, which differ in their mean."""
    rng = np.random.default_rng([seed, 11])
    labels = np.arange(48) % CLASSES
    images = rng.standard_normal((48, CHANNELS, PIXELS, PIXELS)) + 0.3 * labels[:, None, None, None]
    images = images.astype(np.float32)
    return {"x_train": images, "y_train": labels, "x_test": images[:8], "y_test": labels[:8]}


def task_of(kind: str, optimizer: str, seed: int, backend: str, dtype: str) -> Task:
    """What to compare: with every third seed a moving average and two batches an update."""
    known = KINDS[kind] is None
    steps = BIG_STEPS if known else STEPS
    extras: dict[str, Any] = {"ema_decay": 0.9, "accumulate_steps": 2} if seed % 3 == 0 and not known else {}
    options = RunOptions(
        model=builder(kind, TABLE[backend].framework),
        data="digits" if known else images_of(seed),
        backend=backend,
        max_steps=steps,
        batch_size=8,
        seed=seed,
        dropout=0.0,
        device="cpu",
        precision=Precision("float64" if dtype == "float64" else "float32"),
        **extras,
    )
    return Task(spec_of(optimizer, seed), options, steps, float32_norms=dtype == "float64")


def verdicts_of(
    kind: str, optimizer: str, seed: int, backends: tuple[str, ...], dtype: str
) -> Iterator[dict[str, Any]]:
    """The verdict on each pair of backends, as plain tables."""
    found: dict[str, Recording] = {}
    start: Any = None
    for name in backends:
        backend, task = load_backend(name, "cpu"), task_of(kind, optimizer, seed, name, dtype)
        ready = prepare_task(backend, task, start)
        start = backend.state(ready.model) if start is None else start
        found[name] = record_fully(ready, task, start)
        if len(found) == 1:
            plan = ready.plan
    reference, task = load_backend(backends[0], "cpu"), task_of(kind, optimizer, seed, backends[0], dtype)
    all_exact = all(each.exact is not None for each in found.values())
    rounding = measure_rounding(reference, task, found[backends[0]], start, all_have_float64=all_exact)
    for one, other in combinations(backends, 2):
        verdict = judge(found[one], found[other], rounding, plan)
        judged = "float64" if found[one].exact is not None and found[other].exact is not None else dtype
        yield {
            "kind": kind, "optimizer": optimizer, "seed": seed, "dtype": dtype, "pair": f"{one} / {other}",
            "judged": judged, "verdict": verdict.kind, "cause": verdict.cause,
            "first": None if verdict.first is None else verdict.first._asdict(),
        }  # fmt: skip


def work(kind: str, optimizer: str, seeds: list[int], compile_seeds: int) -> None:
    """In a process of its own: print a line of JSON for each pair, and one at the end of each seed."""
    import torch

    torch.set_num_threads(1)
    for seed in seeds:
        backends = (*BACKENDS, "torch-compile") if seed <= compile_seeds and KINDS[kind] is not None else BACKENDS
        for dtype in ("float32", "float64"):
            try:
                for row in verdicts_of(kind, optimizer, seed, backends, dtype):
                    print(json.dumps(row), flush=True)
            except LayeredLRError as error:
                print(json.dumps({"kind": kind, "optimizer": optimizer, "seed": seed, "error": str(error)}), flush=True)
        print(json.dumps({"done": seed}), flush=True)


def run_kind(kind: str, optimizer: str, seeds: Sequence[int], compile_seeds: int) -> tuple[list[dict[str, Any]], int]:
    """These seeds of one kind and optimizer; a process that OneFlow's own crash ends begins again at its seed.

    Returns:
        The rows, and how often a process crashed.
    """
    left, rows, crashes = list(seeds), [], 0
    while left and crashes <= _MOST_CRASHES:
        command = [
            sys.executable,
            "-m",
            "benchmarks.certificate.honest",
            kind,
            optimizer,
            json.dumps(left),
            str(compile_seeds),
        ]
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        pending: list[dict[str, Any]] = []
        for line in process.stdout.splitlines():
            if not line.startswith("{"):
                continue
            row = json.loads(line)
            if "done" in row:
                rows += pending
                pending = []
                left.remove(row["done"])
            else:
                pending.append(row)
        if left:
            crashes += 1
            if process.returncode > 0:
                raise RuntimeError(f"{kind}, {optimizer}: {process.stderr[-2000:]}")
    return rows, crashes


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.flush()
    os._exit(0)  # OneFlow crashes at times while it is taken down
