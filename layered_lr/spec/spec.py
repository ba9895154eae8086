"""The spec: layer groups with their rates, an optimizer and a schedule; immutable, and readable from TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import PlainValidator

from layered_lr.errors import SpecError
from layered_lr.guesses import explain_guess, explain_value
from layered_lr.models.matching import ONE_DIMENSIONAL
from layered_lr.models.patterns import check_pattern
from layered_lr.models.where import Where
from layered_lr.optimizers import LBFGS, OPTIMIZERS, Optimizer
from layered_lr.printed import shown
from layered_lr.schedules.reference import trusting
from layered_lr.spec.discriminative import groups_from_table
from layered_lr.spec.groups import Group, OptionalSchedule, check_groups, group_from_table
from layered_lr.spec.phases import OptionalNorm, Phase, phase_from_table
from layered_lr.spec.toml import check_depth, optimizer_from_table, read_toml, schedule_from_table, to_table
from layered_lr.spelling import did_you_mean, find_nearest
from layered_lr.validation import Flag, LayerFactor, Positive, value_class
from layered_lr.yes_or_no import check_yes_or_no

RUN_TABLE = "run"  # the table of a recipe that says how to run the spec; it is not part of the spec


def _check_optimizer(value: object) -> Optimizer:
    if isinstance(value, Optimizer) and type(value) is not Optimizer:
        return value
    raise SpecError(
        f"optimizer={shown(value)}: must be an optimizer of layered_lr, such as SGD(lr=0.1)."
        f"{explain_value(value, 'optimizer', OPTIMIZERS)}"
    )


def _check_phases(value: object) -> tuple[Phase, ...]:
    phases = tuple(value) if isinstance(value, list | tuple) else (value,)
    for phase in phases:
        if not isinstance(phase, Phase):
            raise SpecError(
                f"phases: {shown(phase)} is not a Phase, such as Phase('1 epoch', frozen='features')."
                f"{explain_value(phase, 'phase', ['Phase'])}"
            )
    return phases


def _check_undecayed(value: object) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple):
        raise SpecError(
            f"no_weight_decay={shown(value)}: must be {ONE_DIMENSIONAL!r} (every bias, and every parameter of at most "
            "one dimension), a pattern as in Group.match, or a list of these."
        )
    return tuple(check_pattern(pattern, "no_weight_decay") for pattern in patterns)


@value_class
class Spec:
    """Layer groups with their rates, an optimizer and a schedule, for any backend.

    Args:
        optimizer: The update rule of every group without its own, and the settings that such a group leaves out.
        groups: Layer groups in priority order. Parameters that no group matches go into a last group, ``rest``.
        schedule: The schedule of every group without its own; None is a constant rate.
        no_weight_decay: Parameters that never decay, in every group: ``"1d"`` (every bias, and every parameter of at
            most one dimension, as in timm and transformers), patterns as in ``Group.match``, or a list of these. They
            stay in their groups.
        clip_grad_norm: The largest norm of the gradients of all groups together, > 0. If it is larger, all gradients
            are scaled down, as with ``torch.nn.utils.clip_grad_norm_``. Infinity only measures the norm.
        clip_grad_value: The largest size of each element of a gradient, > 0, as with
            ``torch.nn.utils.clip_grad_value_``.
        clip_per_group: Whether ``clip_grad_norm`` holds for the norm of each group alone.
        layer_decay: Parameters that no group matches form a group for each layer, ``layer 0`` (next to the images) to
            the head's. Its ``lr_scale`` is ``layer_decay`` to the power of the number of layers above it: > 0, at most
            1. The function ``layer_decay`` tells how layers are counted.
        phases: Parts of the run, one after the other, such as a phase with a frozen backbone. Without phases everything
            trains. Which parameter belongs to which group never changes.

    Raises:
        SpecError: Two groups have the same name, a group sets what the optimizer does not have, both ways to clip are
            given, or a phase does not fit the groups.

    Example:
        >>> import layered_lr as ll
        >>> spec = ll.Spec(
        ...     ll.SGD(lr=0.1, momentum=0.9),
        ...     groups=[ll.Group("backbone", lr_scale=0.5), ll.Group("head")],
        ...     schedule=ll.ExponentialLR(gamma=0.5),
        ... )
        >>> plan = ll.resolve(spec, [("backbone.weight", (8, 8)), ("head.weight", (2, 8))])
        >>> plan.lr(0), plan.lr(1)
        ({'backbone': 0.05, 'head': 0.1}, {'backbone': 0.025, 'head': 0.05})
        >>> ll.Spec.from_toml(spec.to_toml()) == spec
        True
    """

    optimizer: Annotated[Optimizer, PlainValidator(_check_optimizer)]
    groups: Annotated[Sequence[Group], PlainValidator(check_groups)] = ()
    schedule: OptionalSchedule = None
    no_weight_decay: Annotated[str | Sequence[str], PlainValidator(_check_undecayed)] = field(default=(), kw_only=True)
    clip_grad_norm: OptionalNorm = field(default=None, kw_only=True)
    clip_grad_value: Positive | None = field(default=None, kw_only=True)
    clip_per_group: Flag = field(default=False, kw_only=True)
    layer_decay: LayerFactor | None = field(default=None, kw_only=True)
    phases: Annotated[Sequence[Phase], PlainValidator(_check_phases)] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.clip_grad_norm is not None and self.clip_grad_value is not None:
            raise SpecError(
                f"Spec(clip_grad_norm={self.clip_grad_norm:g}, clip_grad_value={self.clip_grad_value:g}): give only "
                "one of them."
            )
        if self.clip_per_group and self.clip_grad_norm is None:
            raise SpecError("Spec(clip_per_group=True): give clip_grad_norm=... too, the largest norm of each group.")
        for group in self.groups:
            if isinstance(group.optimizer, LBFGS):
                raise SpecError(
                    f"group {group.label!r}: optimizer=LBFGS(...): LBFGS moves all parameters as one vector, so that "
                    "it cannot be the optimizer of one group. Give the group another one, or make a spec of LBFGS "
                    "alone."
                )
        if isinstance(self.optimizer, LBFGS) and (self.groups or self.phases):
            what = "groups" if self.groups else "phases"
            raise SpecError(
                f"Spec(LBFGS(...), {what}=...): LBFGS moves all parameters as one vector, at one rate. Leave {what} "
                "out, or use another optimizer."
            )
        seen: set[str] = set()
        for group in self.groups:
            if group.label in seen:
                raise SpecError(f"two groups are called {group.label!r}: give one of them another name=... .")
            seen.add(group.label)
            kind = type(group.optimizer or self.optimizer)
            known = [f.name for f in fields(kind)]
            for name in group.overrides:
                if name not in known:
                    raise SpecError(
                        f"group {group.label!r} sets {name}, which {kind.__name__} does not have."
                        f"{explain_guess('optimizer', name, known)} It has: {', '.join(known)}."
                    )
            self.optimizer_of(group)
        for number, phase in enumerate(self.phases, start=1):
            self._check_phase(number, phase)

    def _check_phase(self, number: int, phase: Phase) -> None:
        last = number == len(self.phases)
        if phase.until is None and not last:
            raise SpecError(
                f"phase {number}: needs until=..., such as '3 epochs': only the last phase may go on to the end."
            )
        try:
            self.in_phase(phase)
        except SpecError as error:
            raise SpecError(f"phase {number}: {error}") from None

    def in_phase(self, phase: Phase) -> Spec:
        """Return the spec as it is in one of its phases; the result has no phases.

        Raises:
            SpecError: The phase does not fit the groups or the optimizer.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1), phases=[ll.Phase("2 steps", optimizer=ll.Adam(0.01)), ll.Phase()])
            >>> spec.in_phase(spec.phases[0]).optimizer.lr
            0.01
        """
        known = {group.label: group for group in self.groups}
        own = {group.label: group for group in phase.groups}
        for label, group in own.items():
            if label not in known:
                raise SpecError(
                    f"groups: the spec has no group {label!r}.{did_you_mean(label, known)} It has: {', '.join(known)}."
                )
            if group.match not in (known[label].match, label):
                raise SpecError(
                    f"groups: {label!r} matches {known[label].match!r} in the whole run, but {group.match!r} in this "
                    "phase: give the same match, or only the name."
                )
        groups = [
            replace(
                own[label],
                match=group.match,
                name=group.name,
                optional=group.optional,
                optimizer=own[label].optimizer or group.optimizer,
            )
            if label in own
            else group
            for label, group in known.items()
        ]
        if phase.schedule is not None:
            groups = [group if group.label in own else replace(group, schedule=None) for group in groups]
        optimizer = phase.optimizer or self.optimizer
        if phase.weight_decay is not None:
            optimizer = replace(optimizer, weight_decay=phase.weight_decay)
            groups = [_with_decay(group, phase.weight_decay) for group in groups]
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

    @property
    def needs_types(self) -> bool:
        """Whether a group is chosen by the types of modules, which names and shapes do not tell."""
        return bool(self._rule_kinds & {"type", "norm"})

    @property
    def tells_depths(self) -> bool:
        """Whether groups are chosen by how deep layers lie."""
        return self.layer_decay is not None or "depth" in self._rule_kinds

    @property
    def _rule_kinds(self) -> set[str]:
        rules = [rule for group in self.groups for rule in group.patterns if isinstance(rule, Where)]
        return {leaf.kind for rule in rules for leaf in rule.leaves}

    def optimizer_of(self, group: Group) -> Optimizer:
        """Return the group's optimizer, its own or the spec's, with the group's own settings.

        Raises:
            SpecError: The group's settings do not fit the optimizer's other settings.

        Example:
            >>> import layered_lr as ll
            >>> spec = ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("head", momentum=0.5)])
            >>> spec.optimizer_of(spec.groups[0]).momentum
            0.5
        """
        try:
            return replace(group.optimizer or self.optimizer, **group.overrides)
        except SpecError as error:
            raise SpecError(f"group {group.label!r}: {error}") from None

    def to_toml(self) -> str:
        """Return the spec as TOML; ``from_toml`` makes an equal spec from it."""
        return tomli_w.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain tables, lists, strings and numbers; ``from_dict`` makes an equal spec from it."""
        return to_table(self)

    @classmethod
    def from_toml(cls, text_or_path: str | Path, *, trust: bool = False) -> Spec:
        """Make the spec that a TOML text or file describes; the ``[run]`` table of a recipe is ignored.

        Args:
            text_or_path: A ``Path``, a string that ends in ``.toml``, or the text itself.
            trust: Whether functions that it names may be imported, when a rate is computed. Without it, reading such a
                spec works, and computing its rates is a ``SpecError``.

        Raises:
            SpecError: There is no such file, it is not TOML, a key is unknown, or a value is not allowed.

        Example:
            >>> import layered_lr as ll
            >>> ll.Spec.from_toml("optimizer = { type = 'SGD', lr = 0.1 }") == ll.Spec(ll.SGD(0.1))
            True
        """
        check_yes_or_no("Spec.from_toml", "trust", trust)
        table = read_toml(text_or_path)
        table.pop(RUN_TABLE, None)
        return cls.from_dict(table, trust=trust)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, trust: bool = False) -> Spec:
        """Make a spec from the result of ``to_dict``.

        Args:
            table: The result of ``to_dict``, also if it was saved and read again.
            trust: As in ``from_toml``.

        Raises:
            SpecError: A key is unknown, or a value is not allowed.

        Example:
            >>> import layered_lr as ll
            >>> ll.Spec.from_dict({"optimizer": {"type": "SGD", "lr": 0.1}}) == ll.Spec(ll.SGD(0.1))
            True
        """
        check_yes_or_no("Spec.from_dict", "trust", trust)
        if not isinstance(table, Mapping):
            raise SpecError(f"a spec must be made from a table, a mapping; got a {type(table).__name__}.")
        check_depth(table, "the table")
        with trusting(trust):
            return cls(**cls._parts_of(table))

    @staticmethod
    def _parts_of(table: Mapping[str, Any]) -> dict[str, Any]:
        parts = dict(table)
        if "optimizer" not in parts:
            near = find_nearest("optimizer", [name for name in parts if isinstance(name, str)])
            instead = f" This one has {shown(near)}: rename it." if near else ""
            raise SpecError(f"a spec needs an [optimizer] table, such as: [optimizer] type = 'SGD', lr = 0.1.{instead}")
        parts["optimizer"] = optimizer_from_table(parts["optimizer"])
        if "schedule" in parts:
            parts["schedule"] = schedule_from_table(parts["schedule"])
        groups = parts.get("groups", [])
        if not isinstance(groups, list | tuple):
            raise SpecError("groups must be an array of tables: write [[groups]] above each of them.")
        parts["groups"] = [group_from_table(group) for group in groups]
        if "discriminative" in parts:
            parts["groups"] += groups_from_table(parts.pop("discriminative"))
        phases = parts.get("phases", [])
        if not isinstance(phases, list | tuple):
            raise SpecError("phases must be an array of tables: write [[phases]] above each of them.")
        parts["phases"] = [phase_from_table(phase) for phase in phases]
        return parts


def _with_decay(group: Group, weight_decay: float) -> Group:
    """The group with another weight decay of its own optimizer, if it has one that decays."""
    own = group.optimizer
    if own is None or "weight_decay" in own.__lacks__:
        return group
    return replace(group, optimizer=replace(own, weight_decay=weight_decay))
