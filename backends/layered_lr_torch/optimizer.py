"""A plan as torch's own optimizer and a torch scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from layered_lr.backend.hand_rates import HandRates
from layered_lr.errors import Unsupported
from layered_lr.models.nn_modules import parameters_of
from layered_lr.optimizers import Optimizer
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates, check_step_call
from layered_lr.state.training_state import TrainingState
from layered_lr_torch import paper_optimizers
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.grouped_steps import shorten_steps
from layered_lr_torch.late_steps import allow_late_parameters
from layered_lr_torch.lowering import OWN, choose_implementation
from layered_lr_torch.slots import begin_sums
from layered_lr_torch.torch_types import Module, ParamGroup, Tensor

NO_DECAY = " (no weight decay)"


def build_optimizer(
    plan: Plan, model: Module, clipper: GradientClipper | None = None, step: int = 0, is_internal: bool = False
) -> torch.optim.Optimizer:
    """Make torch's optimizer of a plan, with a param group for every part of every plan group, in their order.

    A plan group has two parts if only some of its parameters decay; the name of the second param group is then the
    group's name and ``NO_DECAY``. A param group's ``lr`` is its rate at ``step``, already multiplied by ``lr_scale``,
    which torch's optimizers do not know. Frozen parameters are included; without a gradient they stay as they are.

    Args:
        plan: Groups and hyperparameters; without phases.
        model: Whose parameters are trained.
        clipper: Clips the gradients before each update; None makes one, if the plan clips.
        step: The first update.
        is_internal: Whether no user ever sees the optimizer; then ``shorten_steps`` also serves few param groups.

    Raises:
        Unsupported: This release of torch lacks the optimizer, or an option of it.
    """
    settings = plan.spec.optimizer
    cls = _find_class(settings)
    groups = build_param_groups(plan, model, step)
    chosen = _choose_implementation(settings, model, [tensor for group in groups for tensor in group["params"]])
    optimizer: torch.optim.Optimizer = cls(groups, **_make_arguments(cls, settings, chosen))
    begin_sums(optimizer)
    clipper = clipper or GradientClipper(plan, model)
    if clipper.has_work:
        clipper.attach(optimizer)
    if not shorten_steps(optimizer, also_few=is_internal):
        allow_late_parameters(optimizer)
    return optimizer


def build_param_groups(plan: Plan, model: Module, step: int) -> list[ParamGroup]:
    """Make the param groups of ``build_optimizer``; torch fills in what they leave out.

    Raises:
        Unsupported: This release of torch lacks the optimizer, or an option of it.
    """
    settings = plan.spec.optimizer
    cls = _find_class(settings)
    tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    chosen = _choose_implementation(settings, model, list(tensors.values()))
    return [
        {
            **_make_arguments(cls, part.optimizer, chosen),
            "lr": rate,
            "name": group.name + (NO_DECAY if index else ""),
            "params": [tensors[name] for name in part.parameters],
        }
        for group, rate in zip(plan.groups, LiveRates(plan).rates(step), strict=True)
        for index, part in enumerate(group.parts)
    ]


def _find_class(settings: Optimizer) -> Any:
    kind = type(settings).__name__
    cls = getattr(paper_optimizers if isinstance(settings, OWN) else torch.optim, kind, None)
    if cls is None:
        raise Unsupported(f"torch {torch.__version__} has no optimizer {kind}. Install a newer release.")
    return cls


def _choose_implementation(settings: Optimizer, model: Module, tensors: Sequence[Tensor]) -> dict[str, bool]:
    """Choose the arguments ``foreach`` and ``fused``; empty if torch, or the user, has the choice."""
    devices = {tensor.device.type for tensor in tensors}
    are_plain = all(
        type(tensor) in (torch.nn.Parameter, torch.Tensor) and tensor.is_floating_point() for tensor in tensors
    )
    has_sparse = any(getattr(module, "sparse", False) for module in model.modules())  # embeddings: no fused kernel
    is_chosen_by_user = settings.foreach is not None or getattr(settings, "fused", None) is not None
    chosen = (
        choose_implementation(settings, devices.pop()) if len(devices) == 1 and are_plain and not has_sparse else None
    )
    if is_chosen_by_user or chosen is None:
        return {}
    return {"foreach": chosen == "foreach", "fused": chosen == "fused"}


def _make_arguments(cls: Any, settings: Optimizer, chosen: dict[str, bool]) -> ParamGroup:
    """Make the keyword arguments of the optimizer's constructor.

    Raises:
        Unsupported: torch's class lacks an argument (in an older release) whose setting is not the default.
    """
    known = inspect.signature(cls).parameters
    values = asdict(settings) | {name: value for name, value in chosen.items() if hasattr(settings, name)}
    defaults = {field.name: field.default for field in fields(settings)}
    for name in values.keys() - known.keys():
        if values[name] != defaults[name]:
            raise Unsupported(
                f"{cls.__name__}({name}=...) is not in torch {torch.__version__}: install a newer one, or leave it out."
            )
        del values[name]
    return values


class PlanScheduler(LRScheduler):
    """Sets every param group's rate to the plan's; call ``step()`` after each ``optimizer.step()``.

    It counts updates, also if a schedule has ``unit="epoch"``. ``step(metrics=...)`` counts nothing: it lets
    ``ReduceLROnPlateau`` look at a metric, whenever there is one. ``get_last_lr()`` has a rate for each of the
    optimizer's param groups, as in torch: two for a group of the plan in which only some parameters decay. Param groups
    that the user adds keep their own rates. Its state is the count and what reactive schedules have seen. The state
    holds no rates: after loading, the rates are the plan's.

    Attributes:
        owners: For each param group of the plan the index of its group in the plan.

    Args:
        optimizer: From ``build_optimizer``.
        plan: The rates.
        step: Updates made before.
        clipper: Clips the gradients before each update of the optimizer. It is here for copies and pickles, in which
            torch leaves out the hooks of an optimizer.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, plan: Plan, step: int = 0, clipper: GradientClipper | None = None
    ) -> None:
        self.live = LiveRates(plan)
        self._clipper = clipper
        self._hand_rates = HandRates()
        self.owners = [index for index, group in enumerate(plan.groups) for _ in group.parts]
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # torch needs it where a scheduler does not begin at 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, step - 1)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._clipper is not None:
            self._clipper.attach(self.optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override] # torch also allows tensors
        """Compute the rates of the next update, one for each param group."""
        rates = self.live.rates(self.last_epoch)
        added = self.optimizer.param_groups[len(self.owners) :]
        return [rates[index] for index in self.owners] + [group["lr"] for group in added]

    def step(self, *unnamed: object, epoch: int | None = None, metrics: Any = None) -> None:
        """Go on to the next update, or let reactive schedules look at a metric.

        A rate that was set in a param group by hand is replaced; the first time, a warning says so.

        Args:
            unnamed: Refused: torch takes it for a metric in one scheduler, and for an epoch in the others.
            epoch: As in torch's schedulers, deprecated there: the update to go to.
            metrics: A number, or numbers by name (``loss``, ``accuracy``).

        Raises:
            SpecError: An argument without a name, or a metric that is missing or no number.
        """
        check_step_call(unnamed)
        self._hand_rates.look(self.optimizer.param_groups[: len(self.owners)], self._last_lr)
        if metrics is not None:
            self.observe(metrics)
        elif epoch is None and self._step_count > 1:
            self._step_count += 1
            self.last_epoch += 1
            self._apply()
        else:  # torch warns here of calls in the wrong order, and of the argument
            super().step(epoch)
            self._set_momenta()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric, and apply what they decide.

        Args:
            metrics: A number, or numbers by name (``loss``, ``accuracy``).
            unit: Only schedules that count this, ``"step"`` or ``"epoch"``, look at it; None is all of them.
        """
        self.live.observe(metrics, unit)
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in torch's names, and the state of reactive schedules."""
        state = {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": list(self._last_lr)}
        return state | ({"reactions": self.live.state()} if self.live.is_reactive else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count, at the plan's rates for it."""
        self.go_to(state_dict["last_epoch"], state_dict.get("reactions", {}))
        self._step_count = state_dict["_step_count"]

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

    def _apply(self) -> None:
        self._last_lr = list(self.get_lr())
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
        self._set_momenta()

    def _set_momenta(self) -> None:
        if not self.live.plan.moving:
            return
        momenta = self.live.plan.momenta(self.last_epoch)
        for group, index in zip(self.optimizer.param_groups, self.owners, strict=False):
            momentum = momenta[index]
            if momentum is not None:
                group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})
