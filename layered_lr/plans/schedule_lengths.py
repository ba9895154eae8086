"""How long a schedule's own course is, and what its rate does after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from layered_lr.schedules import Schedule


class Course(NamedTuple):
    """The course of a schedule.

    Args:
        name: Of the schedule's class.
        end: Where it ends, in the schedule's own unit.
        after: What a run that goes on is left with, in words; empty where that is usual, as after a warm-up.
        jumps: Whether it does nothing at all before ``end``.
    """

    name: str
    end: float
    after: str = ""
    jumps: bool = False


_LOWEST = "the rate stays at its lowest"
_ZERO = "the rate stays at 0"
_RISES = "the rate rises again"


def course_of(schedule: Schedule) -> Course | None:
    """The course of a schedule; None where it has no end, as an exponential decay.

    Of schedules one after the other it is the last one's, with what comes before it; of a chain, the first that has
    one.

    Example:
        >>> import layered_lr as ll
        >>> course_of(ll.Warmup(5, ll.CosineAnnealingLR(20))).end
        25
    """
    name = type(schedule).__name__
    make = _COURSES.get(name)
    if make is not None:
        return make(name, schedule)
    parts: Any = schedule
    if name == "Warmup":
        inner = course_of(parts.then)
        return Course(name, parts.warmup_steps) if inner is None else _later(inner, parts.warmup_steps)
    if name == "SequentialLR":
        start = parts.milestones[-1] if parts.milestones else 0
        inner = course_of(parts.schedulers[-1])
        return Course(name, start, jumps=True) if inner is None and start else inner and _later(inner, start)
    if name == "ChainedScheduler":
        courses = [course for child in parts.schedulers if (course := course_of(child)) is not None]
        falling = [course for course in courses if course.after]
        return next(iter(falling or courses), None)
    return None


def _later(course: Course, steps: float) -> Course:
    return course._replace(end=course.end + steps)


def _cosine(name: str, schedule: Any) -> Course:
    return Course(name, schedule.T_max, _RISES)


def _one_cycle(name: str, schedule: Any) -> Course:
    return Course(name, schedule.total_steps or schedule.epochs * schedule.steps_per_epoch, _LOWEST)


def _cosine_decay(name: str, schedule: Any) -> Course:
    floor = schedule.min_lr or schedule.min_lr_rate
    return Course(name, schedule.total_steps, _LOWEST if floor else _ZERO)


def _wsd(name: str, schedule: Any) -> Course:
    total = schedule.total_steps
    if total is None:
        total = schedule.warmup_steps + (schedule.stable_steps or 0) + schedule.decay_steps
    return Course(name, total, _LOWEST if schedule.min_lr_ratio else _ZERO)


def _polynomial(name: str, schedule: Any) -> Course:
    return Course(name, schedule.total_iters, _ZERO if schedule.power else "")


def _linear(name: str, schedule: Any) -> Course:
    falls = schedule.end_factor < schedule.start_factor
    return Course(name, schedule.total_iters, (_LOWEST if schedule.end_factor else _ZERO) if falls else "")


def _constant(name: str, schedule: Any) -> Course:
    return Course(name, schedule.total_iters)


def _step(name: str, schedule: Any) -> Course:
    return Course(name, schedule.step_size, jumps=True)


def _milestones(name: str, schedule: Any) -> Course | None:
    return Course(name, max(schedule.milestones), jumps=True) if schedule.milestones else None


def _restarts(name: str, schedule: Any) -> Course:
    return Course(name, schedule.T_0)


def _table(name: str, schedule: Any) -> Course:
    return Course(name, len(schedule.values))


def _inverse_sqrt(name: str, schedule: Any) -> Course:
    return Course(name, schedule.warmup_steps)


_COURSES: Mapping[str, Callable[[str, Any], Course | None]] = {
    "ConstantLR": _constant,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingWarmRestarts": _restarts,
    "CosineDecay": _cosine_decay,
    "InverseSqrt": _inverse_sqrt,
    "LinearLR": _linear,
    "MultiStepLR": _milestones,
    "OneCycleLR": _one_cycle,
    "PolynomialLR": _polynomial,
    "StepLR": _step,
    "Table": _table,
    "WSD": _wsd,
}
