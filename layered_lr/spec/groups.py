"""A layer group: which parameters, at which rate, and what else they have for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Annotated, Any

from pydantic import PlainValidator

from layered_lr.errors import SpecError
from layered_lr.models.matching import Rule, check_pattern
from layered_lr.optimizers import Betas, Finite
from layered_lr.schedules import Schedule
from layered_lr.spec.toml import schedule_from_table
from layered_lr.validation import Flag, NonNegative, Probability, value_class


def _check_patterns(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        if not value:
            raise SpecError("match=[]: the list is empty; name at least one module, parameter, glob or 're:<regex>'.")
        return tuple(check_pattern(pattern) for pattern in value)
    return check_pattern(value)


def check_schedule(value: Any) -> Schedule | None:
    """``value``, if it is a schedule or None.

    Raises:
        SpecError: Something else.
    """
    if value is None or isinstance(value, Schedule):
        return value
    raise SpecError(f"schedule={value!r}: must be a schedule of layered_lr, such as StepLR(step_size=30), or None.")


OptionalSchedule = Annotated[Schedule | None, PlainValidator(check_schedule)]


def _check_name(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and value.isprintable()):
        return value
    raise SpecError(f"name={value!r}: must be a string of printable characters that is not empty, or None.")


@value_class
class Group:
    """Parameters that share a rate.

    The rate of update ``t`` is ``lr_scale * schedule(t; lr)``.

    Args:
        match: Which parameters: a module or parameter path (``"features"`` takes ``features.0.weight``, never
            ``features2.weight``), a glob over the whole name where it holds any of ``*?[`` (``*`` crosses dots),
            ``"re:..."``, a regular expression for the whole name, or a list of these. A parameter belongs to the
            first group that matches it.
        lr: The group's own rate, >= 0; None takes the optimizer's.
        lr_scale: Factor of the scheduled rate, >= 0. It multiplies after the schedule, so no floor of a schedule
            changes the ratio between groups.
        schedule: The group's own schedule; None takes the spec's.
        weight_decay: Instead of the optimizer's. Likewise each of the other hyperparameters below, if the spec's
            optimizer has it: names and meaning are the optimizer's.
        name: How plans and results call the group; None takes ``match``.
        optional: The group may match nothing; otherwise that is an error.
        momentum: See ``SGD``, ``RMSprop``, ``LARS``.
        dampening: See ``SGD``, ``LARS``.
        nesterov: See ``SGD``, ``LARS``.
        maximize: See every optimizer.
        betas: See ``Adam`` and its kin, ``LAMB``, ``Lion``.
        eps: See every optimizer but ``SGD`` and ``Lion``.
        amsgrad: See ``Adam``, ``AdamW``.
        decoupled_weight_decay: See ``Adam``, ``NAdam``, ``RAdam``.
        momentum_decay: See ``NAdam``.
        alpha: See ``RMSprop``.
        centered: See ``RMSprop``.
        lr_decay: See ``Adagrad``.
        initial_accumulator_value: See ``Adagrad``.
        rho: See ``Adadelta``.
        trust_coefficient: See ``LARS``.

    Raises:
        SpecError: A value out of its bounds, an empty pattern or an invalid regular expression.
    """

    match: Annotated[str | Sequence[str], PlainValidator(_check_patterns)]
    lr: NonNegative | None = None
    lr_scale: NonNegative = 1.0
    schedule: OptionalSchedule = None
    weight_decay: NonNegative | None = None
    name: Annotated[str | None, PlainValidator(_check_name)] = None
    optional: Flag = False
    momentum: NonNegative | None = field(default=None, kw_only=True)
    dampening: Finite | None = field(default=None, kw_only=True)
    nesterov: Flag | None = field(default=None, kw_only=True)
    maximize: Flag | None = field(default=None, kw_only=True)
    betas: Betas | None = field(default=None, kw_only=True)
    eps: NonNegative | None = field(default=None, kw_only=True)
    amsgrad: Flag | None = field(default=None, kw_only=True)
    decoupled_weight_decay: Flag | None = field(default=None, kw_only=True)
    momentum_decay: NonNegative | None = field(default=None, kw_only=True)
    alpha: Probability | None = field(default=None, kw_only=True)
    centered: Flag | None = field(default=None, kw_only=True)
    lr_decay: NonNegative | None = field(default=None, kw_only=True)
    initial_accumulator_value: NonNegative | None = field(default=None, kw_only=True)
    rho: Probability | None = field(default=None, kw_only=True)
    trust_coefficient: NonNegative | None = field(default=None, kw_only=True)

    @property
    def patterns(self) -> tuple[str, ...]:
        """``match`` as a tuple."""
        return (self.match,) if isinstance(self.match, str) else tuple(self.match)

    @property
    def label(self) -> str:
        """``name``, or what ``match`` says."""
        return self.name or ", ".join(self.patterns)

    @property
    def rule(self) -> Rule:
        """The group as matching sees it."""
        return Rule(self.label, self.patterns, self.optional)

    @property
    def overrides(self) -> dict[str, Any]:
        """The optimizer's hyperparameters that this group sets for itself."""
        values = {name: getattr(self, name) for name in HYPERPARAMETERS}
        return {name: value for name, value in values.items() if value is not None}


# What a group may override: each of its fields that is not about the group itself is a hyperparameter's name.
HYPERPARAMETERS = tuple(
    f.name for f in fields(Group) if f.name not in ("match", "lr_scale", "schedule", "name", "optional")
)


def check_groups(value: Any) -> tuple[Group, ...]:
    """One group or several, as a tuple.

    Raises:
        SpecError: Something else among them.
    """
    groups = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    for group in groups:
        if not isinstance(group, Group):
            raise SpecError(f"groups: {group!r} is not a Group, such as Group('features', lr_scale=0.1).")
    return groups


def group_from_table(table: Any) -> Group:
    """The group that a table describes.

    Raises:
        SpecError: An unknown key or a value that is not allowed.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"groups: {table!r} is not a table such as {{match = 'features', lr_scale = 0.1}}.")
    parts = dict(table)
    if "schedule" in parts:
        parts["schedule"] = schedule_from_table(parts["schedule"])
    return Group(**parts)
