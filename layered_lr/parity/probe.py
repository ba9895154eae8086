"""The probe: a run of the same spec in which every gradient is known, so that only the optimizer is left to differ.

A probe model has the parameters' names and numbers of dimensions, hence the same groups, decay rules and rates, but at
most four elements each. Its logits are ``-200 + (s - detach(s))`` and 0, with ``s`` the sum of all elements times the
image: whatever the weights are, the cross-entropy's gradient at update ``t`` is exactly the negative image, bit by
bit on every framework. There is no chaos: two backends can only differ by the rounding of the update itself, and a
wrong rate, decay, clip, beta, eps, counter or state shows within few steps, parameter by parameter.

The spec is probed in rungs, each with one more thing than the last, so that the first rung to differ tells the cause:
``bare`` (rates, momenta, state), ``decay``, ``clip``, ``accumulation``. The sizes of gradients go from 1 to 1e-4, so
that an ``eps`` matters for some elements, and weights begin at 0 (where a rate shows to a part in ten million) and
around 1 (where decay shows). In ``bare`` the first element of every parameter has a gradient of 1 at each update: the
*probed rate* is what it moves, over what the reference moves in float64 at rate 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.backend.base import Backend, Dtype
from layered_lr.backend.class_targets import weigh_targets
from layered_lr.backend.phased_session import open_session
from layered_lr.backend.session import Extras, Session
from layered_lr.losses import PLAIN_LOSS, ClassLoss
from layered_lr.models.parameter import Parameter
from layered_lr.parity.disturbance import Disturbance
from layered_lr.parity.trace import ProbeTrace
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.registry import load_probes
from layered_lr.spec.groups import Group
from layered_lr.spec.spec import Spec

ELEMENTS = 4
GRADIENT_SIZES = (1.0, 1.0, 1e-2, 1e-4)
_BARE_STARTS = (0.0, 1.0, 0.0, 0.0)
_CLIP_RATIOS = (4.0, 0.25, 1.5, 0.75)  # gradient norms over the clip, in turn: so it acts, and does not
# For reactive schedules: nothing improves, so that they react.
_METRICS = {"loss": 1.0, "accuracy": 0.5, "ema accuracy": 0.5}


class Rung(NamedTuple):
    """A part of a spec.

    Args:
        name: What is added to the rungs before it.
        spec: The spec with no more than that.
        parts: Of how many batches each update is made, shape (steps,).
    """

    name: str
    spec: Spec
    parts: NDArray[np.int64]


def rungs_of(spec: Spec, parts: NDArray[np.int64]) -> list[Rung]:
    """The rungs that a spec has; ``parts`` as the run itself has them."""
    ones = np.ones_like(parts)
    phases = [replace(phase, clip_grad_norm=None, clip_grad_value=None) for phase in spec.phases]
    unclipped = replace(spec, clip_grad_norm=None, clip_grad_value=None, clip_per_group=False, phases=phases)
    bare = _undecayed(unclipped)
    rungs = [Rung("bare", bare, ones)]
    if bare != unclipped:
        rungs.append(Rung("decay", unclipped, ones))
    if unclipped != spec:
        rungs.append(Rung("clip", spec, ones))
    if parts.max(initial=1) > 1:
        rungs.append(Rung("accumulation", spec, parts))
    return rungs


def _undecayed(spec: Spec) -> Spec:
    phases = [
        replace(
            phase,
            optimizer=None if phase.optimizer is None else replace(phase.optimizer, weight_decay=0.0),
            groups=_groups_undecayed(phase.groups),
            weight_decay=None,
        )
        for phase in spec.phases
    ]
    optimizer = replace(spec.optimizer, weight_decay=0.0)
    return replace(spec, optimizer=optimizer, groups=_groups_undecayed(spec.groups), phases=phases)


def _groups_undecayed(groups: Sequence[Group]) -> list[Group]:
    return [
        replace(
            group,
            weight_decay=None if group.weight_decay is None else 0.0,
            optimizer=None if group.optimizer is None else replace(group.optimizer, weight_decay=0.0),
        )
        for group in groups
    ]


def choose_probed(plan: Plan, most: int | None) -> tuple[str, ...]:
    """Names of the parameters to probe, in model order: all of them, or some of each kind.

    Two parameters are of one kind if they are in the same group, have as many dimensions, and decay and train in the
    same phases.

    Args:
        plan: Of the real run.
        most: How many of each kind, evenly spread over the model; None takes all.
    """
    if most is None:
        return tuple(parameter.name for parameter in plan.parameters)
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for parameter in plan.parameters:
        name = parameter.name
        decays = [name not in group.undecayed for each in plan.phase_plans for group in each.groups]
        trains = [name not in each.frozen for each in plan.phase_plans]
        kind = (plan.group_of[name], len(parameter.shape), parameter.requires_grad, *decays, *trains)
        kinds.setdefault(kind, []).append(name)
    spread = (np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int) for names in kinds.values())
    chosen = {names[place] for names, places in zip(kinds.values(), spread, strict=True) for place in places}
    return tuple(parameter.name for parameter in plan.parameters if parameter.name in chosen)


def probe_parameters(plan: Plan, names: Collection[str]) -> list[Parameter]:
    """Those parameters of the plan with at most four elements each."""
    chosen = set(names)
    return [
        parameter._replace(shape=(ELEMENTS, *[1] * (len(parameter.shape) - 1)) if parameter.shape else ())
        for parameter in plan.parameters
        if parameter.name in chosen
    ]


def _shrink(plan: Plan, names: frozenset[str]) -> Plan:
    """The same plan with few elements of these parameters; each group keeps its place, its settings and its rates."""
    small = tuple(probe_parameters(plan, names))
    elements = {parameter.name: parameter.elements * parameter.requires_grad for parameter in small}
    groups = [
        replace(
            group,
            parameters=tuple(name for name in group.parameters if name in names),
            elements=sum(elements[name] for name in group.parameters if name in names),
            undecayed=tuple(name for name in group.undecayed if name in names),
        )
        for group in plan.groups
    ]
    return replace(
        plan,
        parameters=small,
        groups=tuple(groups),
        frozen=plan.frozen & names,
        phases=tuple(phase._replace(plan=_shrink(phase.plan, names)) for phase in plan.phases),
    )


class Stimulus(NamedTuple):
    """What a probe is given.

    Args:
        start: Every element before the first update, shape (elements,), float32.
        gradients: Shape (steps, most parts, elements), float32.
    """

    start: NDArray[np.float32]
    gradients: NDArray[np.float32]


def stimulus(plan: Plan, parameters: Sequence[Parameter], rung: Rung, seed: int) -> Stimulus:
    """Starts and gradients of the probe's parameters, the same for every backend."""
    rng = np.random.default_rng([seed, 5])
    place = np.concatenate([np.arange(parameter.elements) for parameter in parameters])
    steps, parts = len(rung.parts), int(rung.parts.max(initial=1))
    starts = rng.standard_normal(len(place))
    sizes = np.array(GRADIENT_SIZES)[place]
    gradients = sizes * rng.standard_normal((steps, parts, len(place)))
    if rung.name == "bare":
        starts *= np.array(_BARE_STARTS)[place]
        gradients[..., place == 0] = 1.0
    else:
        group = np.repeat([plan.group_of[p.name] for p in parameters], [p.elements for p in parameters])
        gradients *= np.exp(rng.standard_normal((steps, 1, len(plan.groups))))[..., group]
        _scale_to_clip(gradients, rung, group)
    return Stimulus(starts.astype(np.float32), gradients.astype(np.float32))


def _scale_to_clip(gradients: Float64, rung: Rung, group: NDArray[np.int64]) -> None:
    """Bring the norms around the clip, at each step to another side of it."""
    spec = rung.spec
    if spec.clip_grad_value is not None:
        gradients *= spec.clip_grad_value
    elif spec.clip_grad_norm is not None and np.isfinite(spec.clip_grad_norm):
        mean = np.stack([g[:n].mean(axis=0) for g, n in zip(gradients, rung.parts, strict=True)])
        wanted = spec.clip_grad_norm * np.resize(_CLIP_RATIOS, len(mean))
        if not spec.clip_per_group:
            gradients *= (wanted / np.linalg.norm(mean, axis=1))[:, None, None]
            return
        for index in np.unique(group):
            own = np.roll(wanted, index) / np.linalg.norm(mean[:, group == index], axis=1)
            gradients[..., group == index] *= own[:, None, None]


def run_rung(
    backend: Backend,
    plan: Plan,
    rung: Rung,
    *,
    frozen: Collection[str] = (),
    most: int | None = None,
    dtype: Dtype = "float32",
    seed: int = 0,
    disturbance: Disturbance | None = None,
    advanced: Callable[[], None] = lambda: None,
) -> ProbeTrace:
    """What a backend does to the probe on one rung.

    Args:
        backend: Whose own session makes the updates.
        plan: Of the real run.
        rung: What of its spec to probe.
        frozen: Parameters with ``requires_grad=False``.
        most: How many parameters of each kind to probe (``choose_probed``); None probes all.
        dtype: Of weights and arithmetic.
        seed: Of starts and gradients.
        disturbance: Shakes gradients and weights by last bits.
        advanced: Called after each update.
    """
    names = choose_probed(plan, most)
    parameters = probe_parameters(plan, names)
    given = stimulus(plan, parameters, rung, seed)
    probe = load_probes(backend.name).Probe
    model = backend.build(lambda: probe(parameters, frozen), 2, 0.0, seed, dtype)
    known = [parameter._replace(dtype=dtype) for parameter in plan.parameters]
    own = _shrink(resolve(rung.spec, known, plan.total_steps, plan.steps_per_epoch), frozenset(names))
    session = open_session(backend, own, model, 2, Extras(accumulate_steps=int(rung.parts.max(initial=1))))
    reactive = bool(own.reacting_units)
    weights = np.empty((len(rung.parts) + 1, len(given.start)))
    weights[0] = given.start
    shaken = given.start.astype(dtype)
    if disturbance is not None:
        shaken = disturbance.kept(shaken)
    backend.load(model, _unpacked(shaken, parameters))
    for step, parts in enumerate(rung.parts.tolist()):
        images = -given.gradients[step, :parts].astype(dtype)
        if disturbance is not None:
            images = disturbance.kept(images)
        session.train_step(images.reshape(parts, 1, 1, -1), np.zeros(parts, np.int64), parts)
        if reactive:
            _observe(session, own, step)
        shaken = _packed(session.weights(), parameters)
        weights[step + 1] = shaken
        if disturbance is not None:
            backend.load(model, _unpacked(disturbance.kept(shaken), parameters))
        advanced()
    return ProbeTrace(weights, session.rates(0, len(rung.parts)), names)


def _observe(session: Session, plan: Plan, step: int) -> None:
    session.observe(_METRICS, "step")
    if plan.steps_per_epoch and (step + 1) % plan.steps_per_epoch == 0:
        session.observe(_METRICS, "epoch")


def _packed(state: dict[str, NDArray[Any]], parameters: list[Parameter]) -> NDArray[Any]:
    return np.concatenate([state[parameter.name].reshape(-1) for parameter in parameters])


def _unpacked(vector: NDArray[Any], parameters: list[Parameter]) -> dict[str, NDArray[Any]]:
    ends = np.cumsum([parameter.elements for parameter in parameters])
    pieces = np.split(vector, ends[:-1])
    return {p.name: piece.reshape(p.shape) for p, piece in zip(parameters, pieces, strict=True)}


def probed_rates(probe: ProbeTrace, exact: ProbeTrace, plan: Plan) -> Float64:
    """Each group's rate as its weights show it: ``|delta w| / |direction|``, on the bare rung.

    The direction is what the reference, in float64, moves the same element over the rate that it applied: every
    optimizer here is linear in its rate, except LAMB and LARS, whose trust ratio depends on the weights, and
    so on rates before; for these the probed rate is right where the weights are the same.

    Args:
        probe: Of the backend.
        exact: Of the reference in float64.
        plan: Of the real run.

    Returns:
        Shape (steps, groups): the median over a group's parameters; NaN where the reference does not move.
    """
    firsts, groups, at = [], [], 0
    for parameter in probe_parameters(plan, exact.parameters):
        firsts.append(at)
        groups.append(plan.group_of[parameter.name])
        at += parameter.elements
    moved = np.abs(np.diff(probe.weights[:, firsts], axis=0))
    due = np.abs(np.diff(exact.weights[:, firsts], axis=0))
    rates = np.full(exact.rates.shape, np.nan)
    for index in set(groups):
        columns = [place for place, group in enumerate(groups) if group == index]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(due[:, columns] > 0, moved[:, columns] / due[:, columns], np.nan)
        known = ~np.isnan(ratio).all(axis=1)
        rates[known, index] = np.nanmedian(ratio[known], axis=1) * exact.rates[known, index]
        rates[~known & (moved[:, columns] == 0).all(axis=1), index] = 0.0
    return rates


class Answer(NamedTuple):
    """How exact a framework's cross-entropy is where the answer is known, in last bits.

    Args:
        loss: Of the larger of 1 and the loss.
        gradient: Of the gradient's largest element.
    """

    loss: float
    gradient: float


_KNOWN_BATCHES, _LOGIT_SIZES = 32, (0.0, 0.1, 1.0, 4.0)


def known_answers(
    backend: Backend, classes: int, batch_size: int, dtype: Dtype, seed: int, loss: ClassLoss = PLAIN_LOSS
) -> Answer:
    """Batches of random logits through the backend's own loss and one update at rate 1."""
    from layered_lr.optimizers import SGD

    rng = np.random.default_rng([seed, 6])
    model = backend.build(lambda: load_probes(backend.name).Answers(classes), classes, 0.0, seed, dtype)
    plan = resolve(Spec(SGD(1.0)), [("scale", (classes,), (), dtype)], total_steps=_KNOWN_BATCHES)
    session = backend.open(plan, model, classes, Extras(loss=loss))
    loss_bits = gradient_bits = 0.0
    for index in range(_KNOWN_BATCHES):
        size = _LOGIT_SIZES[index % len(_LOGIT_SIZES)]
        logits = (size * rng.standard_normal((batch_size, classes))).astype(np.float32)
        labels = rng.integers(0, classes, batch_size)
        backend.load(model, {"scale": np.ones(classes, dtype)})
        (found,) = session.losses([session.train_step(logits.reshape(batch_size, classes, 1, 1), labels)])
        gradient = 1.0 - session.weights()["scale"].astype(np.float64)
        due, due_gradient = _cross_entropy(logits.astype(np.float64), *weigh_targets(loss, labels, classes))
        loss_bits = max(loss_bits, abs(found - due) / spacing(max(due, 1.0), dtype))
        largest = max(1.0, float(np.abs(due_gradient).max()))  # the update itself rounds to a last bit of 1
        gradient_bits = max(gradient_bits, float(np.abs(gradient - due_gradient).max()) / spacing(largest, dtype))
    return Answer(float(loss_bits), float(gradient_bits))


def spacing(value: float, dtype: str) -> float:
    """The last bit of a number."""
    return float(np.spacing(np.abs(np.dtype(dtype).type(value))))


def _cross_entropy(logits: Float64, targets: Float64, divisor: float) -> tuple[float, Float64]:
    """The loss of a batch, and its gradient to a scale of each class; see ``weigh_targets``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    slope = np.exp(log_p) * targets.sum(axis=1, keepdims=True) - targets
    return float(-(targets * log_p).sum(axis=1).sum() / divisor), (slope * logits).sum(axis=0) / divisor
