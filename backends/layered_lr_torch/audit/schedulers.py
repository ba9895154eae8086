"""What is wrong between schedulers and the groups whose rates they set."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

from layered_lr.arrays import Float64
from layered_lr.files import one_line
from layered_lr.findings import Finding
from layered_lr_torch.audit.lengths import find_misfits, find_misfits_of_rates, own_length
from layered_lr_torch.audit.recipe import AuditedRecipe, ListedGroup, is_function, is_torch_scheduler
from layered_lr_torch.audit.simulation import MOST_STEPS, RatesOnly, copy_scheduler, simulate, without_traces
from layered_lr_torch.own_optimizer import innermost
from layered_lr_torch.plan_scheduler import PlanScheduler

_UNKNOWN_LENGTH = 200  # steps to follow a schedule without an end
_MOST_APART = 0.25  # between the shapes of two groups' rates: 1 is a group that stays while another falls to 0
_CLOSE = 1e-3  # of a rate
_OVERWRITING = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)


class ScheduleAudit:
    """Looks at every optimizer with its schedulers.

    Args:
        recipe: What was given.

    Attributes:
        unchecked: What could not be looked at, in sentences.
    """

    def __init__(self, recipe: AuditedRecipe) -> None:
        self.recipe = recipe
        self.unchecked: list[str] = []

    def find(self) -> Iterator[Finding]:
        """Yield all findings about schedulers."""
        for optimizer in self.recipe.optimizers:
            groups = [group for group in self.recipe.groups if group.optimizer is optimizer]
            schedulers = [each for each in self.recipe.schedulers if self._sets(each, optimizer)]
            yield from self._find_of_one(optimizer, groups, schedulers)

    def _sets(self, scheduler: Any, optimizer: torch.optim.Optimizer) -> bool:
        if is_function(scheduler):
            return True
        own = scheduler.optimizer
        return (innermost(own) if isinstance(own, torch.optim.Optimizer) else own) is optimizer

    def _find_of_one(
        self, optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], schedulers: Sequence[Any]
    ) -> Iterator[Finding]:
        second = list(_find_second(optimizer, groups, schedulers))
        yield from second
        late = False
        for scheduler in schedulers:
            for finding in _find_late_groups(groups, scheduler):
                late = True
                yield finding
        if len(schedulers) == 1 and not late and not second and is_torch_scheduler(schedulers[0]):
            yield from self._find_offset(optimizer, groups, schedulers[0])
        readers = 0
        for scheduler in schedulers:
            misfits = list(find_misfits(scheduler, self.recipe.steps))
            rates = None if late or isinstance(scheduler, PlanScheduler) else self._rates(optimizer, scheduler)
            if rates is not None:
                bare = self._rates(optimizer, scheduler, without_scale=True) if _has_scales(groups) else rates
                reads = bare is not None and not np.array_equal(bare, rates)
                readers += reads
                yield from _find_flattened(groups, scheduler, rates, reads)
                whole = self.recipe.steps is not None and len(rates) == self.recipe.steps + 1
                misfits = misfits or (list(find_misfits_of_rates(scheduler, rates)) if whole else [])
            for misfit in misfits:
                yield Finding(
                    "length-mismatch",
                    misfit.what,
                    tuple(group.label for group in groups),
                    (),
                    misfit.effect,
                    "give the schedule its length in the unit in which the loop calls scheduler.step(), and audit's "
                    "steps in the same unit.",
                )
        if not readers and _has_scales(groups):
            yield from _find_unread_scales(optimizer, groups)

    def _rates(self, optimizer: torch.optim.Optimizer, scheduler: Any, without_scale: bool = False) -> Float64 | None:
        """The rates over the run, or over the schedule's own length; None where they cannot be known."""
        wanted = self.recipe.steps or own_length(scheduler) or _UNKNOWN_LENGTH
        made = 0 if is_function(scheduler) else int(getattr(scheduler, "last_epoch", 0) or 0)
        steps = min(max(wanted - made, 0), MOST_STEPS)
        kind = getattr(scheduler, "__name__", type(scheduler).__name__)
        try:
            rates, error = simulate(self.recipe, optimizer, scheduler, steps, without_scale=without_scale)
        except Exception as failure:  # it is the user's, and may hold what cannot be copied
            self._note(f"the rates of {kind}: a copy of it fails ({one_line(failure)}).")
            return None
        if error is not None and len(rates) <= _most_steps(scheduler):
            self._note(f"the rates of {kind} from step {len(rates)} on: {error}")
        if wanted - made > MOST_STEPS:
            self._note(f"the rates of {kind} behind step {MOST_STEPS:,}.")
        return rates

    def _note(self, reason: str) -> None:
        if reason not in self.unchecked:
            self.unchecked.append(reason)

    def _find_offset(
        self, optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], scheduler: Any
    ) -> Iterator[Finding]:
        made, place = _updates_made(optimizer), int(getattr(scheduler, "last_epoch", 0) or 0)
        labels = tuple(group.label for group in groups)
        mend = "load the states of both, optimizer and scheduler, after both are made, and from the same checkpoint."
        if made and place == 0 and not getattr(optimizer, "_opt_called", False):
            yield Finding(
                "last-epoch-off",
                f"The optimizer has made {made} updates, and the scheduler is at step 0.",
                labels,
                (),
                "The schedule begins again, with its warm-up and its highest rates.",
                mend,
            )
        elif place > 0 and made == 0 and not optimizer.state and _keeps_state(optimizer):
            yield Finding(
                "last-epoch-off",
                f"The scheduler is at step {place}, and the optimizer has no state.",
                labels,
                (),
                "Momentum and mean squares begin again at a rate for the middle of the run.",
                mend,
            )
        elif made and place > made + max(2, made // 10):
            yield Finding(
                "last-epoch-off",
                f"The optimizer has made {made} updates, and the scheduler is at step {place}.",
                labels,
                (),
                "The schedule is ahead of the training: it ends too early.",
                "step the scheduler once for each update of the optimizer, or less often. "
                + mend[0].upper()
                + mend[1:],
            )
        elif (wrong := self._find_wrong_rates(optimizer, groups, scheduler)) is not None:
            group, right = wrong
            yield Finding(
                "last-epoch-off",
                f"The rate is {group.rate:g}, and {type(scheduler).__name__} has {right:g} at step {place}.",
                (group.label,),
                (),
                "The rate was set by something else, or the scheduler was made in the middle of a run: many schedulers "
                "compute each rate from the one before, and so every later rate is wrong too.",
                mend,
            )

    def _find_wrong_rates(
        self, optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], scheduler: Any
    ) -> tuple[ListedGroup, float] | None:
        """A group whose present rate is not the scheduler's, with the right one."""
        expected = list(getattr(scheduler, "_last_lr", ()))
        if (hasattr(scheduler, "_get_closed_form_lr") or hasattr(scheduler, "lr_lambdas")) and not isinstance(
            scheduler, PlanScheduler | lr_scheduler.MultiplicativeLR
        ):
            try:
                with without_traces():
                    own = copy_scheduler(self.recipe, optimizer, scheduler, RatesOnly(optimizer))
                    expected = list(own._get_closed_form_lr() if hasattr(own, "_get_closed_form_lr") else own.get_lr())
            except Exception:  # simulate() says so
                return None
        if len(expected) != len(groups):
            return None
        for group, rate in zip(groups, expected, strict=True):
            if abs(group.rate - float(rate)) > _CLOSE * max(abs(float(rate)), group.rate) + 1e-9 * group.base_rate:
                return group, float(rate)
        return None


def _has_scales(groups: Sequence[ListedGroup]) -> bool:
    """Whether ``lr_scale`` tells groups apart, or is anything but 1."""
    return any(float(group.options.get("lr_scale", 1.0)) != 1.0 for group in groups)


def _find_unread_scales(optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup]) -> Iterator[Finding]:
    scales = [float(group.options.get("lr_scale", 1.0)) for group in groups]
    bases = [group.base_rate / scale if scale else group.base_rate for group, scale in zip(groups, scales, strict=True)]
    rates_have_them = len(set(scales)) > 1 and np.allclose(bases, bases[0], rtol=1e-6)
    if rates_have_them or _reads_scale(optimizer):
        return
    labels = tuple(group.label for group, scale in zip(groups, scales, strict=True) if scale != 1.0)
    yield Finding(
        "lr-scale-unread",
        f"{len(labels)} groups have lr_scale, such as {min(scales):g}, and neither optimizer nor scheduler reads it.",
        labels,
        (),
        "Each of these groups trains at the full rate.",
        "use timm's scheduler, which multiplies by lr_scale, or multiply lr yourself. If the loop does so, give it as "
        "scheduler=function(optimizer, step).",
    )


def _reads_scale(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer that is not torch's speaks of ``lr_scale`` in its code."""
    for base in type(optimizer).__mro__:
        if base.__module__.startswith("torch.") or base is object:
            continue
        try:
            if "lr_scale" in inspect.getsource(base):
                return True
        except (OSError, TypeError):  # made in a prompt
            continue
    return False


def _find_late_groups(groups: Sequence[ListedGroup], scheduler: Any) -> Iterator[Finding]:
    for part in _parts(scheduler):
        known = getattr(part, "base_lrs", getattr(part, "base_values", None))
        if known is None and isinstance(part, lr_scheduler.ReduceLROnPlateau):
            known = part.min_lrs
        if known is None or isinstance(part, PlanScheduler) or len(known) >= len(groups):
            continue
        yield Finding(
            "behind-scheduler",
            f"{type(part).__name__} knows {len(known)} of {len(groups)} groups.",
            tuple(group.label for group in groups[len(known) :]),
            (),
            "They keep their rate for the whole run, or the scheduler fails at its next step.",
            "add the groups before the scheduler is made, or make a new scheduler after add_param_group.",
        )
        return


def _find_second(
    optimizer: torch.optim.Optimizer, groups: Sequence[ListedGroup], schedulers: Sequence[Any]
) -> Iterator[Finding]:
    given = [part for each in schedulers for part in _parts(each)]
    others = [each for each in _alive_schedulers(optimizer) if all(each is not part for part in given)]
    inside = {id(part) for each in others for part in _parts(each)[1:]}
    tops = [*schedulers, *(each for each in others if id(each) not in inside)]
    around = [each for each in tops if not any(each is not other and each in _parts(other) for other in tops)]
    if len(around) > 1:
        kinds = " and ".join(getattr(each, "__name__", type(each).__name__) for each in around)
        yield Finding(
            "two-schedulers",
            f"{kinds} set the rates of one optimizer.",
            tuple(group.label for group in groups),
            (),
            "Each takes the rates that the other has left, or writes over them: the curve is that of neither.",
            "join them in SequentialLR (one after the other) or ChainedScheduler (multiplied), or delete one of them.",
        )


def _alive_schedulers(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Schedulers of torch in this process that belong to an optimizer."""
    found: dict[int, Any] = {}
    for holder in gc.get_referrers(optimizer):
        if is_torch_scheduler(holder):  # Python 3.11 and later keep attributes in the object itself
            found[id(holder)] = holder
        elif isinstance(holder, dict) and holder.get("optimizer") is optimizer:
            for owner in gc.get_referrers(holder):
                if is_torch_scheduler(owner) and owner.__dict__ is holder:
                    found[id(owner)] = owner
    return list(found.values())


def _find_flattened(
    groups: Sequence[ListedGroup], scheduler: Any, rates: Float64, reads_scale: bool
) -> Iterator[Finding]:
    if any(isinstance(part, _OVERWRITING) for part in _parts(scheduler)) and (twins := _find_twins(groups)):
        yield Finding(
            "ratio-flattened",
            f"{len(twins)} groups have the same settings and the same rates: one rate was given to "
            f"{type(scheduler).__name__} for all groups.",
            twins,
            (),
            "The groups' own lr was overwritten when the scheduler was made: all of them train at one rate.",
            "give a list with a rate for each group, such as max_lr=[group['lr'] for group in optimizer.param_groups].",
        )
        return
    if isinstance(scheduler, PlanScheduler) or _is_meant(scheduler):
        return
    scales = np.array([float(group.options.get("lr_scale", 1.0)) if reads_scale else 1.0 for group in groups])
    bases = np.array([group.base_rate for group in groups]) * scales
    with np.errstate(all="ignore"):
        shapes = np.where(bases > 0, rates / bases, np.where(rates > 0, np.inf, np.nan))
    if len(groups) < 2 or not len(rates) or (np.isnan(shapes).all(axis=0).any() and len(groups) == 2):
        return
    usual = shapes[:, int(np.nanargmax(bases))]
    apart = np.nan_to_num(np.abs(shapes - usual[:, None]), nan=0.0)
    wrong = [place for place in range(len(groups)) if apart[:, place].max() > _MOST_APART]
    if wrong:
        place = wrong[int(np.argmax([apart[:, each].max() for each in wrong]))]
        step = int(apart[:, place].argmax())
        top = int(np.nanargmax(bases))
        yield Finding(
            "ratio-flattened",
            f"{groups[place].label} begins at {bases[place]:g} where {groups[top].label} has {bases[top]:g}; "
            f"{step} steps later they are at {rates[step, place]:g} and {rates[step, top]:g}.",
            tuple(groups[each].label for each in wrong),
            (),
            "The schedule does not keep the ratio of the groups' rates: a floor, or a rate for all of them, is too "
            "high for these groups.",
            "take eta_min, min_lr or the one rate below the smallest group's, or give a value for each group.",
        )


def _find_twins(groups: Sequence[ListedGroup]) -> tuple[str, ...]:
    """Groups that differ in nothing but their parameters and names."""
    without = ("params", "param_names", "name")
    options = [{name: value for name, value in group.options.items() if name not in without} for group in groups]
    twins = [
        group.label
        for place, group in enumerate(groups)
        if any(other != place and options[other] == options[place] for other in range(len(groups)))
    ]
    return tuple(twins)


def _is_meant(scheduler: Any) -> bool:
    """Whether a scheduler has a schedule of its own for each group, on purpose."""
    for part in _parts(scheduler):
        functions = getattr(part, "lr_lambdas", None)
        if functions and len({id(function) for function in functions}) > 1:
            return True
        floors = getattr(part, "min_lrs", None)
        if isinstance(part, lr_scheduler.ReduceLROnPlateau) and floors and len(set(floors)) > 1:
            return True
    return False


def _parts(scheduler: Any) -> list[Any]:
    """A scheduler and all those inside of it."""
    return [scheduler, *(part for inner in getattr(scheduler, "_schedulers", ()) for part in _parts(inner))]


def _updates_made(optimizer: torch.optim.Optimizer) -> int:
    counts = [float(state["step"]) for state in optimizer.state.values() if isinstance(state, dict) and "step" in state]
    return int(max(counts, default=0.0))


def _keeps_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer has a state after an update; SGD without momentum has none."""
    is_plain = isinstance(optimizer, torch.optim.SGD) and not any(g["momentum"] for g in optimizer.param_groups)
    return not is_plain and any(group["params"] for group in optimizer.param_groups)


def _most_steps(scheduler: Any) -> float:
    return own_length(scheduler) or np.inf
