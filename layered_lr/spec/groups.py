"""A layer group: which parameters, at which rate, and with which other settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Annotated, Any, TypeAlias

from pydantic import PlainValidator

from layered_lr.errors import SpecError
from layered_lr.guesses import explain_value
from layered_lr.models.matching import Rule
from layered_lr.models.patterns import check_pattern
from layered_lr.models.where import Where, where_from_table
from layered_lr.optimizers import (
    OPTIMIZERS,
    AdjustLr,
    Betas,
    Coefficients,
    EpsPair,
    Etas,
    Finite,
    NsSteps,
    Optimizer,
    StepSizes,
)
from layered_lr.printed import shown
from layered_lr.schedules import SCHEDULES, Schedule
from layered_lr.spec.toml import optimizer_from_table, schedule_from_table
from layered_lr.validation import Flag, NonNegative, Probability, value_class

Pattern: TypeAlias = str | Where


def _check_patterns(value: object) -> Pattern | tuple[Pattern, ...]:
    if isinstance(value, list | tuple):
        if not value:
            raise SpecError("match=[]: the list is empty; give at least one module, parameter, glob or 're:<regex>'.")
        return tuple(map(_check_rule, value))
    return _check_rule(value)


def _check_rule(value: object) -> Pattern:
    rule = where_from_table(value) if isinstance(value, Mapping) else value
    if isinstance(rule, Where):
        return str(rule.value) if rule.kind == "pattern" else rule
    return check_pattern(rule)


def check_schedule(value: object) -> Schedule | None:
    """Return ``value`` if it is a schedule or None.

    Raises:
        SpecError: It is something else.
    """
    if value is None or isinstance(value, Schedule):
        return value
    raise SpecError(
        f"schedule={shown(value)}: must be a schedule of layered_lr, such as StepLR(step_size=30), or None."
        f"{explain_value(value, 'schedule', SCHEDULES)}"
    )


def check_optimizer(value: object) -> Optimizer | None:
    """Return ``value`` if it is an optimizer or None.

    Raises:
        SpecError: It is something else.
    """
    if value is None or (isinstance(value, Optimizer) and type(value) is not Optimizer):
        return value
    raise SpecError(
        f"optimizer={shown(value)}: must be an optimizer of layered_lr, such as SGD(lr=0.1), or None."
        f"{explain_value(value, 'optimizer', OPTIMIZERS)}"
    )


OptionalOptimizer = Annotated[Optimizer | None, PlainValidator(check_optimizer)]
OptionalSchedule = Annotated[Schedule | None, PlainValidator(check_schedule)]


def _check_name(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and value.isprintable()):
        return value
    raise SpecError(f"name={shown(value)}: must be a string of printable characters that is not empty, or None.")


@value_class
class Group:
    """Parameters that share a rate and all other settings.

    The rate of update ``t`` is ``lr_scale * schedule(t; lr)``. A parameter belongs to the first group that matches it.

    Each setting after ``optimizer`` (and ``weight_decay``) replaces the one of the optimizer for this group; None keeps
    the optimizer's. It is an error to give a setting that the optimizer does not have.

    Args:
        match: Which parameters. A path of a module or parameter: ``"features"`` matches ``features.0.weight``, but not
            ``features2.weight``. A glob for the whole name, with any of ``*?[`` (``*`` also matches dots). A regular
            expression for the whole name: ``"re:..."``. A rule by ``where``, such as ``where(ndim=2)``. Or a list of
            these. A name that the model has is always that name, also with such characters. Where it has none of that
            name, ``"head"`` is the layer that answers (where no forward pass shows it, the last linear layer or 1x1
            convolution) and ``"backbone"`` all the rest; the plan shows which.
        lr: The group's own rate, >= 0; None is the optimizer's.
        lr_scale: Factor of the scheduled rate, >= 0. It multiplies after the schedule, so that the ratio between groups
            also holds where a schedule reaches its lowest rate.
        schedule: The group's own schedule; None is the spec's.
        weight_decay: The group's own weight decay, >= 0.
        name: The group's name in plans and results; None takes ``match``.
        optional: Whether the group may match nothing. Otherwise that is an error.
        optimizer: The group's own optimizer, which may be of another kind than the spec's; None is the spec's. Its
            ``lr`` is the group's, unless the group has an ``lr`` too.
        momentum: Factor of the running sum (SGD, RMSprop, LARS) or mean (Muon).
        dampening: The part of each gradient that is not added to the running sum (SGD, LARS).
        nesterov: Look ahead by one momentum step (SGD, LARS, Muon).
        maximize: Follow the gradient up instead of down (every optimizer except Muon).
        betas: The two decays of the running means (Adam, AdamW, NAdam, RAdam, Adamax, LAMB, Lion, SparseAdam).
        eps: A small number that keeps the divisor away from 0 (every optimizer except SGD, Lion, ASGD
            and Rprop). Adafactor has two.
        amsgrad: Divide by the largest mean square so far (Adam, AdamW).
        decoupled_weight_decay: Decay the weights themselves (Adam, NAdam, RAdam).
        momentum_decay: How fast the momentum rises in the first updates (NAdam).
        alpha: Decay of the mean square (RMSprop), or power of the rate's decay (ASGD).
        centered: Divide by the standard deviation of the gradient (RMSprop).
        lr_decay: Decay of the rate with the number of updates (Adagrad).
        initial_accumulator_value: First value of the running sum of squares (Adagrad).
        rho: Decay of the mean squares (Adadelta).
        trust_coefficient: How far an array may move, as a fraction of its norm (LARS).
        ns_coefficients: Of the iteration that makes a matrix orthogonal (Muon).
        ns_steps: Steps of that iteration (Muon).
        adjust_lr_fn: How the rate depends on the matrix's shape (Muon).
        flatten: Take parameters of more dimensions as matrices (Muon).
        beta2_decay: How fast the mean squares forget (Adafactor).
        d: The largest root mean square of an update (Adafactor).
        lambd: Decay of the weights and of the rate (ASGD).
        t0: The update at which averaging begins (ASGD).
        etas: Factors by which a step shrinks and grows (Rprop).
        step_sizes: The least and the largest step (Rprop).

    Raises:
        SpecError: A value is out of its bounds, a pattern is empty, or a regular expression is not valid.

    Example:
        >>> import layered_lr as ll
        >>> groups = [ll.Group("backbone", lr_scale=0.1, weight_decay=0.0), ll.Group("head", lr=0.01)]
        >>> groups[0].label, groups[0].overrides
        ('backbone', {'weight_decay': 0.0})
    """

    match: Annotated[Pattern | Mapping[str, Any] | Sequence[Pattern], PlainValidator(_check_patterns)]
    lr: NonNegative | None = None
    lr_scale: NonNegative = 1.0
    schedule: OptionalSchedule = None
    weight_decay: NonNegative | None = None
    name: Annotated[str | None, PlainValidator(_check_name)] = None
    optional: Flag = False
    optimizer: OptionalOptimizer = field(default=None, kw_only=True)
    momentum: NonNegative | None = field(default=None, kw_only=True)
    dampening: Finite | None = field(default=None, kw_only=True)
    nesterov: Flag | None = field(default=None, kw_only=True)
    maximize: Flag | None = field(default=None, kw_only=True)
    betas: Betas | None = field(default=None, kw_only=True)
    eps: NonNegative | EpsPair | None = field(default=None, kw_only=True)
    amsgrad: Flag | None = field(default=None, kw_only=True)
    decoupled_weight_decay: Flag | None = field(default=None, kw_only=True)
    momentum_decay: NonNegative | None = field(default=None, kw_only=True)
    alpha: Finite | None = field(default=None, kw_only=True)
    centered: Flag | None = field(default=None, kw_only=True)
    lr_decay: NonNegative | None = field(default=None, kw_only=True)
    initial_accumulator_value: NonNegative | None = field(default=None, kw_only=True)
    rho: Probability | None = field(default=None, kw_only=True)
    trust_coefficient: NonNegative | None = field(default=None, kw_only=True)
    ns_coefficients: Coefficients | None = field(default=None, kw_only=True)
    ns_steps: NsSteps | None = field(default=None, kw_only=True)
    adjust_lr_fn: AdjustLr | None = field(default=None, kw_only=True)
    flatten: Flag | None = field(default=None, kw_only=True)
    beta2_decay: Finite | None = field(default=None, kw_only=True)
    d: NonNegative | None = field(default=None, kw_only=True)
    lambd: NonNegative | None = field(default=None, kw_only=True)
    t0: NonNegative | None = field(default=None, kw_only=True)
    etas: Etas | None = field(default=None, kw_only=True)
    step_sizes: StepSizes | None = field(default=None, kw_only=True)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """``match`` as a tuple."""
        return self.match if isinstance(self.match, tuple) else (self.match,)

    @property
    def label(self) -> str:
        """``name``, or the patterns of ``match``."""
        return self.name or ", ".join(map(str, self.patterns))

    @property
    def rule(self) -> Rule:
        """What matching needs to know about the group."""
        return Rule(self.label, self.patterns, self.optional)

    @property
    def overrides(self) -> dict[str, Any]:
        """The optimizer's settings that this group replaces, by name."""
        values = {name: getattr(self, name) for name in HYPERPARAMETERS}
        return {name: value for name, value in values.items() if value is not None}


# The settings of an optimizer that a group can replace: all of its fields except those about the group itself.
HYPERPARAMETERS = tuple(
    f.name for f in fields(Group) if f.name not in ("match", "lr_scale", "schedule", "name", "optional", "optimizer")
)


def check_groups(value: object) -> tuple[Group, ...]:
    """Return one group or several groups as a tuple.

    Raises:
        SpecError: One of them is not a group.
    """
    groups = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    for group in groups:
        if not isinstance(group, Group):
            raise SpecError(
                f"groups: {shown(group)} is not a Group, such as Group('features', lr_scale=0.1)."
                f"{explain_value(group, 'group', ['Group'])}"
            )
    return groups


def group_from_table(table: object) -> Group:
    """Make the group that a table describes.

    Raises:
        SpecError: A key is unknown, or a value is not allowed.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"groups: {shown(table)} is not a table such as {{match = 'features', lr_scale = 0.1}}.")
    parts = dict(table)
    if "schedule" in parts:
        parts["schedule"] = schedule_from_table(parts["schedule"])
    if "optimizer" in parts:
        parts["optimizer"] = optimizer_from_table(parts["optimizer"])
    return Group(**parts)
