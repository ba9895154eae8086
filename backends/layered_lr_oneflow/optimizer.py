"""A plan as OneFlow's own optimizers, and as a scheduler for eager mode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from layered_lr.errors import Unsupported
from layered_lr.live import LiveRates
from layered_lr.modules import parameters_of
from layered_lr.optimizers import SGD, Optimizer
from layered_lr.plans import Plan
from layered_lr_oneflow.rounding import GraphRates
from layered_lr_oneflow.runtime import flow

# Those whose hyperparameters mean in OneFlow what they mean in torch; the tests hold each against torch.
_NATIVE: Mapping[type[Optimizer], Any] = {SGD: flow.optim.SGD}


def param_groups(plan: Plan, model: Any) -> list[dict[str, Any]]:
    """One OneFlow param group per plan group, in its order, with its unscaled ``lr`` and its ``lr_scale``."""
    objects = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
    return [
        {
            **asdict(group.optimizer),
            "lr_scale": group.lr_scale,
            "name": group.name,
            "params": [objects[name] for name in group.parameters],
        }
        for group in plan.groups
    ]


def build_optimizer(plan: Plan, groups: Iterable[dict[str, Any]]) -> Any:
    """OneFlow's optimizer of the plan's name over these param groups.

    Raises:
        Unsupported: OneFlow has none that equals torch's.
    """
    kind = _NATIVE.get(type(plan.spec.optimizer))
    if kind is None:
        raise Unsupported(f"OneFlow backends have no {type(plan.spec.optimizer).__name__} that equals torch's.")
    return kind(list(groups))


class PlanScheduler(flow.optim.lr_scheduler._LRScheduler):  # type: ignore[misc] # OneFlow has no types
    """Sets every param group's rate to the plan's; call ``step()`` after each ``optimizer.step()``.

    Rates are rounded as the Graph rounds them, so that both modes train bitwise the same. It counts updates,
    also where a schedule has ``unit="epoch"``. ``step(metrics=...)`` counts nothing: it lets
    ``ReduceLROnPlateau`` look at a metric. Its state is the count and what reactive schedules have seen.
    """

    def __init__(self, optimizer: Any, plan: Plan) -> None:
        self.live = LiveRates(plan)
        self._graph_rates = GraphRates(plan)
        super().__init__(optimizer)

    def step(self, metrics: Any = None) -> None:
        """Go on to the next update, or let reactive schedules look at a metric.

        Args:
            metrics: A number, or numbers by name (``loss``, ``accuracy``).
        """
        if metrics is not None:
            self.observe(metrics)
            return
        self.last_step += 1
        self._apply()

    def observe(self, metrics: Any, unit: str | None = None) -> None:
        """Let reactive schedules look at a metric; see ``LiveRates.observe``."""
        self.live.observe(metrics, unit)
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """The count of updates, in OneFlow's name, the rates, and the state of reactive schedules."""
        state = {"last_step": self.last_step, "_last_lr": list(self._last_lr)}
        return state | ({"reactions": self.live.state()} if self.live.is_reactive else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count, at the plan's rates for it."""
        self.live.restore(state_dict.get("reactions", {}))
        self.last_step = state_dict["last_step"]
        self._apply()

    def _apply(self) -> None:
        self.update_lrs(self._graph_rates.rounded(self.last_step, self.live.rates(self.last_step)))
        for group, momentum in zip(self.optimizer.param_groups, self.live.plan.momenta(self.last_step), strict=True):
            if momentum is not None:
                group["momentum"] = momentum


class EagerScale(float):
    """The ``lr_scale`` of an eager param group: 1, because the rate has it already; a Graph that asks is refused.

    OneFlow reads ``lr_scale`` only to compile a Graph, which would train at the rates of step 0 for ever.
    """

    def __float__(self) -> float:
        raise Unsupported(
            "this optimizer is for OneFlow's eager mode (lr_scale is folded into its rates). In a oneflow.nn.Graph "
            "call layered_lr.attach(spec, self, model) in __init__ instead of add_optimizer()."
        )

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (1.0,)  # a copy, or a saved state, holds a plain number


class GraphScale(float):
    """The ``lr_scale`` of a Graph's param group, which drops eager gradients at the moment the Graph is compiled.

    OneFlow asks for it then, before it traces ``build``: the last moment to drop gradients of an earlier eager
    backward pass, with which the compiled Graph would never train right.
    """

    parameters: Sequence[Any] = ()

    def __float__(self) -> float:
        for parameter in self.parameters:
            parameter.grad = None
        return float.__float__(self)

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float.__float__(self),)
