"""Reads from a compiled graph the rates that its update ops apply."""

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
from layered_lr_oneflow.oneflow_types import Graph, Message


class CompiledRates:
    """The rates of a compiled training graph, read from its job.

    Every update op of the job names the op that computes its rate, and holds its own ``lr_scale``. The rate's op holds
    the base rate and the schedule, and reads the job's step counter. From these follows the rate of each parameter at
    each step. The plan is not used, so that a lost scale or schedule shows.

    Args:
        graph: A ``oneflow.nn.Graph`` after its first call.
    """

    def __init__(self, graph: Graph) -> None:
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
        """Names in the graph of the variables that the job updates."""
        return frozenset(self._scale)

    def count_steps(self) -> int:
        """Read how many updates the job itself has counted; waits for them."""
        return int(self._graph.state_dict()["System-Train-TrainStep"].numpy()[0])

    def find_source(self, variable: str) -> tuple[str, float]:
        """Find where a variable's rate comes from: the name of the schedule's op, and ``lr_scale``."""
        return self._rate_name[variable], self._scale[variable]

    def read_rates(self, variable: str, start: int, stop: int) -> Float64:
        """Read the rates that updates ``start`` to ``stop - 1`` apply to a variable, shape ``(stop - start,)``."""
        conf = self._ops[self._rate_name[variable]].learning_rate_schedule_conf
        return _scale_rates(self._scale[variable], conf.learning_rate, conf.learning_rate_decay, start, stop)

    def read_configured_rates(self, index: int, start: int, stop: int) -> Float64:
        """Read the rates that the job's conf for a param group asks for, if no updated variable shows them.

        Args:
            index: Of the param group, among the param groups of all optimizers in the order they were added.
            start: First update.
            stop: Update after the last one.
        """
        conf = self._confs[index]
        return _scale_rates(conf.lr_scale, conf.base_learning_rate, conf.learning_rate_decay, start, stop)


def _scale_rates(scale: float, base: float, decay: Message, start: int, stop: int) -> Float64:
    """Multiply the schedule's rates by ``lr_scale``, both as float32: this is what reaches the update op."""
    with np.errstate(under="ignore"):
        rates = _compute_schedule(base, decay, start, stop).astype(np.float32) * np.float32(scale)
    return rates.astype(np.float64)


def _compute_schedule(base: float, decay: Message, start: int, stop: int) -> Float64:
    """Compute what OneFlow 0.9's ``learning_rate_schedule`` op returns at each step."""
    steps = np.arange(start, stop)
    kind = decay.WhichOneof("type")
    if kind is None:
        return np.full(len(steps), base)
    if kind == "piecewise_constant_conf":
        table = decay.piecewise_constant_conf
        return np.asarray(table.values)[np.searchsorted(np.asarray(table.boundaries), steps, side="left")]
    return KernelSchedule(_read_schedule(decay))(steps, as_float32(base))


def _read_schedule(decay: Message) -> Schedule:
    """Read the schedule that the conf of a ``learning_rate_schedule`` op describes."""
    kind = decay.WhichOneof("type")
    if kind not in _SCHEDULES:
        raise NotImplementedError(f"reading back {kind} of a compiled graph")
    return _SCHEDULES[kind](getattr(decay, kind))


def _polynomial_lr(conf: Message) -> Schedule:
    _expect(conf, end_learning_rate=0.0, cycle=False)
    return PolynomialLR(conf.decay_batches, conf.power)


def _warm_restarts(conf: Message) -> Schedule:
    _expect(conf, decay_rate=1.0, restart_limit=0)
    return CosineAnnealingWarmRestarts(conf.t_initial, conf.t_mult, conf.eta_min)


def _sequential_lr(conf: Message) -> Schedule:
    if not all(conf.interval_rescaling):
        raise NotImplementedError("reading back a SequentialLR whose schedules share one count")
    return SequentialLR(list(map(_read_schedule, conf.schedulers)), list(conf.milestones))


def _expect(conf: Message, **values: Any) -> None:
    for name, value in values.items():
        if getattr(conf, name) != value:
            raise NotImplementedError(f"reading back {name}={getattr(conf, name)} of a compiled graph")


_SCHEDULES: Mapping[str, Callable[[Message], Schedule]] = {
    "step_conf": lambda conf: StepLR(conf.step_size, conf.gamma),
    "multi_step_conf": lambda conf: MultiStepLR(list(conf.milestones), conf.gamma),
    "constant_lr_conf": lambda conf: ConstantLR(conf.factor, conf.total_iters),
    "linear_lr_conf": lambda conf: LinearLR(conf.start_factor, conf.end_factor, conf.total_iters),
    "polynomial_conf": _polynomial_lr,
    "cosine_annealing_conf": lambda conf: CosineAnnealingLR(conf.t_max, conf.eta_min),
    "cosine_annealing_warm_restarts_conf": _warm_restarts,
    "sequential_scheduler_conf": _sequential_lr,
}
