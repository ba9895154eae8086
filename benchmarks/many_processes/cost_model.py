"""What messages among processes take by the alpha-beta model: each step costs alpha, each byte beta."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.many_processes.traffic import Collective


@dataclass(frozen=True)
class Network:
    """What connects the processes.

    Args:
        alpha_seconds: Of one step from a process to the next, however little it sends.
        beta_seconds: Of one byte.
    """

    alpha_seconds: float
    beta_seconds: float

    def seconds(self, collective: Collective, count: int) -> float:
        """Of one collective among so many processes; 0 among one.

        An all-reduce goes around a ring twice, in ``2 (count - 1)`` steps of ``1 / count`` of the bytes; an all-gather
        once, with each process's part whole; a broadcast goes down a tree of ``log2(count)`` levels.
        """
        if count == 1:
            return 0.0
        size = collective.payload_bytes
        if collective.kind == "all_reduce":
            steps, moved = 2 * (count - 1), 2 * (count - 1) / count * size
        elif collective.kind == "all_gather":
            steps, moved = count - 1, (count - 1.0) * size
        else:
            steps = math.ceil(math.log2(count))
            moved = float(steps * size)
        return steps * self.alpha_seconds + moved * self.beta_seconds

    def total_seconds(self, collectives: Sequence[Collective], count: int) -> float:
        """Of several collectives, one after the other."""
        return sum(self.seconds(each, count) for each in collectives)


def fit(seconds: Mapping[int, float], count: int) -> Network:
    """The network whose all-reduces take what was measured, with the least squares of the relative errors.

    Args:
        seconds: Of an all-reduce of so many bytes; of two sizes or more.
        count: Among how many processes, >= 2.
    """
    sizes, taken = np.array(list(seconds), float), np.array(list(seconds.values()))
    rows = np.stack([np.full(len(sizes), 2.0 * (count - 1)), 2 * (count - 1) / count * sizes], 1)
    (alpha, beta), *_ = np.linalg.lstsq(rows / taken[:, None], np.ones(len(sizes)), rcond=None)
    return Network(max(float(alpha), 0.0), max(float(beta), 0.0))


def sent_bytes(collectives: Sequence[Collective], count: int) -> float:
    """What a process sends in them by the same rules: the mean of all processes."""
    total = 0.0
    for each in collectives:
        share = {"all_reduce": 2 * (count - 1) / count, "all_gather": count - 1.0, "broadcast": (count - 1) / count}
        total += share[each.kind] * each.payload_bytes
    return total
