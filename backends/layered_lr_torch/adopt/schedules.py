"""Schedulers of torch as schedules of this library, one for each param group."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.optim import lr_scheduler

import layered_lr.schedules as ours
from layered_lr.errors import SpecError
from layered_lr.schedules.base import Schedule, Unit
from layered_lr_torch.torch_types import ParamGroup

_MOST_CHECKED = 500  # steps at which a function is compared with the schedule that it should be
_CLOSE = 1e-9


def read_schedules(scheduler: Any, groups: Sequence[ParamGroup], unit: Unit) -> list[Schedule]:
    """Return the schedule of each group.

    Args:
        scheduler: Of torch, or timm's.
        groups: The optimizer's.
        unit: What a step of the scheduler is; timm's scheduler knows it itself.

    Raises:
        SpecError: It cannot be read exactly.
    """
    if _is_timm(scheduler):
        return [_read_timm(scheduler)] * len(groups)
    found = [_read(scheduler, place, group) for place, group in enumerate(groups)]
    return [each if isinstance(each, ours.ReduceLROnPlateau) else _with_unit(each, unit) for each in found]


def _with_unit(schedule: Schedule, unit: Unit) -> Schedule:
    return schedule if schedule.unit == unit else replace(schedule, unit=unit)


def _read(scheduler: Any, place: int, group: ParamGroup) -> Schedule:
    """The schedule of one group."""
    read = _READERS.get(type(scheduler))
    if read is None:
        raise SpecError(
            f"adopt: scheduler is a {type(scheduler).__name__}, whose settings cannot be read. Adopt the optimizer "
            "without it before it is made, and give the spec a schedule: ll.Function(lambda step: ...) or "
            "ll.Table(rates)."
        )
    return read(scheduler, place, group)


def _read_parts(scheduler: Any, place: int, group: ParamGroup) -> list[Schedule]:
    return [_read(each, place, group) for each in scheduler._schedulers]


def _read_sequence(scheduler: Any, place: int, group: ParamGroup) -> Schedule:
    return ours.SequentialLR(_read_parts(scheduler, place, group), milestones=list(scheduler._milestones))


def _read_chain(scheduler: Any, place: int, group: ParamGroup) -> Schedule:
    return ours.ChainedScheduler(_read_parts(scheduler, place, group))


def _read_cycle(scheduler: Any, place: int, group: ParamGroup) -> Schedule:
    up = scheduler.step_ratio * scheduler.total_size
    if abs(up - round(up)) > _CLOSE * up or scheduler.total_size != round(scheduler.total_size):
        raise SpecError(f"adopt: CyclicLR with step_size_up={up:g}: must be a whole number of steps.")
    settings: dict[str, Any] = {}
    if scheduler.cycle_momentum:
        settings = {"base_momentum": group["base_momentum"], "max_momentum": group["max_momentum"]}
    return ours.CyclicLR(
        base_lr=float(scheduler.base_lrs[place]),
        max_lr=float(scheduler.max_lrs[place]),
        step_size_up=round(up),
        step_size_down=round(scheduler.total_size) - round(up),
        mode=scheduler.mode,
        gamma=scheduler.gamma,
        scale_fn=scheduler._scale_fn_custom,
        scale_mode=scheduler.scale_mode,
        cycle_momentum=scheduler.cycle_momentum,
        **settings,
    )


def _read_one_cycle(scheduler: Any, place: int, group: ParamGroup) -> Schedule:
    highest, first, last = (float(group[name]) for name in ("max_lr", "initial_lr", "min_lr"))
    settings: dict[str, Any] = {}
    if scheduler.cycle_momentum:
        settings = {"base_momentum": group["base_momentum"], "max_momentum": group["max_momentum"]}
    if highest == 0.0:
        first, last = 1.0, 1.0  # any ratio of rates that are 0
    ratios = (highest / first, first / last) if highest else (1.0, 1.0)
    return ours.OneCycleLR(
        max_lr=highest,
        total_steps=scheduler.total_steps,
        pct_start=rounded((scheduler._schedule_phases[0]["end_step"] + 1) / scheduler.total_steps),
        anneal_strategy=scheduler._anneal_func_type,
        cycle_momentum=scheduler.cycle_momentum,
        div_factor=rounded(ratios[0]),
        final_div_factor=rounded(ratios[1]),
        three_phase=len(scheduler._schedule_phases) == 3,
        **settings,
    )


def rounded(ratio: float) -> float:
    """A quotient without the rounding of a multiplication that came before: 24.999999999999996 was 25."""
    short = float(f"{ratio:.12g}")
    return short if math.isclose(short, ratio, rel_tol=1e-14) else ratio


def _read_plateau(scheduler: Any, place: int, group: ParamGroup) -> Schedule:
    return ours.ReduceLROnPlateau(
        mode=scheduler.mode,
        factor=scheduler.factor,
        patience=scheduler.patience,
        threshold=scheduler.threshold,
        threshold_mode=scheduler.threshold_mode,
        cooldown=scheduler.cooldown,
        min_lr=float(scheduler.min_lrs[place]),
        eps=scheduler.eps,
    )


def _read_lambda(scheduler: Any, place: int, group: ParamGroup) -> Schedule:
    function = scheduler.lr_lambdas[place]
    known = _recognise(function)
    return ours.LambdaLR(function) if known is None else known


def _recognise(function: Any) -> Schedule | None:
    """The schedule that one of transformers' functions is, known by its name and compared with it."""
    if getattr(function, "__name__", "") == "_get_constant_lambda" and function.__module__.startswith("transformers."):
        return ours.Constant()
    if not isinstance(function, functools.partial) or function.args:
        return None
    make = _TRANSFORMERS.get(getattr(function.func, "__name__", ""))
    if make is None:
        return None
    try:
        schedule, length = make(function.keywords)
        stride = max(1, length // _MOST_CHECKED)
        same = all(
            math.isclose(schedule(step, 1.0), function(step), rel_tol=_CLOSE, abs_tol=_CLOSE)
            for step in range(0, length, stride)
        )
    except (KeyError, TypeError, ValueError, ArithmeticError):  # another release of transformers
        return None
    return schedule if same else None


def _linear(given: Mapping[str, Any]) -> tuple[Schedule, int]:
    warmup, total = int(given["num_warmup_steps"]), int(given["num_training_steps"])
    fall = ours.PolynomialLR(total_iters=max(1, total - warmup), power=1.0)
    return (ours.Warmup(warmup, fall) if warmup else fall), total


def _cosine(given: Mapping[str, Any]) -> tuple[Schedule, int]:
    total, floor = int(given["num_training_steps"]), given.get("min_lr_rate", 0.0)
    settings: dict[str, Any] = {"num_cycles": given.get("num_cycles", 0.5)} | ({"min_lr_rate": floor} if floor else {})
    return ours.CosineDecay(total, int(given["num_warmup_steps"]), **settings), total


def _constant_after_warmup(given: Mapping[str, Any]) -> tuple[Schedule, int]:
    return ours.Warmup(int(given["num_warmup_steps"])), int(given["num_warmup_steps"]) + 2


def _inverse_sqrt(given: Mapping[str, Any]) -> tuple[Schedule, int]:
    warmup = int(given["num_warmup_steps"])
    return ours.InverseSqrt(warmup, given.get("timescale")), 10 * warmup + 100


def _stable_then_down(given: Mapping[str, Any]) -> tuple[Schedule, int]:
    warmup, stable, decay = (int(given[f"num_{name}_steps"]) for name in ("warmup", "stable", "decay"))
    kept = {name: given[name] for name in ("warmup_type", "decay_type", "min_lr_ratio", "num_cycles") if name in given}
    return ours.WSD(warmup, decay, stable_steps=stable, **kept), warmup + stable + decay


_TRANSFORMERS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Schedule, int]]] = {
    "_get_linear_schedule_with_warmup_lr_lambda": _linear,
    "_get_cosine_schedule_with_warmup_lr_lambda": _cosine,
    "_get_cosine_with_min_lr_schedule_with_warmup_lr_lambda": _cosine,
    "_get_constant_schedule_with_warmup_lr_lambda": _constant_after_warmup,
    "_get_inverse_sqrt_schedule_lr_lambda": _inverse_sqrt,
    "_get_wsd_scheduler_lambda": _stable_then_down,
}
"""The functions in transformers' ``optimization.py`` (4.30 to 5.20), each in a ``functools.partial``."""


def _is_timm(scheduler: Any) -> bool:
    return any(base.__module__.startswith("timm.") for base in type(scheduler).__mro__)


def _read_timm(scheduler: Any) -> Schedule:
    kind = type(scheduler).__name__
    unit: Unit = "epoch" if scheduler.t_in_epochs else "step"
    plain = getattr(scheduler, "noise_range_t", None) is None
    if kind == "CosineLRScheduler" and plain and scheduler.cycle_limit == 1 and scheduler.k_decay == 1.0:
        warmup, prefix = scheduler.warmup_t, scheduler.warmup_prefix
        return ours.CosineDecay(
            scheduler.t_initial + (warmup if prefix else 0),
            warmup,
            min_lr=scheduler.lr_min,
            warmup_lr=scheduler.warmup_lr_init if warmup else 0.0,
            warmup_prefix=prefix,
            unit=unit,
        )
    if kind == "StepLRScheduler" and plain and not scheduler.warmup_t:
        return ours.StepLR(scheduler.decay_t, scheduler.decay_rate, unit=unit)
    raise SpecError(
        f"adopt: timm's {kind} with these settings cannot be read. What can: CosineLRScheduler with one cycle, "
        "StepLRScheduler without warm-up."
    )


_READERS: Mapping[type, Callable[[Any, int, ParamGroup], Schedule]] = {
    lr_scheduler.ConstantLR: lambda s, place, group: ours.ConstantLR(s.factor, s.total_iters),
    lr_scheduler.LinearLR: lambda s, place, group: ours.LinearLR(s.start_factor, s.end_factor, s.total_iters),
    lr_scheduler.ExponentialLR: lambda s, place, group: ours.ExponentialLR(s.gamma),
    lr_scheduler.StepLR: lambda s, place, group: ours.StepLR(s.step_size, s.gamma),
    lr_scheduler.MultiStepLR: lambda s, place, group: ours.MultiStepLR(sorted(s.milestones.elements()), s.gamma),
    lr_scheduler.PolynomialLR: lambda s, place, group: ours.PolynomialLR(s.total_iters, s.power),
    lr_scheduler.CosineAnnealingLR: lambda s, place, group: ours.CosineAnnealingLR(s.T_max, s.eta_min),
    lr_scheduler.CosineAnnealingWarmRestarts: lambda s, place, group: ours.CosineAnnealingWarmRestarts(
        s.T_0, s.T_mult, s.eta_min
    ),
    lr_scheduler.MultiplicativeLR: lambda s, place, group: ours.MultiplicativeLR(s.lr_lambdas[place]),
    lr_scheduler.LambdaLR: _read_lambda,
    lr_scheduler.CyclicLR: _read_cycle,
    lr_scheduler.OneCycleLR: _read_one_cycle,
    lr_scheduler.ReduceLROnPlateau: _read_plateau,
    lr_scheduler.SequentialLR: _read_sequence,
    lr_scheduler.ChainedScheduler: _read_chain,
}
