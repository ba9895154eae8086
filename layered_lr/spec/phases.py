"""Phases: parts of the run, one after the other, in which other parameters train or other settings hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Literal

from pydantic import PlainValidator

from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.models.patterns import check_pattern
from layered_lr.printed import shown
from layered_lr.scalars import read_number, unwrap_scalar
from layered_lr.spec.groups import Group, OptionalOptimizer, OptionalSchedule, check_groups, group_from_table
from layered_lr.spec.toml import optimizer_from_table, schedule_from_table
from layered_lr.validation import NonNegative, Positive, value_class

_UNTIL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(step|steps|epoch|epochs)\s*")

Until = int | str
Which = tuple[str | int, ...]  # names or indices of groups, or patterns

_MOST_STAGES = 1000

_UNTIL_FORMS = "must be a text such as '3 epochs' or '500 steps', or a whole number of updates"


def _check_until(value: object) -> Until | None:
    if value is None:
        return None
    if isinstance(value, str):
        found = _UNTIL.fullmatch(value)
        if found and 0 < float(found[1]) < math.inf and (float(found[1]).is_integer() or found[2].startswith("epoch")):
            return value
        raise SpecError(f"until={shown(value)}: {_UNTIL_FORMS}.")
    return whole_number("until", value, 1)


def steps_until(until: Until, steps_per_epoch: int | None) -> int:
    """Return the update at which a phase ends, counted from the start of the run.

    Args:
        until: A number of updates, ``"500 steps"`` or ``"1.5 epochs"`` (rounded to whole updates).
        steps_per_epoch: Updates in one epoch, if known.

    Raises:
        SpecError: ``until`` counts epochs but ``steps_per_epoch`` is unknown, or it is less than one update.

    Example:
        >>> steps_until("1.5 epochs", steps_per_epoch=100)
        150
    """
    if isinstance(until, int):
        return until
    found = _UNTIL.fullmatch(until)
    if found is None:
        raise SpecError(f"until={until!r}: {_UNTIL_FORMS}.")
    number, unit = float(found[1]), found[2]
    if unit.startswith("epoch"):
        if steps_per_epoch is None:
            raise SpecError(f"until={until!r} counts epochs: give steps_per_epoch=..., or count steps.")
        number *= steps_per_epoch
    if round(number) < 1:
        raise SpecError(f"until={until!r}: this is less than one update; a phase needs at least one.")
    return round(number)


def _check_which(name: str, value: object) -> Which | None:
    if value is None:
        return None
    given = (value,) if isinstance(value, str | int) else value
    if not isinstance(given, list | tuple) or isinstance(value, bool):
        raise SpecError(f"{name}={shown(value)}: must be a group's name, its index, a pattern, or a list of these.")
    return tuple(
        item if isinstance(item, int) and not isinstance(item, bool) else check_pattern(item, name) for item in given
    )


def _check_frozen(value: object) -> Which | None:
    return _check_which("frozen", value)


def _check_trained(value: object) -> Which | None:
    return _check_which("trained", value)


def _check_norm(value: object) -> float | None:
    number = math.inf if isinstance(value, str) and value == "inf" else read_number(value)  # as JSON has it
    is_infinite = isinstance(value, str | float) or unwrap_scalar(value) == math.inf  # and no endless whole number
    if value is None or (number is not None and number > 0 and (number < math.inf or is_infinite)):
        return number
    raise SpecError(f"clip_grad_norm={shown(value)}: must be a number > 0 (infinity only measures the norm), or None.")


def _check_momentum_warmup(value: object) -> int:
    return whole_number("momentum_warmup", value, 0)


OptionalNorm = Annotated[float | None, PlainValidator(_check_norm)]
# What a user may give for `frozen` and `trained`; the phase keeps a tuple.
Frozen = Annotated[str | int | Sequence[str | int] | None, PlainValidator(_check_frozen)]
Trained = Annotated[str | int | Sequence[str | int] | None, PlainValidator(_check_trained)]


@value_class
class Phase:
    """A part of the run in which the same parameters train with the same optimizer.

    Settings that a phase leaves out are those of the spec, whatever the phase before it changed. Frozen weights stay
    the same bit for bit: they have no gradient, no decay and no momentum. Their optimizer state is kept until they
    train again.

    Args:
        until: When the phase ends, counted from the start of the run: ``"3 epochs"``, ``"500 steps"`` or a whole number
            of updates. Only the last phase may have None, the end of the run. If the last phase ends before the run
            does, the spec without phases follows.
        frozen: What does not train: names or indices of groups (-1 is the last group), or patterns as in
            ``Group.match``.
        trained: The only parameters that train, instead of ``frozen``.
        optimizer: Replaces the spec's optimizer; groups with an optimizer of their own keep it.
        schedule: Replaces the spec's schedule and the schedules of its groups.
        groups: Each of these replaces the settings of the spec's group with the same name. Which parameters belong to
            a group never changes. A group keeps its own optimizer, unless it is given another one here.
        weight_decay: Replaces the weight decay of every optimizer that has one, for groups without their own.
        clip_grad_norm: Replaces the spec's limit of the gradient norm.
        clip_grad_value: Replaces the spec's limit of gradient elements.
        counts_from: Whether schedules count from the start of the ``"run"`` or of this ``"phase"``. With ``"phase"``
            they also take the length of the phase for the length of the run.
        carry: What a new optimizer takes over from the one before it: ``"nothing"``, or the ``"momentum"``, which is
            the running mean of the gradients.
        momentum_warmup: Updates over which the momentum rises from 0 to its value after a switch to SGD, LARS,
            RMSprop or Muon (or at the start of the run), so that the first steps are small. Groups whose optimizer
            does not switch keep their momentum. It cannot be used with
            ``carry="momentum"``, because a momentum that starts at 0 forgets what was carried.
        batch_norm: Whether the statistics of frozen batch normalisations stay ``"still"`` or keep ``"moving"``.
        dropout: Whether dropout in frozen modules is ``"on"`` or ``"off"``.

    Raises:
        SpecError: A value is out of its bounds, or both ``frozen`` and ``trained`` are given.

    Example:
        >>> import layered_lr as ll
        >>> head_first = [ll.Phase("1 epoch", trained="head"), ll.Phase()]
        >>> spec = ll.Spec(ll.SGD(0.1), groups=[ll.Group("backbone"), ll.Group("head")], phases=head_first)
        >>> parameters = [("backbone.weight", (8, 8)), ("head.weight", (2, 8))]
        >>> plan = ll.resolve(spec, parameters, total_steps=200, steps_per_epoch=100)
        >>> plan.lr(99), plan.lr(100)
        ({'backbone': 0.0, 'head': 0.1}, {'backbone': 0.1, 'head': 0.1})
    """

    until: Annotated[Until | None, PlainValidator(_check_until)] = None
    frozen: Frozen = None
    trained: Trained = field(default=None, kw_only=True)
    optimizer: OptionalOptimizer = field(default=None, kw_only=True)
    schedule: OptionalSchedule = field(default=None, kw_only=True)
    groups: Annotated[Sequence[Group], PlainValidator(check_groups)] = field(default=(), kw_only=True)
    weight_decay: NonNegative | None = field(default=None, kw_only=True)
    clip_grad_norm: OptionalNorm = field(default=None, kw_only=True)
    clip_grad_value: Positive | None = field(default=None, kw_only=True)
    counts_from: Literal["run", "phase"] = field(default="run", kw_only=True)
    carry: Literal["nothing", "momentum"] = field(default="nothing", kw_only=True)
    momentum_warmup: Annotated[int, PlainValidator(_check_momentum_warmup)] = field(default=0, kw_only=True)
    batch_norm: Literal["still", "moving"] = field(default="still", kw_only=True)
    dropout: Literal["on", "off"] = field(default="on", kw_only=True)

    def __post_init__(self) -> None:
        if self.frozen is not None and self.trained is not None:
            raise SpecError("Phase(frozen=..., trained=...): give only one of them; the other follows from it.")
        if self.momentum_warmup and self.carry == "momentum":
            raise SpecError(
                f"Phase(carry='momentum', momentum_warmup={self.momentum_warmup}): give only one of them; a momentum "
                "that starts at 0 forgets what was carried."
            )


def phase_from_table(table: object) -> Phase:
    """Make the phase that a table describes.

    Raises:
        SpecError: A key is unknown, or a value is not allowed.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"phases: {shown(table)} is not a table such as {{until = '1 epoch', frozen = ['features']}}.")
    parts = dict(table)
    if "optimizer" in parts:
        parts["optimizer"] = optimizer_from_table(parts["optimizer"])
    if "schedule" in parts:
        parts["schedule"] = schedule_from_table(parts["schedule"])
    if "groups" in parts:
        parts["groups"] = [group_from_table(group) for group in parts["groups"]]
    return Phase(**parts)


def head_first(until: Until | float = 1, head: str | int | Sequence[str | int] = -1) -> tuple[Phase, Phase]:
    """Make two phases: first only the head trains, then everything.

    Args:
        until: How long the first phase is: a number of epochs, or a text as in ``Phase.until``.
        head: What trains in the first phase, as in ``Phase.trained``; the last group by default.

    Example:
        >>> import layered_lr as ll
        >>> [(phase.until, phase.trained) for phase in ll.phases.head_first(3)]
        [('3 epochs', (-1,)), (None, None)]
    """
    return Phase(_to_until(until), trained=head), Phase()


def gradual_unfreeze(
    order: Sequence[str | int | Sequence[str | int]] | int, every: Until | float = 1
) -> tuple[Phase, ...]:
    """Make phases that unfreeze one layer group after the other: ULMFiT (https://arxiv.org/abs/1801.06146, 3.3).

    Args:
        order: What trains from the start, what is added next, and so on, each as in ``Phase.trained``. Or a number of
            groups, which starts with the last group and adds the one before it. After these phases everything trains.
        every: How long each phase is: a number of epochs, or a text such as ``"2 epochs"`` or ``"500 steps"``.

    Raises:
        SpecError: ``order`` is empty or not allowed.

    Example:
        >>> import layered_lr as ll
        >>> for phase in ll.phases.gradual_unfreeze(["head", "layer4"], every=2):
        ...     print(phase.until, phase.trained)
        2 epochs ('head',)
        4 epochs ('head', 'layer4')
        None None
    """
    stages: list[str | int | Sequence[str | int]]
    if isinstance(order, int) and not isinstance(order, bool):
        if order > _MOST_STAGES:
            raise SpecError(f"gradual_unfreeze: order={shown(order)}: must be at most {_MOST_STAGES} groups.")
        stages = [-index for index in range(1, order + 1)]
    elif isinstance(order, list | tuple):
        stages = list(order)
    else:
        raise SpecError(
            f"gradual_unfreeze: order={shown(order)}: must be a list of what trains first, what is added next, and so "
            "on, such as ['head', 'layer4'], or a number of groups."
        )
    if not stages:
        raise SpecError("gradual_unfreeze: order is empty; name what trains first, what is added next, and so on.")
    number, unit = _split_until(every)
    trained: Which = ()
    made = []
    for place, stage in enumerate(stages, start=1):
        trained += (stage,) if isinstance(stage, str | int) else tuple(stage)
        made.append(Phase(f"{_format_number(number * place)} {unit}", trained=trained))
    return (*made, Phase())


def freeze_for_good(*frozen: str | int | Sequence[str | int]) -> tuple[Phase]:
    """Make one phase for the whole run, in which these parts do not train.

    Args:
        frozen: What does not train, each as in ``Phase.frozen``.

    Raises:
        SpecError: Nothing is named.

    Example:
        >>> import layered_lr as ll
        >>> (phase,) = ll.phases.freeze_for_good("backbone")
        >>> phase.frozen
        ('backbone',)
    """
    named = [name for item in frozen for name in (item if isinstance(item, list | tuple) else (item,))]
    if not named:
        raise SpecError("freeze_for_good: name what does not train, such as freeze_for_good('backbone').")
    return (Phase(frozen=named),)


def _to_until(until: Until | float) -> str:
    number, unit = _split_until(until)
    return f"{_format_number(number)} {unit}"


def _format_number(number: float) -> str:
    """Write a number without an exponent: 1234567, 0.5."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _split_until(until: Until | float) -> tuple[float, str]:
    if isinstance(until, str):
        found = _UNTIL.fullmatch(until)
        if found is None:
            raise SpecError(
                f"{shown(until)}: must be a text such as '3 epochs' or '500 steps', or a number of epochs > 0."
            )
        return float(found[1]), found[2]
    number = read_number(until)
    if number is None or not 0 < number < math.inf:
        raise SpecError(f"{shown(until)}: must be a text such as '3 epochs' or '500 steps', or a number of epochs > 0.")
    return number, "epochs"
