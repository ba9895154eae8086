"""The torch scheduler that sets a plan's rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from layered_lr.backend.hand_rates import HandRates
from layered_lr.backend.step_watch import StepWatch
from layered_lr.plans.param_groups import find_owners
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates, held_step, read_step_call
from layered_lr.state.scheduler_states import read_scheduler_state
from layered_lr.state.training_state import TrainingState
from layered_lr_torch.torch_types import ParamGroup


class UpdateCounter:
    """A hook behind ``optimizer.step`` that counts; it belongs to one scheduler."""

    def __init__(self) -> None:
        self.updates = 0

    def __call__(self, *_: object) -> None:
        """Count an update."""
        self.updates += 1

    def take(self) -> int:
        """Return the count, and begin anew."""
        updates, self.updates = self.updates, 0
        return updates


class PlanScheduler(LRScheduler):
    """Sets every param group's rate to the plan's; call ``step()`` after each ``optimizer.step()``.

    It counts updates, also if a schedule has ``unit="epoch"``. ``step(metrics=...)`` counts nothing: it lets
    ``ReduceLROnPlateau`` look at a metric, whenever there is one. ``get_last_lr()`` has a rate for each of the
    optimizer's param groups, as in torch: two for a group of the plan in which only some parameters decay. Param groups
    that the user adds keep their own rates. Behind the end of the run the rates of its end hold. A rate that is a
    tensor stays the same tensor. Its state is the count and what reactive schedules have seen. The state holds no
    rates: after loading, the rates are the plan's.

    Everything that the plan decides for the update ``last_epoch`` comes in with ``get_lr()``, because others drive
    torch's schedulers by it.

    Attributes:
        plan: The whole plan.
        live: The rates of the present phase.
        owners: For each param group of the plan the index of its group in the plan.

    Args:
        optimizer: From ``build_optimizer``, or with the param groups of ``owners``.
        plan: The rates.
        step: Updates made before.
        owners: As the attribute; None is the order of ``build_param_groups``.
        watches: Whether to warn of calls that do not fit the plan.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        step: int = 0,
        owners: list[int] | None = None,
        watches: bool = False,
    ) -> None:
        self.plan = plan
        self.live = LiveRates(plan.plan_at(step))
        self._hand_rates = HandRates()
        self._watch = StepWatch(plan, step)
        self._counter: UpdateCounter | None = None
        self.owners = find_owners(plan) if owners is None else owners
        self._counts_by_itself = True
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # torch needs it where a scheduler does not begin at 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, step - 1)
        if watches and self._watch.counts_epochs:
            self._counter = UpdateCounter()
            optimizer.register_step_post_hook(self._counter)

    @property
    def total_steps(self) -> int | None:
        """Updates of the whole run; None if the plan does not know it."""
        return self.plan.total_steps

    def get_lr(self) -> list[float]:  # type: ignore[override] # torch also allows tensors
        """Compute the rates of update ``last_epoch``, one for each param group, and set what else it needs.

        That is the momentum, and what a phase changes.
        """
        self._follow()
        rates = self.live.rates(self.last_epoch)
        self._set_momenta()
        added = self.optimizer.param_groups[len(self.owners) :]
        return [rates[index] for index in self.owners] + [group["lr"] for group in added]

    def step(self, *unnamed: Any, epoch: int | None = None, metrics: Any = None) -> None:
        """Go on to the next update, or let reactive schedules look at a metric.

        A rate that was set in a param group by hand is replaced; the first time, a warning says so. Further warnings,
        each at most once: calls after the end of the run, calls that come once an epoch, and a
        ``ReduceLROnPlateau`` that is given no metric.

        Args:
            unnamed: A metric with a fraction, as torch's ``ReduceLROnPlateau`` takes it, if a schedule reads metrics;
                0, by which other schedulers let this one begin; after ``step_update`` an epoch, which is ignored, and
                a metric, as timm calls it. Anything else is refused: it may be an epoch.
            epoch: As in torch's schedulers, deprecated there: the update to go to.
            metrics: A number, or numbers by name (``loss``, ``accuracy``).

        Raises:
            SpecError: An argument that may be an epoch, or a metric that is missing or no number.
        """
        if unnamed:
            if not self._counts_by_itself:
                if len(unnamed) > 1 and unnamed[1] is not None and self.is_reactive:
                    self.observe(unnamed[1])
                return
            if len(unnamed) == 1 and type(unnamed[0]) is int and unnamed[0] == 0 and not self.is_reactive:
                self._step_count += 1
                self._go_to_update(0)
                return
            metrics = read_step_call(unnamed, metrics, self.is_reactive)
        if metrics is not None:
            self.observe(metrics)
        elif epoch is None and self._step_count > 1:
            self._hand_rates.look(self.optimizer.param_groups[: len(self.owners)], self._last_lr)
            self._step_count += 1
            self.last_epoch += 1
            self._apply()
            if self._counter is not None or self.last_epoch >= self._watch.next_look:
                self._look_at_call()
        else:  # torch warns here of calls in the wrong order, and of the argument
            if epoch is None and self._step_count:
                self._hand_rates.look(self.optimizer.param_groups[: len(self.owners)], self._last_lr)
            super().step(epoch)
            if self._counter is not None:
                self._look_at_call()

    def step_update(self, num_updates: int, metric: Any = None) -> None:
        """Go to an update, as timm's schedulers do it.

        Args:
            num_updates: Updates made so far.
            metric: Ignored, as by most schedulers of timm: give metrics to ``step(epoch, metric)``.
        """
        self._counts_by_itself = False
        self._go_to_update(num_updates)

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric, and apply what they decide.

        Args:
            metrics: A number, or numbers by name (``loss``, ``accuracy``).
            unit: Only schedules that count this, ``"step"`` or ``"epoch"``, look at it; None is all of them.
        """
        self.live.observe(metrics, unit)
        self._apply()

    @property
    def is_reactive(self) -> bool:
        """Whether any schedule reads metrics, in any phase."""
        return bool(self.plan.reacting_units)

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in torch's names, and the state of reactive schedules of all phases so far."""
        state = {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": list(self._last_lr)}
        reactions = self.reactions()
        return state | ({"reactions": reactions} if reactions else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count, at the plan's rates for it.

        Raises:
            CheckpointError: It is no result of ``state_dict``.
        """
        saved = read_scheduler_state(state_dict, "last_epoch")
        self.go_to(saved.step, saved.reactions)
        self._step_count = state_dict.get("_step_count", saved.step + 1)

    def go_to(self, step: int, reactions: Mapping[str, Mapping[str, float]]) -> None:
        """Go on before update ``step``, with what reactive schedules have seen."""
        self.live.restore(reactions)
        self.last_epoch, self._step_count = step, step + 1
        self._apply()

    def check_reactions(self, state: TrainingState) -> None:
        """Refuse a state whose reactive groups are not the plan's."""
        state.check_reactions(self.reactions())

    def reactions(self) -> Mapping[str, Mapping[str, float]]:
        """What reactive schedules have seen, by group."""
        return self.live.state()

    def param_groups_at(self, step: int) -> list[ParamGroup]:
        """The optimizer's param groups as the phase of an update has them."""
        return self.optimizer.param_groups

    def _go_to_update(self, step: int) -> None:
        self.last_epoch = step
        self._apply()

    def _follow(self) -> None:
        """Begin the phase of update ``last_epoch``; a plan without phases has none to begin."""

    def _look_at_call(self) -> None:
        """Warn of what does not fit the plan."""
        if self.last_epoch >= self._watch.next_look:
            self._watch.look(self.last_epoch, any(seen["seen"] for seen in self.reactions().values()))
        if self._counter is not None:
            self._watch.count_updates(self._counter.take())

    def _apply(self) -> None:
        self._last_lr = list(self.get_lr())
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            if type(group["lr"]) is float:  # nearly always: a look that costs less than the call
                group["lr"] = rate
            else:
                set_number(group, "lr", rate)

    def _set_momenta(self) -> None:
        plan = self.live.plan
        if not plan.moving:
            return
        momenta = plan.momenta(held_step(plan, self.last_epoch))
        for group, index in zip(self.optimizer.param_groups, self.owners, strict=False):
            momentum = momenta[index]
            if momentum is None:
                continue
            if "betas" not in group:
                set_number(group, "momentum", momentum)
            elif isinstance(group["betas"][0], torch.Tensor):
                group["betas"][0].fill_(momentum)
            else:
                group["betas"] = (momentum, group["betas"][1])


def set_number(group: ParamGroup, name: str, value: Any) -> None:
    """Set a hyperparameter; a tensor is filled, so that what was compiled with it stays valid."""
    old = group.get(name)
    if isinstance(old, torch.Tensor) and isinstance(value, float | int):
        old.fill_(value)
    else:
        group[name] = value
