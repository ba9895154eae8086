"""What a short training says of itself: rates of 0, a frozen head, dead layers, gradients, the course of the loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from layered_lr.arrays import Array, Float64
from layered_lr.findings import Finding
from layered_lr.models.answering_layer import find_head
from layered_lr.models.parameter import Parameter
from layered_lr.plans.frozen_by_hand import find_frozen_by_hand
from layered_lr.plans.plan import Plan

_LARGEST_NORM = 100.0  # of a group's gradient at the start
_VANISHED = 1e-4  # of the largest mean gradient of a weight
_DEAD_PART = 0.9  # of a layer's units


class Trained(NamedTuple):
    """What was measured.

    Args:
        plan: Of the training, with constant rates and without decay.
        rates: Of each group.
        gradients: Of each parameter that trains, at the start.
        changes: What each parameter changed by in all updates.
        unused: Names of parameters that have had no gradient.
        losses: Of each update, those that are finite.
        diverged: Whether one was not finite.
        ok: Whether the loss reached what it was to.
    """

    plan: Plan
    rates: Mapping[str, float]
    gradients: Mapping[str, Array]
    changes: Mapping[str, Array]
    unused: frozenset[str]
    losses: Float64
    diverged: bool
    ok: bool

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the parameters that do not train, whatever their rate is."""
        return self.plan.plan_at(0).frozen | find_frozen_by_hand(self.plan.parameters)

    def group_norm(self, names: Sequence[str]) -> float:
        """The norm of some parameters' gradients at the start."""
        squares = [np.square(self.gradients[name].astype(np.float64)).sum() for name in names if name in self.gradients]
        return float(np.sqrt(np.sum(squares))) if squares else 0.0

    @property
    def weights(self) -> list[Parameter]:
        """The parameters with two or more dimensions that have a gradient, embeddings aside."""
        return [
            parameter
            for parameter in self.plan.parameters
            if len(parameter.shape) > 1
            and parameter.name in self.gradients
            and parameter.name not in self.frozen | self.unused
            and "Embedding" not in parameter.types
        ]


def find_still_groups(trained: Trained) -> Iterator[Finding]:
    """Yield a finding for rates of 0, for a head that is frozen, and for groups that the loss does not depend on."""
    plan = trained.plan
    zero = [
        group.name
        for group in plan.groups
        if trained.rates[group.name] == 0 and not trained.frozen.issuperset(group.parameters)
    ]
    if zero:
        yield Finding(
            "rate-zero",
            f"{_groups(zero)} at a rate of 0.",
            tuple(zero),
            (),
            "Nothing of it moves.",
            "give it an lr and an lr_scale above 0, and look at its schedule: layered-lr plan shows the rates.",
        )
    path = find_head(plan.parameters)
    names = [name.name for name in plan.parameters if path and f"{name.name}.".startswith(f"{path}.")]
    if names and trained.frozen.issuperset(names) and len(trained.frozen) < len(plan.parameters):
        yield Finding(
            "frozen-head",
            f"the layer that answers, {path}, is frozen.",
            (),
            tuple(names),
            "A new head stays as it was drawn, and the layers below have to learn around it.",
            "let the head train: take it out of Phase(frozen=...), or set requires_grad=True.",
        )
    for group in plan.groups:
        moving = [name for name in group.parameters if name not in trained.frozen]
        if moving and trained.unused.issuperset(moving):
            yield Finding(
                "no-gradient",
                f"no gradient has reached group {group.name!r}.",
                (group.name,),
                tuple(moving),
                "The loss does not depend on it.",
                "look at the forward pass: is the module called, and is nothing detached behind it?",
            )


def find_dead_layers(trained: Trained) -> Iterator[Finding]:
    """Yield a finding where almost all units of a layer have no gradient at the start, and never move."""
    dead = [parameter for parameter in trained.weights if _dead_part(trained, parameter) >= _DEAD_PART]
    if dead:
        names = tuple(parameter.name for parameter in dead)
        yield Finding(
            "dead-activations",
            f"{len(names)} of {len(trained.weights)} weights have a gradient of exactly 0 in nearly all units.",
            _owners(trained.plan, names),
            names,
            "The activations behind them are 0 for every image (a ReLU whose input is always below 0), so that nothing "
            "below learns.",
            "look at the biases and the scale of the initial weights, and at the images' normalisation.",
        )


def _dead_part(trained: Trained, parameter: Parameter) -> float:
    """The part of a weight's units (rows) whose gradient is 0, and which never moved where they could."""
    gradient = trained.gradients[parameter.name]
    still = ~gradient.reshape(len(gradient), -1).any(axis=1)
    if trained.rates[trained.plan.groups[trained.plan.group_of[parameter.name]].name] > 0:
        change = trained.changes[parameter.name]
        still &= ~change.reshape(len(change), -1).any(axis=1)
    return float(still.mean()) if len(still) else 0.0


def find_wrong_gradients(trained: Trained) -> Iterator[Finding]:
    """Yield a finding for groups with exploding gradients, or else with vanishing ones."""
    norms = {group.name: trained.group_norm(group.parameters) for group in trained.plan.groups}
    large = [name for name, norm in norms.items() if not norm <= _LARGEST_NORM]
    if large:
        yield Finding(
            "exploding-gradient",
            f"the gradient norm of {_groups(large)} is {max(norms[name] for name in large):.3g} at the start.",
            tuple(large),
            (),
            "The first update moves the weights far away.",
            "look at the scale of the initial weights, add normalisations, or clip: Spec(clip_grad_norm=1.0).",
        )
        return
    sizes = {
        parameter.name: float(np.sqrt(np.mean(np.square(trained.gradients[parameter.name].astype(np.float64)))))
        for parameter in trained.weights
        if trained.gradients[parameter.name].size
    }
    largest = max(sizes.values(), default=0.0)
    small = tuple(name for name, size in sizes.items() if 0 < size < _VANISHED * largest)
    if small:
        owners = _owners(trained.plan, small)
        yield Finding(
            "vanishing-gradient",
            f"the gradients of {len(small)} weights are more than {1 / _VANISHED:,.0f} times smaller than the largest.",
            owners,
            small,
            "These layers hardly learn.",
            "look at saturated activations (sigmoid, tanh) and at the initial weights; add normalisations.",
        )


def find_wrong_course(trained: Trained) -> Iterator[Finding]:
    """Yield a finding that tells from the course of the loss alone whether rates are too high or too low."""
    losses = trained.losses
    if trained.diverged or (len(losses) > 1 and (losses[-1] > losses[0] * 1.05 or losses.max() > 3 * abs(losses[0]))):
        yield _finding("rate-too-high", "the loss rises, or becomes NaN.", "lower the rates: layered-lr find-lr.")
    elif len(losses) < 2 or losses[-1] > 0.5 * losses[0]:
        what = "the loss has fallen by less than half." if len(losses) > 1 else "a single update was made."
        yield _finding("rate-too-low", what, "raise the rates: layered-lr find-lr; or take more steps.")
    else:
        yield _finding("needs-more-steps", "the loss falls, and is not there yet.", "take more steps, or higher rates.")


def _finding(kind: str, what: str, mend: str) -> Finding:
    return Finding(kind, what, (), (), "The batch is not learned in these updates.", mend)


def _groups(names: Sequence[str]) -> str:
    return f"group{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"


def _owners(plan: Plan, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(plan.groups[plan.group_of[name]].name for name in names))
