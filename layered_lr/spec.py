"""What the user writes: layer groups with their rates, an optimizer, a schedule; immutable, from TOML and to it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import PlainValidator

from layered_lr.errors import SpecError
from layered_lr.matching import ONE_DIMENSIONAL, Rule, check_pattern
from layered_lr.optimizers import Betas, Finite, Optimizer
from layered_lr.schedules import Schedule
from layered_lr.tables import optimizer_from_table, schedule_from_table, to_table
from layered_lr.validation import Flag, NonNegative, Positive, Probability, nearest, plain_number, value_class

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUN_TABLE = "run"  # a recipe's own table: how to run the spec, not part of it


def _patterns(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        if not value:
            raise SpecError("match=[]: the list is empty; name at least one module, parameter, glob or 're:<regex>'.")
        return tuple(check_pattern(pattern) for pattern in value)
    return check_pattern(value)


def _schedule(value: Any) -> Schedule | None:
    if value is None or isinstance(value, Schedule):
        return value
    raise SpecError(f"schedule={value!r}: must be a schedule of layered_lr, such as StepLR(step_size=30), or None.")


def _optimizer(value: Any) -> Optimizer:
    if isinstance(value, Optimizer) and type(value) is not Optimizer:
        return value
    raise SpecError(f"optimizer={value!r}: must be an optimizer of layered_lr, such as SGD(lr=0.1).")


def _name(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and value.isprintable()):
        return value
    raise SpecError(f"name={value!r}: must be a string of printable characters that is not empty, or None.")


def _groups(value: Any) -> tuple[Group, ...]:
    groups = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    for group in groups:
        if not isinstance(group, Group):
            raise SpecError(f"groups: {group!r} is not a Group, such as Group('features', lr_scale=0.1).")
    return groups


def _undecayed(value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple):
        raise SpecError(
            f"no_weight_decay={value!r}: must be {ONE_DIMENSIONAL!r} (biases and whatever has one dimension), a "
            "pattern as in Group.match, or a list of these."
        )
    return tuple(check_pattern(pattern, "no_weight_decay") for pattern in patterns)


def _norm(value: Any) -> float | None:
    number = plain_number(value)
    if number is None or (isinstance(number, int | float) and not isinstance(number, bool) and number > 0):
        return None if number is None else float(number)
    raise SpecError(f"clip_grad_norm={value!r}: must be a number > 0 (infinity only measures), or None.")


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

    match: Annotated[str | Sequence[str], PlainValidator(_patterns)]
    lr: NonNegative | None = None
    lr_scale: NonNegative = 1.0
    schedule: Annotated[Schedule | None, PlainValidator(_schedule)] = None
    weight_decay: NonNegative | None = None
    name: Annotated[str | None, PlainValidator(_name)] = None
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


@value_class
class Spec:
    """Layer groups with their rates, an optimizer and a schedule, for any backend.

    Args:
        optimizer: The update rule, and the values for whatever a group leaves out.
        groups: In priority order. What no group matches forms a last group, ``rest``.
        schedule: Of every group without its own; None is a constant rate.
        no_weight_decay: Parameters that never decay, whatever their group says: ``"1d"`` (every bias, and every
            parameter of at most one dimension, as timm and transformers do), patterns as in ``Group.match``, or a
            list of these. Their groups stay as they are.
        clip_grad_norm: Scale all gradients down together where their norm over all groups is more than this, as
            ``torch.nn.utils.clip_grad_norm_``; > 0, and infinity only measures.
        clip_grad_value: Cut each element of a gradient to this size, as ``torch.nn.utils.clip_grad_value_``; > 0.
        clip_per_group: Each group has a norm of its own, and is scaled by itself.

    Raises:
        SpecError: Two groups of one name, a group that overrides what the optimizer does not have, or both ways to
            clip at once.
    """

    optimizer: Annotated[Optimizer, PlainValidator(_optimizer)]
    groups: Annotated[Sequence[Group], PlainValidator(_groups)] = ()
    schedule: Annotated[Schedule | None, PlainValidator(_schedule)] = None
    no_weight_decay: Annotated[str | Sequence[str], PlainValidator(_undecayed)] = field(default=(), kw_only=True)
    clip_grad_norm: Annotated[float | None, PlainValidator(_norm)] = field(default=None, kw_only=True)
    clip_grad_value: Positive | None = field(default=None, kw_only=True)
    clip_per_group: Flag = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.clip_grad_norm is not None and self.clip_grad_value is not None:
            raise SpecError(
                f"Spec(clip_grad_norm={self.clip_grad_norm:g}, clip_grad_value={self.clip_grad_value:g}): choose one."
            )
        if self.clip_per_group and self.clip_grad_norm is None:
            raise SpecError("Spec(clip_per_group=True): needs clip_grad_norm, the largest norm of each group.")
        kind = type(self.optimizer)
        known = [f.name for f in fields(kind)]
        seen: set[str] = set()
        for group in self.groups:
            if group.label in seen:
                raise SpecError(f"two groups are called {group.label!r}: give one of them another name=...")
            seen.add(group.label)
            for name in group.overrides:
                if name not in known:
                    raise SpecError(
                        f"group {group.label!r} sets {name}, which {kind.__name__} does not have."
                        f"{nearest(name, known)} It has: {', '.join(known)}."
                    )
            self.optimizer_of(group)

    def optimizer_of(self, group: Group) -> Optimizer:
        """The optimizer with what this group sets for itself.

        Raises:
            SpecError: What the group sets does not go with the rest.
        """
        try:
            return replace(self.optimizer, **group.overrides)
        except SpecError as error:
            raise SpecError(f"group {group.label!r}: {error}") from None

    def to_toml(self) -> str:
        """The spec as TOML, from which ``from_toml`` makes an equal one."""
        return tomli_w.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain tables, lists, strings and numbers."""
        return to_table(self)

    @classmethod
    def from_toml(cls, text_or_path: str | Path) -> Spec:
        """The spec that a TOML text or file describes; a recipe's ``[run]`` table is not part of it.

        Args:
            text_or_path: A ``Path``, a string that ends in ``.toml``, or the text itself.

        Raises:
            SpecError: No such file, not TOML, an unknown key or a value that is not allowed.
        """
        table = read_toml(text_or_path)
        table.pop(RUN_TABLE, None)
        return cls.from_dict(table)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Spec:
        """The spec that ``to_dict`` was called on.

        Raises:
            SpecError: An unknown key or a value that is not allowed.
        """
        if not isinstance(table, Mapping):
            raise SpecError(f"a spec's table must be a mapping, got a {type(table).__name__}.")
        parts = dict(table)
        if "optimizer" not in parts:
            raise SpecError("a spec needs an [optimizer] table, such as: [optimizer] type = 'SGD', lr = 0.1")
        parts["optimizer"] = optimizer_from_table(parts["optimizer"])
        if "schedule" in parts:
            parts["schedule"] = schedule_from_table(parts["schedule"])
        groups = parts.get("groups", [])
        if not isinstance(groups, list | tuple):
            raise SpecError("groups must be an array of tables: write [[groups]] above each of them.")
        parts["groups"] = [_group_from_table(group) for group in groups]
        return cls(**parts)


def _group_from_table(table: Any) -> Group:
    if not isinstance(table, Mapping):
        raise SpecError(f"groups: {table!r} is not a table such as {{match = 'features', lr_scale = 0.1}}.")
    parts = dict(table)
    if "schedule" in parts:
        parts["schedule"] = schedule_from_table(parts["schedule"])
    return Group(**parts)


def read_toml(text_or_path: str | Path) -> dict[str, Any]:
    """The tables of a TOML text or file.

    Raises:
        SpecError: No such file, or not TOML; the message says where.
    """
    if not isinstance(text_or_path, str | Path):
        raise SpecError(f"TOML: got a {type(text_or_path).__name__}; must be a text or a path.")
    is_path = isinstance(text_or_path, Path) or (text_or_path.endswith(".toml") and "\n" not in text_or_path)
    if not is_path:
        text = str(text_or_path)
        if text.strip() and not any(character in text for character in "=\n["):
            raise SpecError(f"{text!r} is neither TOML nor the path of a .toml file.")
        return _parsed(text, "the TOML text")
    path = Path(text_or_path)
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file. Give the path of a TOML recipe.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a TOML text: {error}") from None


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where} is not valid TOML: {error}") from None
