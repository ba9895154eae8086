"""``overfit``: whether a model learns a few batches by heart, and what to look at where it does not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Array, Weights
from layered_lr.backend.phased_session import open_session
from layered_lr.before.data_checks import find_contradictions, find_unnormalised, find_unrelated_labels
from layered_lr.before.find_lr import options_before
from layered_lr.before.kept_model import model_kept
from layered_lr.before.overfit_verdict import GroupMovement, OverfitVerdict
from layered_lr.before.ramp import choose_phase, keep_frozen, own_rate
from layered_lr.before.repeated_batches import RepeatedBatches
from layered_lr.before.training_checks import (
    Trained,
    find_dead_layers,
    find_still_groups,
    find_wrong_course,
    find_wrong_gradients,
)
from layered_lr.counts import whole_number
from layered_lr.errors import SpecError, TrainingDiverged
from layered_lr.findings import Finding
from layered_lr.models.nn_modules import framework_of, set_trainable, trainable_parameters
from layered_lr.models.zoo import is_catalogued
from layered_lr.optimizers import SGD, Optimizer
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import REST, resolve
from layered_lr.printed import shown
from layered_lr.scalars import read_number
from layered_lr.scaling import LossScaling
from layered_lr.schedules import Constant
from layered_lr.spec.spec import Spec
from layered_lr.training.callback import Callback
from layered_lr.training.checks import check_answer, check_trainable, train_first_step
from layered_lr.training.cross_entropy import CrossEntropy
from layered_lr.training.events import UpdateEvent
from layered_lr.training.loop import Loop
from layered_lr.training.options import RunOptions
from layered_lr.training.prepare import Prepared, prepare
from layered_lr.training.recipe import default_spec
from layered_lr.training.train import open_loop

_PROBE_RATE = 2.0**20  # so large that a gradient of 1e-13 shows beside a weight of 0.1 in float32
_NEARLY_ZERO = 0.05  # of the first loss


def overfit(
    spec: Spec | None = None,
    model: str | Callable[[], Any] = "mobilenet_v2",
    *,
    batches: int = 1,
    steps: int = 50,
    target: float | None = None,
    **options: Any,
) -> OverfitVerdict:
    """Train on one batch again and again: a model that cannot learn it by heart has a fault, and this says where.

    Each group trains at its own rate, which stands still, without weight decay, and the images are not augmented and
    have one size. The training stops where the loss has reached ``target`` on every batch. Whatever the loss does, it
    looks for faults in the data, the groups and the gradients. A model of yours stays as it was, bitwise.

    Args:
        spec: Groups, optimizer and schedule; None is the recipe ``backbone-and-head``. Of phases, the first one holds.
        model: As ``run`` takes it.
        batches: How many batches to learn.
        steps: The most updates, each of one batch.
        target: The loss to reach; None is a twentieth of the first loss.
        options: Options of ``run``, by name: ``backend``, ``data``, ``batch_size``, ``seed``, ...; none of those that
            write files, call callbacks or go on after a divergence.

    Returns:
        The verdict, with findings. Print it to read it.

    Raises:
        SpecError: The spec or an argument cannot be right.
        DataError: The data or a weights file is missing, damaged or of the wrong shape.
        BackendUnavailable: The backend does not work on this machine.
        Unsupported: The backend cannot apply the plan exactly.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
        >>> spec = ll.Spec(ll.SGD(0.0))
        >>> ll.overfit(spec, build, steps=3, batch_size=16, progress=False).kinds
        ('rate-zero',)
    """
    spec = default_spec() if spec is None else spec
    if framework_of(model):
        raise SpecError(
            f"model: got a {type(model).__name__} object; give what builds it, such as model=lambda: make_model()."
        )
    given = replace(options_before("overfit", model, {"augment": False, **options}), early_stop=None)
    if given.sizes is not None:
        raise SpecError("overfit: sizes has no meaning: batches that are learned by heart have one size. Leave it out.")
    if given.mix is not None:
        raise SpecError("overfit: mix has no meaning: mixed batches cannot be learned by heart. Leave it out.")
    steps, batches = whole_number("steps", steps, 1), whole_number("batches", batches, 1)
    goal = None if target is None else read_number(target)
    if target is not None and (goal is None or not math.isfinite(goal)):
        raise SpecError(f"overfit(target={shown(target)}): must be a finite number, or None.")
    if goal is None and isinstance(given.loss, CrossEntropy) and given.loss.label_smoothing:
        raise SpecError(
            f"overfit(target=None) with label_smoothing={given.loss.label_smoothing:g}: such a loss does not reach "
            "zero. Give target=..., the loss to reach, or leave label_smoothing out."
        )
    ready = prepare(spec, given)
    in_epoch = ready.batches.steps_per_epoch
    if batches > in_epoch:
        raise SpecError(f"overfit(batches={batches}): the training set has only {in_epoch} batches.")
    kept = contextlib.nullcontext() if isinstance(given.model, str) else model_kept(ready.backend, ready.model)
    with kept:
        return _overfit(ready, given, batches, steps, goal)


class _Fit(Callback):
    """Ends a training where every batch is learned.

    Args:
        target: The loss to reach; None is a part of the first one.
        batches: How many updates go through all batches.
    """

    def __init__(self, target: float | None, batches: int) -> None:
        self.target, self.batches = target, batches
        self.losses: list[float] = []

    def on_update(self, event: UpdateEvent) -> None:
        """Look at the loss of each update."""
        self.losses.append(float(event.loss))
        if self.target is None:
            if self.is_below_zero:
                event.run.stop_unsaid()
                return
            self.target = _NEARLY_ZERO * self.losses[0]
        if self.is_reached:
            event.run.stop_unsaid()

    @property
    def is_below_zero(self) -> bool:
        """Whether no target is given, and none can be a part of the first loss."""
        return self.target is None and bool(self.losses) and self.losses[0] < 0

    @property
    def is_reached(self) -> bool:
        """Whether the newest loss on each batch is low enough."""
        last = self.losses[-self.batches :]
        return len(last) == self.batches and self.target is not None and max(last) <= self.target


class _Measured(NamedTuple):
    """What the training measured, beside what ``Trained`` has."""

    trained: Trained
    fit: _Fit
    norms: Array
    start: Weights


def _overfit(ready: Prepared, options: RunOptions, count: int, steps: int, target: float | None) -> OverfitVerdict:
    together = ready.extras.accumulate_steps
    few = RepeatedBatches(ready.batches, count, together)
    plan = _constant_plan(choose_phase(ready.plan, 1), ready.model, steps, ready.plan.steps_per_epoch)
    check_trainable(plan, ready.model)
    extras = ready.extras._replace(ema_decay=None, grad_norms=True)
    ready = ready._replace(batches=few, plan=plan, lowering=plan.lowering(ready.backend.name), extras=extras)
    gradients = _probe_gradients(ready, checks_answer=not is_catalogued(options.model))
    measured = _train(ready, options, gradients, _Fit(target, len(few.kept)))
    trained, fit = measured.trained, measured.fit
    if fit.is_below_zero:
        raise SpecError(
            f"overfit(target=None): the first loss is {fit.losses[0]:.3g}, and one below zero does not tend to zero. "
            "Give target=..., the loss to reach."
        )
    return OverfitVerdict(
        backend=options.backend,
        ok=trained.ok,
        target=fit.target if fit.target is not None else math.nan,
        losses=trained.losses,
        diverged=trained.diverged,
        images=len(few.labels),
        groups=tuple(_movements(measured)),
        findings=tuple(_findings(trained, few)),
    )


def _constant_plan(there: Plan, model: Any, steps: int, in_epoch: int | None) -> Plan:
    """The plan of a phase with each group at its own rate, which stands still, and without weight decay."""
    own = {group.name: 0.0 if _is_still(there, group.name) else own_rate(there, group) for group in there.groups}
    groups = [
        replace(
            group,
            lr=own[group.label],
            schedule=Constant(),
            weight_decay=None,
            optimizer=None if group.optimizer is None else _undecayed(group.optimizer),
        )
        for group in there.spec.groups
    ]
    usual = _undecayed(there.spec.optimizer)
    spec = replace(
        there.spec,
        optimizer=replace(usual, lr=own.get(REST, usual.lr)),
        groups=groups,
        schedule=None,
        phases=keep_frozen(there),
    )
    return resolve(spec, model, steps, in_epoch)


def _is_still(plan: Plan, name: str) -> bool:
    """Whether a group's planned rate is 0 at every step that is looked at."""
    place = [group.name for group in plan.groups].index(name)
    stop = max(plan.total_steps or plan.start + 1, plan.start + 1)
    steps = np.unique(np.linspace(plan.start, stop - 1, min(stop - plan.start, 4096)).astype(np.int64))
    return not plan.at(steps)[:, place].any() and not plan.is_frozen(plan.groups[place])


def _undecayed(optimizer: Optimizer) -> Optimizer:
    has_decay = any(each.name == "weight_decay" for each in fields(optimizer))
    return replace(optimizer, weight_decay=0.0) if has_decay else optimizer


def _probe_gradients(ready: Prepared, checks_answer: bool) -> dict[str, Array]:
    """The gradient of each parameter that trains, for the first batch: read off the weights after one plain update.

    The model has its own state again afterwards.

    Args:
        ready: From ``prepare``.
        checks_answer: Whether the model is one whose answer is not known, and is looked at first.

    Raises:
        SpecError: The model does not take the images, or answers with something else than a run takes.
    """
    backend, model = ready.backend, ready.model
    before, trainable = backend.state(model), trainable_parameters(model)
    spec = Spec(SGD(_PROBE_RATE), phases=ready.plan.spec.phases)
    if ready.plan.phases:  # whose frozen groups may be named
        spec = replace(spec, groups=[_probed(group) for group in ready.plan.spec.groups])
    plan = resolve(spec, model, 1, ready.plan.steps_per_epoch)
    unscaled = LossScaling(init_scale=1.0)  # in float16 a larger scale may overflow, and no update would be made
    extras = ready.extras._replace(grad_norms=False, scaling=unscaled)
    session = open_session(backend, plan, model, ready.dataset.facts.label_classes, extras)
    if checks_answer:
        check_answer(session, ready.batches)
    images, labels, parts = next(ready.batches.updates(extras.accumulate_steps, 0, session.wants_channels_last))
    outcome = train_first_step(session, images, labels, parts)
    session.losses([outcome])
    after, unused = session.weights(), set(session.without_gradient())
    del session
    set_trainable(model, frozenset(), trainable)
    backend.load(model, before)
    names = [each.name for each in plan.parameters if each.requires_grad and each.name not in unused]
    still = plan.plan_at(0).frozen
    with np.errstate(all="ignore"):  # a gradient that is not finite is a finding
        return {
            name: (before[name].astype(np.float64) - after[name].astype(np.float64)) / _PROBE_RATE
            for name in names
            if name not in still and before[name].dtype.kind != "c"
        }


def _probed(group: Any) -> Any:
    return type(group)(group.match, name=group.name, optional=group.optional)


def _train(ready: Prepared, options: RunOptions, gradients: dict[str, Array], fit: _Fit) -> _Measured:
    start = ready.backend.state(ready.model)
    loop, diverged = open_loop(ready, options, [fit], evaluates=False), False
    try:
        loop.run()
    except TrainingDiverged:
        diverged = True
    loop.measured.collect()
    weights = loop.session.weights()
    with np.errstate(all="ignore"):
        changes = {
            each.name: weights[each.name].astype(np.float64) - start[each.name].astype(np.float64)
            for each in ready.plan.parameters
            if start[each.name].dtype.kind != "c"
        }
    trained = Trained(
        plan=ready.plan,
        rates=_applied(loop, ready.plan),
        gradients=gradients,
        changes=changes,
        unused=frozenset(loop.session.without_gradient()),
        losses=loop.history.losses.numbers(),
        diverged=diverged,
        ok=not diverged and fit.is_reached,
    )
    return _Measured(trained, fit, loop.history.grad_norms.numbers(), start)


def _applied(loop: Loop, plan: Plan) -> dict[str, float]:
    """Each group's rate as the framework applied it; as planned where no update was made."""
    rates = loop.history.rates.numbers()
    first = rates[0].tolist() if len(rates) else plan.rates(0)
    return dict(zip((group.name for group in plan.groups), first, strict=True))


def _movements(measured: _Measured) -> Iterator[GroupMovement]:
    trained, norms = measured.trained, measured.norms
    for place, group in enumerate(trained.plan.groups):
        names = [name for name in group.parameters if name in trained.changes]
        with np.errstate(all="ignore"):
            size = math.sqrt(sum(float(np.square(measured.start[name].astype(np.float64)).sum()) for name in names))
            change = math.sqrt(sum(float(np.square(trained.changes[name]).sum()) for name in names))
        first, last = (norms[0, place], norms[-1, place]) if len(norms) else (math.nan, math.nan)
        moved = change / size if size else change
        yield GroupMovement(group.name, trained.rates[group.name], float(first), float(last), moved)


def _findings(trained: Trained, batches: RepeatedBatches) -> Iterator[Finding]:
    """Yield what was found, causes before what they cause. Of a learned batch, only what is wrong anyway."""
    groups = list(find_still_groups(trained))
    data = [*find_unnormalised(batches.images), *find_contradictions(batches.images, batches.labels)]
    labels = list(find_unrelated_labels(batches.whole))
    yield from groups
    yield from data
    yield from labels
    if trained.ok:
        return
    found = [*find_dead_layers(trained)]
    if not found and not any(finding.kind == "normalisation" for finding in data):
        found = list(find_wrong_gradients(trained))
    yield from found
    if not groups and not data and not found:
        yield from find_wrong_course(trained)
