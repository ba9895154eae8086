"""Finds out whether a run in float64 rounds to a lower precision inside, as ``x.float()`` and Muon do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from layered_lr.arrays import Weights
from layered_lr.backend.base import Backend
from layered_lr.optimizers import Muon
from layered_lr.parity.disturbance import Disturbance
from layered_lr.parity.recorder import prepare_task, record
from layered_lr.parity.task import Task
from layered_lr.parity.trace import Trace
from layered_lr.spec.spec import Spec

_BITS = 2.0**29, 2.0**25, 2.0**21  # of float64: a last bit of float32, and a sixteenth and a 256th of it
_NOISE_BITS = 32.0  # of the loss itself
_SHARE = 5e-4


FLOAT32_BITS = 2.0**29
"""A last bit of float32 in last bits of float64."""


def has_muon(spec: Spec) -> bool:
    """Whether Muon updates a part: it sums in float32 and rounds to bfloat16, whatever the weights' dtype is."""
    settings = [spec.optimizer, *(group.optimizer for group in spec.groups)]
    for phase in spec.phases:
        settings += [phase.optimizer, *(group.optimizer for group in phase.groups)]
    return any(isinstance(optimizer, Muon) for optimizer in settings)


def rounds_inside(backend: Backend, task: Task, reference: Trace, start: Weights) -> bool:
    """Whether the backend sees that it does, or the first loss fails to follow a small change of the weights.

    In float64 it changes twice as far when all weights change twice as far, but for a second order that shrinks as the
    change does. Behind a rounding to float32 it moves in steps, which do not. (The loss is continuous where a ReLU tips
    over; gradients are not, and are left out.) A single rounding in a place where it hardly counts may stay unseen.

    Args:
        backend: Of the run.
        task: The run in float64.
        reference: What it did.
        start: What it began with.
    """
    one_step = replace(task, steps=1, resume_at=None, probe_steps=None)
    ready = prepare_task(backend, one_step, start)
    if backend.narrows(lambda: record(ready, one_step)):
        return True
    noise = _NOISE_BITS * np.spacing(max(abs(reference.losses[0]), 1.0))

    def bend(bits: float) -> float:
        """By what share of it the answer to a change twice as large is not twice the answer."""
        changes = []
        for size in (bits, 2 * bits):
            disturbance = Disturbance(np.random.default_rng([task.options.seed, 10]), 0.0, size)
            ready = prepare_task(backend, one_step, start)
            changes.append(record(ready, one_step, disturbance=disturbance).losses[0] - reference.losses[0])
        once, twice = changes
        off = max(abs(twice - 2 * once) - noise, 0.0)
        return float(off / max(abs(twice), noise))

    return all(bend(bits) > _SHARE for bits in _BITS)
