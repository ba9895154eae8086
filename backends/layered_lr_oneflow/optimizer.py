"""Makes OneFlow's optimizers of a plan, and the scheduler for eager mode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from layered_lr.backend.hand_rates import HandRates
from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.optimizers import Optimizer
from layered_lr.plans.group import PlanGroup
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates, held_step, read_step_call
from layered_lr.state.scheduler_states import read_scheduler_state
from layered_lr.state.training_state import TrainingState
from layered_lr_oneflow.composed_optimizer import EAGER_ONLY, TORCH_ONLY, ComposedOptimizer
from layered_lr_oneflow.float32_rates import Float32Rates
from layered_lr_oneflow.oneflow_types import Module, NativeOptimizer, NativeParamGroup, Options, Tensor
from layered_lr_oneflow.runtime import flow


class ParamGroup(NamedTuple):
    """A param group for OneFlow, and the plan group that it belongs to.

    Args:
        group: The index of the plan's group.
        options: The hyperparameters and ``params``; ``lr`` is not yet multiplied by ``lr_scale``.
    """

    group: int
    options: Options


def build_param_groups(plan: Plan, model: Module) -> list[ParamGroup]:
    """Make the param groups of a plan.

    Returns:
        One for each group of the plan, in its order; then one for each further part of a group.
    """
    objects = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    ranked = [
        (rank, index, _make_options(group, part.optimizer, [objects[name] for name in part.parameters]))
        for index, group in enumerate(plan.groups)
        for rank, part in enumerate(group.parts)
    ]
    return [ParamGroup(index, options) for _, index, options in sorted(ranked, key=lambda item: item[:2])]


def build_optimizer(kind: type[Optimizer], groups: Iterable[Options]) -> NativeOptimizer:
    """Make OneFlow's own optimizer of one kind over these param groups; it must equal torch's.

    Args:
        kind: Of the optimizer of all of them.
        groups: Their options.
    """
    return getattr(flow.optim, kind.__name__)(list(groups))


def build_composed_optimizer(plan: Plan, model: Module) -> ComposedOptimizer:
    """Make the eager optimizer of a plan for which OneFlow's own differs from torch's.

    It has one param group for each group of the plan.
    """
    return ComposedOptimizer([group.optimizer for group in plan.groups], *list_composed_groups(plan, model))


def list_composed_groups(plan: Plan, model: Module) -> tuple[list[Options], list[Tensor]]:
    """List the param groups of a composed optimizer, and the parameters that never decay."""
    objects = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    groups = [
        _make_options(group, group.optimizer, [objects[name] for name in group.parameters]) for group in plan.groups
    ]
    return groups, [objects[name] for group in plan.groups for name in group.undecayed]


def _make_options(group: PlanGroup, optimizer: Optimizer, tensors: list[Tensor]) -> Options:
    options = {name: value for name, value in asdict(optimizer).items() if name not in TORCH_ONLY}
    return {**options, "lr_scale": group.lr_scale, "name": group.name, "params": tensors}


class PlanScheduler(flow.optim.lr_scheduler._LRScheduler):
    """Sets every param group's rate to the plan's; call ``step()`` after each ``optimizer.step()``.

    Rates are rounded as the Graph rounds them, so that both modes train bitwise the same. It counts updates, also if a
    schedule has ``unit="epoch"``. ``step(metrics=...)`` counts nothing: it lets ``ReduceLROnPlateau`` look at a
    metric. Its state is the count and what reactive schedules have seen.

    Attributes:
        plan: The whole plan.
        live: The rates of the present phase.
        owners: For each param group the index of its group in the plan.

    Args:
        optimizer: OneFlow's, or a ``ComposedOptimizer``.
        plan: The rates.
        owners: For each param group the index of its group in the plan.
        step: Updates made before.
        rounds: Whether to round rates as the Graph does, where the Graph would have OneFlow's own optimizer.
    """

    def __init__(
        self, optimizer: NativeOptimizer, plan: Plan, owners: Sequence[int], step: int = 0, rounds: bool = True
    ) -> None:
        self.plan = plan
        self.live = LiveRates(plan.plan_at(step))
        self.owners = owners
        self._hand_rates = HandRates()
        self._last_lr = [group["lr"] for group in optimizer.param_groups]
        self._float32_rates = Float32Rates(self.live.plan, rounds)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # OneFlow needs it where a scheduler does not begin at 0
        super().__init__(optimizer, step - 1)

    def step(self, *unnamed: object, metrics: Any = None) -> None:
        """Go on to the next update, or let reactive schedules look at a metric.

        A rate that was set in a param group by hand is replaced; the first time, a warning says so.

        Args:
            unnamed: A metric with a fraction, as torch's ``ReduceLROnPlateau`` takes it, if a schedule reads metrics.
                Anything else is refused: torch's other schedulers take it for an epoch.
            metrics: A number, or numbers by name (``loss``, ``accuracy``).

        Raises:
            SpecError: An argument that may be an epoch, or a metric that is missing or no number.
        """
        metrics = read_step_call(unnamed, metrics, bool(self.plan.reacting_units))
        self._hand_rates.look(self.optimizer.param_groups[: len(self.owners)], self._last_lr)
        if metrics is not None:
            self.observe(metrics)
            return
        self.last_step += 1
        self._apply()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric, and apply what they decide.

        Args:
            metrics: A number, or numbers by name (``loss``, ``accuracy``).
            unit: Only schedules that count this, ``"step"`` or ``"epoch"``, look at it; None is all of them.
        """
        self.live.observe(metrics, unit)
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in OneFlow's name, the rates, and the state of reactive schedules."""
        state = {"last_step": self.last_step, "_last_lr": list(self._last_lr)}
        reactions = self.reactions()
        return state | ({"reactions": reactions} if reactions else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count, at the plan's rates for it.

        Raises:
            CheckpointError: It is no result of ``state_dict``.
        """
        self.go_to(*read_scheduler_state(state_dict, "last_step"))

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """Go on before update ``step``, with what reactive schedules have seen."""
        self.live.restore(reactions)
        self.last_step = step
        self._apply()

    @property
    def here(self) -> Plan:
        """The plan of the present phase."""
        return self.live.plan

    @property
    def total_steps(self) -> int | None:
        """Updates of the whole run; None if the plan does not know it."""
        return self.plan.total_steps

    def reactions(self) -> Mapping[str, Mapping[str, float]]:
        """What reactive schedules have seen, by group."""
        return self.live.state()

    def check_state(self, state: TrainingState) -> None:
        """Refuse a state that the schedules cannot go on from, before anything is changed.

        Raises:
            CheckpointError: Its reactive groups are not the plan's.
            SpecError: A schedule has no rate for its step.
        """
        state.check_reactions(self.live.state())
        check_rates(self.plan, state.step, state.reactions)

    def _follow(self) -> None:
        """Begin the phase of update ``last_step``; a plan without phases has none to begin."""

    def _apply(self) -> None:
        self._follow()
        rates = self._float32_rates.round_rates(self.last_step, self.live.rates(self.last_step))
        momenta = self.live.plan.momenta(held_step(self.live.plan, self.last_step))
        self.update_lrs([rates[owner] for owner in self.owners])
        for group, owner in zip(self.optimizer.param_groups, self.owners, strict=True):
            if (momentum := momenta[owner]) is not None:
                _set_momentum(group, momentum)


def check_rates(plan: Plan, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse a step that the schedules of a plan without phases have no rate for.

    Raises:
        SpecError: They have none.
    """
    live = LiveRates(plan)
    live.restore(reactions)
    live.rates(step)


def _set_momentum(group: NativeParamGroup, momentum: float) -> None:
    """Set a param group's momentum, or the first of its betas."""
    if "betas" in group:
        group["betas"] = (momentum, group["betas"][1])
    else:
        group["momentum"] = momentum


class EagerScale(float):
    """The ``lr_scale`` of an eager param group: 1, because the rate is already multiplied; a Graph is refused.

    OneFlow reads ``lr_scale`` only when it compiles a Graph, which would train at the rates of step 0 forever.
    """

    def __float__(self) -> float:
        raise Unsupported(EAGER_ONLY)

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (1.0,)  # a copy, or a saved state, holds a plain number


class GraphScale(float):
    """The ``lr_scale`` of a Graph's param group; reading it drops the gradients of eager mode.

    OneFlow reads it when it compiles the Graph, before it traces ``build``. This is the last moment to drop gradients
    of an earlier eager backward pass: the compiled Graph would add them to every step.

    Attributes:
        parameters: Whose gradients are dropped.
    """

    parameters: Sequence[Tensor] = ()

    def __float__(self) -> float:
        for parameter in self.parameters:
            parameter.grad = None
        return float.__float__(self)

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float.__float__(self),)
