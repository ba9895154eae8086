"""What a compiled graph says of itself: the rates that its update ops apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from layered_lr.arrays import Float64
from layered_lr.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    Schedule,
    SequentialLR,
    StepLR,
)
from layered_lr_oneflow.kernel_arithmetic import KernelSchedule, as_float32


class CompiledRates:
    """The rates of a compiled training graph, read from its job.

    Every update op of the job names the op that computes its rate, and carries its own ``lr_scale``; the rate's
    op carries the base rate and the schedule, and reads the job's step counter. From these, the rate of each
    parameter at each step follows, whatever the plan says: a scale or a schedule that got lost shows.

    Args:
        graph: A ``oneflow.nn.Graph`` after its first call.
    """

    def __init__(self, graph: Any) -> None:
        job = graph._compiled_job_proto
        self._confs = list(job.job_conf.train_conf.optimizer_conf)
        self._ops = {op.name: op for op in job.net.op}
        self._graph = graph
        self._rate_name: dict[str, str] = {}
        self._scale: dict[str, float] = {}
        for op in job.net.op:
            if op.HasField("user_conf") and {"model", "learning_rate"} <= set(op.user_conf.input):
                variable = op.user_conf.input["model"].s[0].split("/")[0]
                rate_op = op.user_conf.input["learning_rate"].s[0].split("/")[0]
                self._rate_name[variable] = rate_op
                self._scale[variable] = op.user_conf.attr["learning_rate_scale"].at_float

    @property
    def variables(self) -> frozenset[str]:
        """The variables that the job updates, by their names in the graph."""
        return frozenset(self._scale)

    def steps(self) -> int:
        """How many updates the job itself has counted; waits for them."""
        return int(self._graph.state_dict()["System-Train-TrainStep"].numpy()[0])

    def source(self, variable: str) -> tuple[str, float]:
        """Where a variable's rate comes from: the name of the schedule's op, and ``lr_scale``."""
        return self._rate_name[variable], self._scale[variable]

    def rates(self, variable: str, start: int, stop: int) -> Float64:
        """The rates that updates ``start`` to ``stop - 1`` apply to a variable, shape ``(stop - start,)``."""
        conf = self._ops[self._rate_name[variable]].learning_rate_schedule_conf
        return _scaled(self._scale[variable], conf.learning_rate, conf.learning_rate_decay, start, stop)

    def configured(self, index: int, start: int, stop: int) -> Float64:
        """The rates that the job's conf for a param group asks for, where no variable shows them.

        Args:
            index: Of the param group, counted through all optimizers of the graph in the order they were added.
            start: First update.
            stop: Update after the last one.
        """
        conf = self._confs[index]
        return _scaled(conf.lr_scale, conf.base_learning_rate, conf.learning_rate_decay, start, stop)


def _scaled(scale: float, base: float, decay: Any, start: int, stop: int) -> Float64:
    """The schedule, rounded to float32, times ``lr_scale``, in float32: what reaches the update op."""
    with np.errstate(under="ignore"):
        rates = _scheduled(base, decay, start, stop).astype(np.float32) * np.float32(scale)
    return rates.astype(np.float64)


def _scheduled(base: float, decay: Any, start: int, stop: int) -> Float64:
    """What OneFlow 0.9's ``learning_rate_schedule`` op answers at each step."""
    steps = np.arange(start, stop)
    kind = decay.WhichOneof("type")
    if kind is None:
        return np.full(len(steps), base)
    if kind == "piecewise_constant_conf":
        table = decay.piecewise_constant_conf
        return np.asarray(table.values)[np.searchsorted(np.asarray(table.boundaries), steps, side="left")]
    return KernelSchedule(_schedule(decay))(steps, as_float32(base))


def _schedule(decay: Any) -> Schedule:
    """The schedule that the conf of a ``learning_rate_schedule`` op describes."""
    kind = decay.WhichOneof("type")
    if kind not in _SCHEDULES:
        raise NotImplementedError(f"reading back {kind} of a compiled graph")
    return _SCHEDULES[kind](getattr(decay, kind))


def _polynomial_lr(conf: Any) -> Schedule:
    _expect(conf, end_learning_rate=0.0, cycle=False)
    return PolynomialLR(conf.decay_batches, conf.power)


def _warm_restarts(conf: Any) -> Schedule:
    _expect(conf, decay_rate=1.0, restart_limit=0)
    return CosineAnnealingWarmRestarts(conf.t_initial, conf.t_mult, conf.eta_min)


def _sequential_lr(conf: Any) -> Schedule:
    if not all(conf.interval_rescaling):
        raise NotImplementedError("reading back a SequentialLR whose schedules share one count")
    return SequentialLR(list(map(_schedule, conf.schedulers)), list(conf.milestones))


def _expect(conf: Any, **values: Any) -> None:
    for name, value in values.items():
        if getattr(conf, name) != value:
            raise NotImplementedError(f"reading back {name}={getattr(conf, name)} of a compiled graph")


_SCHEDULES: Mapping[str, Callable[[Any], Schedule]] = {
    "step_conf": lambda conf: StepLR(conf.step_size, conf.gamma),
    "multi_step_conf": lambda conf: MultiStepLR(list(conf.milestones), conf.gamma),
    "constant_lr_conf": lambda conf: ConstantLR(conf.factor, conf.total_iters),
    "linear_lr_conf": lambda conf: LinearLR(conf.start_factor, conf.end_factor, conf.total_iters),
    "polynomial_conf": _polynomial_lr,
    "cosine_annealing_conf": lambda conf: CosineAnnealingLR(conf.t_max, conf.eta_min),
    "cosine_annealing_warm_restarts_conf": _warm_restarts,
    "sequential_scheduler_conf": _sequential_lr,
}
