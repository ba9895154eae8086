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
from layered_lr.models.matching import ONE_DIMENSIONAL, check_pattern
from layered_lr.optimizers import Optimizer
from layered_lr.spec.groups import Group, OptionalSchedule, check_groups, group_from_table
from layered_lr.spec.phases import OptionalNorm, Phase, phase_from_table
from layered_lr.spec.toml import optimizer_from_table, read_toml, schedule_from_table, to_table
from layered_lr.validation import Flag, Positive, did_you_mean, value_class

if sys.version_info >= (3, 11):
    pass
else:
    pass

RUN_TABLE = "run"  # a recipe's own table: how to run the spec, not part of it


def _check_optimizer(value: Any) -> Optimizer:
    if isinstance(value, Optimizer) and type(value) is not Optimizer:
        return value
    raise SpecError(f"optimizer={value!r}: must be an optimizer of layered_lr, such as SGD(lr=0.1).")


def _check_phases(value: Any) -> tuple[Phase, ...]:
    phases = tuple(value) if isinstance(value, list | tuple) else (value,)
    for phase in phases:
        if not isinstance(phase, Phase):
            raise SpecError(f"phases: {phase!r} is not a Phase, such as Phase('1 epoch', frozen='features').")
    return phases


def _check_undecayed(value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple):
        raise SpecError(
            f"no_weight_decay={value!r}: must be {ONE_DIMENSIONAL!r} (biases and whatever has one dimension), a "
            "pattern as in Group.match, or a list of these."
        )
    return tuple(check_pattern(pattern, "no_weight_decay") for pattern in patterns)


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
        phases: The run as a timeline, one after the other; empty is one phase with nothing frozen. Which parameter
            belongs to which group never changes.

    Raises:
        SpecError: Two groups of one name, a group that overrides what the optimizer does not have, both ways to clip
            at once, or a phase that does not go with the rest.
    """

    optimizer: Annotated[Optimizer, PlainValidator(_check_optimizer)]
    groups: Annotated[Sequence[Group], PlainValidator(check_groups)] = ()
    schedule: OptionalSchedule = None
    no_weight_decay: Annotated[str | Sequence[str], PlainValidator(_check_undecayed)] = field(default=(), kw_only=True)
    clip_grad_norm: OptionalNorm = field(default=None, kw_only=True)
    clip_grad_value: Positive | None = field(default=None, kw_only=True)
    clip_per_group: Flag = field(default=False, kw_only=True)
    phases: Annotated[Sequence[Phase], PlainValidator(_check_phases)] = field(default=(), kw_only=True)

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
                        f"{did_you_mean(name, known)} It has: {', '.join(known)}."
                    )
            self.optimizer_of(group)
        for number, phase in enumerate(self.phases, start=1):
            self._check_phase(number, phase)

    def _check_phase(self, number: int, phase: Phase) -> None:
        last = number == len(self.phases)
        if phase.until is None and not last:
            raise SpecError(
                f"phase {number}: needs until=..., such as '3 epochs': only the last phase goes on to the end."
            )
        try:
            self.in_phase(phase)
        except SpecError as error:
            raise SpecError(f"phase {number}: {error}") from None

    def in_phase(self, phase: Phase) -> Spec:
        """The spec as it is in one of its phases, without phases.

        Raises:
            SpecError: The phase does not go with the rest.
        """
        known = {group.label: group for group in self.groups}
        own = {group.label: group for group in phase.groups}
        for label, group in own.items():
            if label not in known:
                raise SpecError(
                    f"groups: the spec has no group {label!r}.{did_you_mean(label, known)} It has: {', '.join(known)}."
                )
            if group.match not in (known[label].match, label):
                raise SpecError(f"groups: {label!r} is {known[label].match!r} in the whole run, {group.match!r} here.")
        groups = [
            replace(own[label], match=group.match, name=group.name, optional=group.optional) if label in own else group
            for label, group in known.items()
        ]
        if phase.schedule is not None:
            groups = [group if group.label in own else replace(group, schedule=None) for group in groups]
        optimizer = phase.optimizer or self.optimizer
        if phase.weight_decay is not None:
            optimizer = replace(optimizer, weight_decay=phase.weight_decay)
        norm, value = phase.clip_grad_norm, phase.clip_grad_value
        if norm is None and value is None:
            norm, value = self.clip_grad_norm, self.clip_grad_value
        return replace(
            self,
            optimizer=optimizer,
            groups=groups,
            schedule=phase.schedule or self.schedule,
            clip_grad_norm=norm,
            clip_grad_value=value,
            clip_per_group=self.clip_per_group and norm is not None,
            phases=(),
        )

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
        parts["groups"] = [group_from_table(group) for group in groups]
        phases = parts.get("phases", [])
        if not isinstance(phases, list | tuple):
            raise SpecError("phases must be an array of tables: write [[phases]] above each of them.")
        parts["phases"] = [phase_from_table(phase) for phase in phases]
        return cls(**parts)
