"""Phases: the run as a timeline of what trains, with which optimizer, at which rates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

from layered_lr.counts import whole_number
from layered_lr.errors import SpecError
from layered_lr.models.matching import check_pattern
from layered_lr.optimizers import Optimizer
from layered_lr.spec.groups import Group, OptionalSchedule, check_groups, group_from_table
from layered_lr.spec.toml import optimizer_from_table, schedule_from_table
from layered_lr.validation import NonNegative, Positive, unwrap_scalar, value_class

_UNTIL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(step|steps|epoch|epochs)\s*")

Until = int | str


def _check_until(value: Any) -> Until | None:
    if value is None:
        return None
    if isinstance(value, str):
        found = _UNTIL.fullmatch(value)
        if found and 0 < float(found[1]) < math.inf and (float(found[1]).is_integer() or found[2].startswith("epoch")):
            return value
        raise SpecError(f"until={value!r}: must be such as '3 epochs', '500 steps', or a whole number of updates.")
    return whole_number("until", value, 1)


def steps_until(until: Until, steps_per_epoch: int | None) -> int:
    """The update at which a phase ends, counted from the start of the run.

    Args:
        until: A number of updates, ``"500 steps"`` or ``"1.5 epochs"`` (rounded to whole updates).
        steps_per_epoch: Updates of an epoch, if known.

    Raises:
        SpecError: Epochs, and nobody knows how long one is; or less than one update.
    """
    if isinstance(until, int):
        return until
    found = _UNTIL.fullmatch(until)
    if found is None:
        raise SpecError(f"until={until!r}: must be such as '3 epochs', '500 steps', or a whole number of updates.")
    number, unit = float(found[1]), found[2]
    if unit.startswith("epoch"):
        if steps_per_epoch is None:
            raise SpecError(f"until={until!r} counts epochs: give steps_per_epoch=..., or count steps.")
        number *= steps_per_epoch
    if round(number) < 1:
        raise SpecError(f"until={until!r}: is less than one update.")
    return round(number)


def _check_which(name: str, value: Any) -> tuple[str | int, ...] | None:
    if value is None:
        return None
    given = (value,) if isinstance(value, str | int) else value
    if not isinstance(given, list | tuple) or isinstance(value, bool):
        raise SpecError(f"{name}={value!r}: must be a group's name, its index, a pattern, or a list of these.")
    return tuple(
        item if isinstance(item, int) and not isinstance(item, bool) else check_pattern(item, name) for item in given
    )


def _check_frozen(value: Any) -> tuple[str | int, ...] | None:
    return _check_which("frozen", value)


def _check_trained(value: Any) -> tuple[str | int, ...] | None:
    return _check_which("trained", value)


def _check_norm(value: Any) -> float | None:
    number = unwrap_scalar(value)
    if number is None or (isinstance(number, int | float) and not isinstance(number, bool) and number > 0):
        return None if number is None else float(number)
    raise SpecError(f"clip_grad_norm={value!r}: must be a number > 0 (infinity only measures), or None.")


def _check_optimizer(value: Any) -> Optimizer | None:
    if value is None or (isinstance(value, Optimizer) and type(value) is not Optimizer):
        return value
    raise SpecError(f"optimizer={value!r}: must be an optimizer of layered_lr, such as SGD(lr=0.1), or None.")


OptionalNorm = Annotated[float | None, PlainValidator(_check_norm)]
Which = tuple[str | int, ...]


@value_class
class Phase:
    """A part of the run in which the same parameters train with the same optimizer.

    What a phase leaves out is as the spec says it, whatever the phase before said. Frozen weights stay as they are,
    bitwise: no gradient, no decay, no momentum; what the optimizer keeps of them waits for them.

    Args:
        until: When the phase ends, counted from the start of the run: ``"3 epochs"``, ``"500 steps"`` or a whole
            number of updates. None is the end of the run, and only for the last phase. Where the last phase ends
            before the run does, the spec without phases follows.
        frozen: What does not train: names or indices of groups (-1 is the last one), or patterns as in
            ``Group.match``.
        trained: The other way round: nothing but this trains. Not both.
        optimizer: Instead of the spec's.
        schedule: Instead of the spec's and of the groups' own.
        groups: Instead of the spec's groups of the same names, with everything they say; what belongs to each stays.
        weight_decay: Instead of the optimizer's, for groups without their own.
        clip_grad_norm: Instead of the spec's.
        clip_grad_value: Instead of the spec's.
        counts_from: What a schedule counts from in this phase: the start of the ``"run"``, or of the ``"phase"``
            (whose length it then takes for the run's).
        carry: What a new optimizer takes over from the one before: ``"nothing"``, or its ``"momentum"`` (the running
            mean of the gradient; see ``momentum_warmup``).
        momentum_warmup: After a switch to SGD, LARS or RMSprop with momentum (or at the start of the run), updates
            over which the momentum rises from 0 to its value, so that the first steps are no shock. Not together
            with ``carry="momentum"``, which it would forget.
        batch_norm: Whether statistics of wholly frozen batch normalisations stay ``"still"`` or go on ``"moving"``.
        dropout: Whether dropout in frozen modules is ``"on"`` or ``"off"``.

    Raises:
        SpecError: A value out of its bounds, or both ``frozen`` and ``trained``.
    """

    until: Annotated[Until | None, PlainValidator(_check_until)] = None
    frozen: Annotated[Which | None, PlainValidator(_check_frozen)] = None
    trained: Annotated[Which | None, PlainValidator(_check_trained)] = field(default=None, kw_only=True)
    optimizer: Annotated[Optimizer | None, PlainValidator(_check_optimizer)] = field(default=None, kw_only=True)
    schedule: OptionalSchedule = field(default=None, kw_only=True)
    groups: Annotated[Sequence[Group], PlainValidator(check_groups)] = field(default=(), kw_only=True)
    weight_decay: NonNegative | None = field(default=None, kw_only=True)
    clip_grad_norm: OptionalNorm = field(default=None, kw_only=True)
    clip_grad_value: Positive | None = field(default=None, kw_only=True)
    counts_from: Literal["run", "phase"] = field(default="run", kw_only=True)
    carry: Literal["nothing", "momentum"] = field(default="nothing", kw_only=True)
    momentum_warmup: Annotated[int, PlainValidator(lambda value: whole_number("momentum_warmup", value, 0))] = field(
        default=0, kw_only=True
    )
    batch_norm: Literal["still", "moving"] = field(default="still", kw_only=True)
    dropout: Literal["on", "off"] = field(default="on", kw_only=True)

    def __post_init__(self) -> None:
        if self.frozen is not None and self.trained is not None:
            raise SpecError("Phase(frozen=..., trained=...): say one of them, the other follows.")
        if self.momentum_warmup and self.carry == "momentum":
            raise SpecError(
                f"Phase(carry='momentum', momentum_warmup={self.momentum_warmup}): choose one; a momentum that begins "
                "at 0 forgets what was carried over."
            )


def phase_from_table(table: Any) -> Phase:
    """The phase that a table describes.

    Raises:
        SpecError: An unknown key or a value that is not allowed.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"phases: {table!r} is not a table such as {{until = '1 epoch', frozen = ['features']}}.")
    parts = dict(table)
    if "optimizer" in parts:
        parts["optimizer"] = optimizer_from_table(parts["optimizer"])
    if "schedule" in parts:
        parts["schedule"] = schedule_from_table(parts["schedule"])
    if "groups" in parts:
        parts["groups"] = [group_from_table(group) for group in parts["groups"]]
    return Phase(**parts)


def head_first(until: Until | float = 1, head: str | int | Sequence[str | int] = -1) -> tuple[Phase, Phase]:
    """The head alone for a while, then everything.

    Args:
        until: How long: epochs as a number, or as in ``Phase.until``.
        head: What trains from the start: as in ``Phase.trained``; the last group by default.
    """
    return Phase(_to_until(until), trained=head), Phase()  # type: ignore[arg-type] # validated


def gradual_unfreeze(
    order: Sequence[str | int | Sequence[str | int]] | int, every: Until | float = 1
) -> tuple[Phase, ...]:
    """One more layer group after the other, from the top: ULMFiT (https://arxiv.org/abs/1801.06146, 3.3).

    Args:
        order: What trains from the start, what joins next, and so on, as in ``Phase.trained``; or how many of the
            last groups, the last one first. After them everything trains.
        every: How long each stage is: epochs as a number, or ``"2 epochs"``, ``"500 steps"``.

    Raises:
        SpecError: Nothing to unfreeze.
    """
    if isinstance(order, int) and not isinstance(order, bool):
        stages: list[Any] = [-index for index in range(1, order + 1)]
    elif isinstance(order, list | tuple):
        stages = list(order)
    else:
        raise SpecError(
            f"gradual_unfreeze: order={order!r}: must be a list of what trains first, what joins next, and so on, such "
            "as ['head', 'layer4'], or how many of the last groups."
        )
    if not stages:
        raise SpecError("gradual_unfreeze: order is empty; name what trains first, what joins next, and so on.")
    number, unit = _split_until(every)
    trained: tuple[str | int, ...] = ()
    made = []
    for place, stage in enumerate(stages, start=1):
        trained += (stage,) if isinstance(stage, str | int) else tuple(stage)
        made.append(Phase(f"{_format_number(number * place)} {unit}", trained=trained))
    return (*made, Phase())


def freeze_for_good(*frozen: str | int | Sequence[str | int]) -> tuple[Phase]:
    """One phase: the whole run without these (as in ``Phase.frozen``).

    Raises:
        SpecError: Nothing is named.
    """
    named = [name for item in frozen for name in (item if isinstance(item, list | tuple) else (item,))]
    if not named:
        raise SpecError("freeze_for_good: name what does not train, such as freeze_for_good('backbone').")
    return (Phase(frozen=named),)  # type: ignore[arg-type] # validated


def _to_until(until: Until | float) -> str:
    number, unit = _split_until(until)
    return f"{_format_number(number)} {unit}"


def _format_number(number: float) -> str:
    """In digits without an exponent: 1234567, 0.5."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def _split_until(until: Until | float) -> tuple[float, str]:
    if isinstance(until, str):
        found = _UNTIL.fullmatch(until)
        if found is None:
            raise SpecError(f"{until!r}: must be such as '3 epochs' or '500 steps', or a number of epochs.")
        return float(found[1]), found[2]
    number = unwrap_scalar(until)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise SpecError(f"{until!r}: must be such as '3 epochs' or '500 steps', or a number of epochs > 0.")
    return float(number), "epochs"
