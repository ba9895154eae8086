"""The function behind ``layered_lr.adopt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from layered_lr.errors import SpecError, Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.models.parameter import Parameter
from layered_lr.optimizers import OPTIMIZERS, Optimizer
from layered_lr.plans.resolve import resolve
from layered_lr.schedules import Constant, CyclicLR, OneCycleLR, ReduceLROnPlateau
from layered_lr.schedules.base import Schedule, Unit
from layered_lr.spec.groups import HYPERPARAMETERS, Group
from layered_lr.spec.spec import Spec
from layered_lr_torch.adopt.names import find_patterns
from layered_lr_torch.adopt.schedules import read_schedules, rounded
from layered_lr_torch.audit.lengths import own_length
from layered_lr_torch.audit.recipe import AuditedRecipe, is_function, read_recipe
from layered_lr_torch.audit.simulation import simulate
from layered_lr_torch.lowering import OWN
from layered_lr_torch.optimizer import find_optimizer_class
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.torch_types import Module, ParamGroup

_MOST_RATES = 50_000  # of all groups, to compare with a copy of the scheduler
_UNKNOWN_LENGTH = 200
_CLOSE = 1e-6  # torch's recursions drift from the closed forms by rounding


class _Read(NamedTuple):
    """What is read of one optimizer, with an item for each param group that has parameters.

    Args:
        recipe: The optimizer, its scheduler and the model.
        options: The param groups.
        settings: The hyperparameters of each, with its rate before any schedule.
        schedules: Of each.
        owners: The place of the group of each parameter, by name.
    """

    recipe: AuditedRecipe
    options: list[ParamGroup]
    settings: list[Optimizer]
    schedules: list[Schedule]
    owners: dict[str, int]

    @property
    def scheduler(self) -> Any:
        """The optimizer's scheduler; None where it has none."""
        return self.recipe.schedulers[0] if self.recipe.schedulers else None


def adopt_recipe(optimizers: Sequence[object], model: Module, schedulers: Sequence[Any], unit: Unit) -> Spec:
    """Read a spec, and compare its rates with the schedulers'.

    Args:
        optimizers: One, or several with different parameters of the model.
        model: Whose parameters they have.
        schedulers: The scheduler of each; None is none.
        unit: What a step of the schedulers is.

    Raises:
        SpecError: Something cannot be read exactly.
    """
    recipes = [
        read_recipe([optimizer], [model], () if scheduler is None else [scheduler], None)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True)
    ]
    if len(recipes) == 1 and recipes[0].schedulers and isinstance(recipes[0].schedulers[0], PlanScheduler):
        return recipes[0].schedulers[0].plan.spec
    parts = [_read_optimizer(recipe, unit) for recipe in recipes]
    parameters = [parameter for parameter, _ in parameters_of(model)]
    owners = _join_owners(parts, parameters)
    spec = _make_spec(
        [group for part in parts for group in part.options],
        [own for part in parts for own in part.settings],
        [each for part in parts for each in part.schedules],
        parameters,
        owners,
        [_read_scale(group, part.scheduler) for part in parts for group in part.options],
    )
    for part in parts:
        _compare_rates(part.recipe, part.recipe.optimizers[0], part.scheduler, spec, model, part.owners)
    return spec


def _read_optimizer(recipe: AuditedRecipe, unit: Unit) -> _Read:
    optimizer = recipe.optimizers[0]
    scheduler = recipe.schedulers[0] if recipe.schedulers else None
    _check_scheduler(optimizer, scheduler)
    options = [group for group in optimizer.param_groups if group["params"]]
    owners = _find_owners(options, recipe.names)
    settings = [_read_settings(optimizer, group, scheduler is not None) for group in options]
    schedules: list[Schedule] = [Constant()] * len(options)
    if scheduler is not None:
        whole = read_schedules(scheduler, optimizer.param_groups, unit)
        _check_shared_rates(optimizer, whole)
        schedules = [each for each, group in zip(whole, optimizer.param_groups, strict=True) if group["params"]]
    return _Read(recipe, options, settings, schedules, owners)


def _join_owners(parts: Sequence[_Read], parameters: Sequence[Parameter]) -> dict[str, int]:
    """The group of each parameter that is in one, by name; groups are counted through all optimizers."""
    joined: dict[str, int] = {}
    first = 0
    for part in parts:
        for name, number in part.owners.items():
            if name in joined:
                raise SpecError(f"adopt: {name!r} is in two of the optimizers; leave it out of one of them.")
            joined[name] = first + number
        first += len(part.options)
    left = [each.name for each in parameters if each.requires_grad and each.name not in joined]
    if left:
        raise SpecError(
            f"adopt: {len(left)} parameters with requires_grad=True are in no group, such as {left[0]!r}. A spec has "
            "all of them: set requires_grad=False for what should stay as it is."
        )
    return joined


def _read_scale(group: ParamGroup, scheduler: Any) -> float:
    """The group's ``lr_scale``, where its scheduler reads it, as timm's do."""
    return float(group.get("lr_scale", 1.0)) if hasattr(scheduler, "t_in_epochs") else 1.0


def _check_scheduler(optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    if scheduler is None:
        for number, group in enumerate(optimizer.param_groups):
            if float(group.get("initial_lr", group["lr"])) != float(group["lr"]):
                raise SpecError(
                    f"adopt: a scheduler has set the rate of group {number} from {float(group['initial_lr']):g} to "
                    f"{float(group['lr']):g}: give it as scheduler=..., or adopt before it is made."
                )
    elif is_function(scheduler):
        raise SpecError(
            "adopt: scheduler is a function, whose rates are not known beforehand. Adopt without it, and give the spec "
            "ll.Function(rate_of_step)."
        )
    elif isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and scheduler.last_epoch > 0:
        raise SpecError(
            f"adopt: ReduceLROnPlateau has read {scheduler.last_epoch} metrics, and the rate before them is not known. "
            "Adopt before the run begins."
        )
    elif scheduler.optimizer is not optimizer and getattr(scheduler.optimizer, "optimizer", None) is not optimizer:
        raise SpecError("adopt: scheduler belongs to another optimizer: give the two that go together.")


def _check_shared_rates(optimizer: torch.optim.Optimizer, schedules: Sequence[Schedule]) -> None:
    """Refuse different schedules of groups whose rates are one tensor: torch gives all of them what it sets last."""
    first: dict[int, Schedule] = {}
    for group, schedule in zip(optimizer.param_groups, schedules, strict=True):
        if isinstance(group["lr"], torch.Tensor) and first.setdefault(id(group["lr"]), schedule) != schedule:
            raise SpecError(
                "adopt: param groups with different schedules share one tensor as their lr, so that what the scheduler "
                "sets for one of them is the rate of all. Give each group a tensor of its own, or a number."
            )


def _find_owners(options: Sequence[ParamGroup], names: Mapping[int, str]) -> dict[str, int]:
    """The group of each parameter that is in one, by name."""
    if not options:
        raise SpecError("adopt: the optimizer has no parameters.")
    owners: dict[str, int] = {}
    for number, group in enumerate(options):
        for tensor in group["params"]:
            name = names.get(id(tensor))
            if name is None:
                raise SpecError(
                    f"adopt: the optimizer has a parameter of shape {tuple(tensor.shape)} that the model has not: give "
                    "the model that the optimizer was made for."
                )
            if owners.setdefault(name, number) != number:
                raise SpecError(f"adopt: {name!r} is in two groups of the optimizer; leave it out of one of them.")
    return owners


def _read_settings(optimizer: torch.optim.Optimizer, group: ParamGroup, is_scheduled: bool) -> Optimizer:
    """A group's hyperparameters, with its rate before any schedule."""
    kind = OPTIMIZERS.get(type(optimizer).__name__)
    if kind is None or not _is_class_of(kind, optimizer):
        raise SpecError(
            f"adopt: optimizer is a {type(optimizer).__module__}.{type(optimizer).__name__}; must be one of "
            f"{', '.join(OPTIMIZERS)}, as torch.optim has them. For another one make its param groups from a spec: "
            "ll.param_groups."
        )
    if group.get("differentiable"):
        raise SpecError("adopt: the optimizer is differentiable=True, which a spec cannot say.")
    known = {each.name for each in fields(kind)}
    values = {name: _plain(group[name]) for name in known & group.keys()}
    values["lr"] = float(group["initial_lr"] if is_scheduled and "initial_lr" in group else group["lr"])
    if is_scheduled and "max_momentum" in group:  # of a scheduler that cycles it
        if "betas" in values:
            values["betas"] = (group["max_momentum"], values["betas"][1])
        elif "momentum" in values:
            values["momentum"] = group["max_momentum"]
    if not issubclass(kind, OWN) and "foreach" in group and group["foreach"] is None and not group.get("fused"):
        values["foreach"] = all(tensor.is_cuda for tensor in group["params"])  # as torch chooses
    try:
        return kind(**values)
    except SpecError as error:
        raise SpecError(f"adopt: the optimizer has settings that a spec refuses: {error}") from None


def _is_class_of(kind: type[Optimizer], optimizer: torch.optim.Optimizer) -> bool:
    try:
        return type(optimizer) is find_optimizer_class(kind(lr=1e-3))
    except Unsupported:
        return False


def _plain(value: Any) -> Any:
    """A hyperparameter without tensors."""
    if isinstance(value, torch.Tensor):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, tuple | list) else value


def _make_spec(
    options: Sequence[ParamGroup],
    settings: Sequence[Optimizer],
    schedules: Sequence[Schedule],
    parameters: Sequence[Parameter],
    owners: Mapping[str, int],
    scales: list[float],
) -> Spec:
    if (common := _common_cycle(schedules)) is not None:
        scales, schedules = common
    largest = max(range(len(options)), key=lambda number: (len(options[number]["params"]), number))
    base, schedule = settings[largest], schedules[largest]
    ignores_lr = isinstance(schedule, OneCycleLR | CyclicLR)
    spec_schedule = None if schedule == Constant() else schedule
    if len(options) == 1 and scales == [1.0]:
        return Spec(base, schedule=spec_schedule)
    labels: set[str] = set()
    groups = []
    for number, (group, own, scale) in enumerate(zip(options, settings, scales, strict=True)):
        patterns = find_patterns(parameters, owners, number)
        differing: dict[str, Any] = {"optimizer": own}
        if type(own) is type(base):
            differing = {
                name: getattr(own, name)
                for name in HYPERPARAMETERS
                if hasattr(own, name) and getattr(own, name) != getattr(base, name)
                if name != "lr" or not ignores_lr
            }
        own_schedule = None if schedules[number] == schedule else schedules[number]
        name = _label(group, patterns, number, labels)
        match = patterns[0] if len(patterns) == 1 else patterns
        groups.append(Group(match, lr_scale=scale, schedule=own_schedule, name=name, **differing))
        labels.add(groups[-1].label)
    return Spec(base, groups, spec_schedule)


def _label(group: ParamGroup, patterns: Sequence[str], number: int, taken: set[str]) -> str | None:
    """The group's own name, if it has one; None where the pattern is a good name."""
    own = group.get("name")
    if isinstance(own, str) and own.strip() and own.isprintable() and own not in taken:
        return own
    return None if len(patterns) == 1 and patterns[0] not in taken else f"group {number}"


def _common_cycle(schedules: Sequence[Schedule]) -> tuple[list[float], Sequence[Schedule]] | None:
    """Cycles that differ only by a factor, as one cycle and the groups' ``lr_scale``."""
    first = schedules[0]
    if not isinstance(first, OneCycleLR | CyclicLR) or not all(type(each) is type(first) for each in schedules):
        return None
    cycles: list[Any] = list(schedules)
    top = max(cycles, key=lambda each: float(each.max_lr))
    if not top.max_lr:
        return None
    scales = [rounded(each.max_lr / top.max_lr) for each in cycles]
    for each, scale in zip(cycles, scales, strict=True):
        like = replace(top, max_lr=each.max_lr)
        if isinstance(top, CyclicLR):
            if not np.isclose(each.base_lr, scale * top.base_lr, rtol=1e-12, atol=0.0):
                return None
            like = replace(top, base_lr=each.base_lr, max_lr=each.max_lr)
        if like != each:
            return None
    return scales, [top] * len(cycles)


def _compare_rates(
    recipe: Any, optimizer: torch.optim.Optimizer, scheduler: Any, spec: Spec, model: Module, owners: Mapping[str, int]
) -> None:
    """Compare the spec's rates with those of a copy of the scheduler, from its present step on.

    Raises:
        SpecError: They differ.
    """
    plan = resolve(spec, model, steps_per_epoch=1)
    place_of = {name: place for place, group in enumerate(plan.groups) for name in group.parameters}
    numbers = [number for number, group in enumerate(optimizer.param_groups) if group["params"]]
    pairs = {owners[name]: (numbers[owners[name]], place_of[name]) for name in owners}
    begin = max(0, int(getattr(scheduler, "last_epoch", 0) or 0))
    rows = [[float(group["lr"]) for group in optimizer.param_groups]]
    is_reactive = any(isinstance(group.schedule, ReduceLROnPlateau) for group in plan.groups)
    if scheduler is not None and not is_reactive:
        ends = own_length(scheduler)
        behind = 0 if hasattr(scheduler, "lr_lambdas") else 2  # behind its end transformers' cosine rises again
        length = _UNKNOWN_LENGTH if ends is None else ends + behind
        steps = max(1, min(length - begin, _MOST_RATES // len(optimizer.param_groups)))
        try:
            rows = simulate(recipe, optimizer, scheduler, steps).rates.tolist()
        except Exception:  # a function of the user that cannot be called on a copy; the present rates are compared
            rows = rows[:1]
    if isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR):
        rows = rows[: max(1, scheduler.total_steps - begin)]  # behind it torch extrapolates
    planned = plan.at(np.arange(0 if is_reactive else begin, (0 if is_reactive else begin) + len(rows)))
    for row, (theirs, own) in enumerate(zip(rows, planned.tolist(), strict=True)):
        for listed, place in pairs.values():
            base = float(optimizer.param_groups[listed].get("initial_lr", theirs[listed]))
            if abs(theirs[listed] - own[place]) > _CLOSE * abs(own[place]) + 1e-9 * base:
                _refuse_rate(plan.groups[place].name, theirs[listed], own[place], begin + row, is_present=row == 0)


def _refuse_rate(group: str, theirs: float, own: float, step: int, is_present: bool) -> None:
    if is_present:
        raise SpecError(
            f"adopt: group {group!r} is at the rate {theirs:g}, and its schedule has {own:g} at step {step}: something "
            "else has set it. Adopt before the run begins, or set it back."
        )
    raise SpecError(
        f"adopt: at step {step} the scheduler gives group {group!r} the rate {theirs:g}, and a spec would give it "
        f"{own:g}: torch's scheduler cannot be read exactly. Give the spec ll.Table(rates) instead."
    )
