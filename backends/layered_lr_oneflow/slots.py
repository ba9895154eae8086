"""Optimizer slots as torch names and means them; what OneFlow's optimizers hold is brought to that and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Arrays
from layered_lr.models.nn_modules import parameters_of
from layered_lr.optimizers import LARS, SGD, Lion, Optimizer
from layered_lr.plans.plan import Plan
from layered_lr_oneflow.rules import UpdateRule, rule_of

_UNCOUNTED = (SGD, LARS, Lion)  # torch counts no updates for these; SGD's rule does where it dampens


class SlotBook:
    """What each parameter's slots are by torch's names, and how many updates it has had.

    OneFlow's slots stand there filled before the first update, and some of its optimizers count for all parameters at
    once, or not at all: so the counts are kept here, and parameters without updates have no slots, as in torch.

    Args:
        plan: Made for this model.
        model: What is frozen by the plan, or by ``requires_grad=False``, is left out.
        frozen_too: It is not.
    """

    def __init__(self, plan: Plan, model: Any, frozen_too: bool = False) -> None:
        self._tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self.rules: dict[str, UpdateRule[Any]] = {}
        for group in plan.groups:
            for part in group.parts:
                rule = rule_of(part.optimizer)
                self.rules |= {name: rule for name in part.parameters if frozen_too or self._trains(plan, name)}
        self._counts = dict.fromkeys(self.rules, 0)

    def _trains(self, plan: Plan, name: str) -> bool:
        return name not in plan.frozen and bool(self._tensors[name].requires_grad)

    def count(self, names: Iterable[str]) -> None:
        """Note an update of these parameters."""
        for name in names:
            self._counts[name] += 1

    def with_gradients(self) -> list[str]:
        """Names of the parameters that have a gradient."""
        return [name for name in self.rules if self._tensors[name].grad is not None]

    def new(self) -> dict[str, dict[str, NDArray[Any]]]:
        """Every trainable parameter's slots before the first update, and the counts."""
        return {name: self._new(name) for name in self.rules}

    def outward(self, held: Mapping[str, Arrays]) -> dict[str, dict[str, NDArray[Any]]]:
        """Slots in torch's meaning.

        Args:
            held: Every trainable parameter's, by torch's names; the count may be among them.
        """
        slots = {name: self._named(name, held.get(name, {}), count) for name, count in self._counts.items() if count}
        return {name: own for name, own in slots.items() if own}

    def moved(self, held: Mapping[str, Arrays], step: int) -> dict[str, dict[str, NDArray[Any]]]:
        """As ``outward``, where nobody counted.

        Slots that are as before the first update are left out: they are what a parameter without any begins with. A
        count that the optimizer does not keep is one that no update depends on.

        Args:
            held: As for ``outward``.
            step: Stands for counts that the optimizer does not keep.
        """
        slots = {name: self._named(name, held[name], step) for name in self.rules if self._has_moved(name, held)}
        return {name: own for name, own in slots.items() if own}

    def _has_moved(self, name: str, held: Mapping[str, Arrays]) -> bool:
        begins = {**self.rules[name].slots, **self.rules[name].carried}
        return any(
            slot not in begins or bool((array != np.asarray(begins[slot], array.dtype)).any())
            for slot, array in held.get(name, {}).items()
        )

    def _named(self, name: str, held: Arrays, count: int) -> dict[str, NDArray[Any]]:
        given = dict(held)
        counted = given.pop("step", np.array(float(count)))
        return given if isinstance(self._optimizer(name), _UNCOUNTED) else {**given, "step": counted}

    def inward(self, slots: Mapping[str, Arrays]) -> dict[str, dict[str, NDArray[Any]]]:
        """The other way round, for every trainable parameter; the counts go on from these."""
        taken = {}
        for name, rule in self.rules.items():
            given = slots.get(name, {})
            self._counts[name] = int(given["step"]) if "step" in given else int(bool(given))
            found = {**self._new(name), **given, "step": np.array(float(self._counts[name]))}
            taken[name] = {slot: found[slot] for slot in (*rule.slots, *rule.carried)}
        return taken

    def _optimizer(self, name: str) -> Optimizer:
        optimizer: Optimizer = self.rules[name].optimizer
        return optimizer

    def _new(self, name: str) -> dict[str, NDArray[Any]]:
        rule, tensor = self.rules[name], self._tensors[name]
        dtype = str(tensor.dtype).rpartition(".")[2]
        slots = {slot: np.full(tuple(tensor.shape), value, dtype) for slot, value in rule.slots.items()}
        numbers = {slot: np.array(float(value)) for slot, value in rule.carried.items() if slot != "step"}
        step = {} if isinstance(rule.optimizer, _UNCOUNTED) else {"step": np.array(0.0)}
        return {**slots, **numbers, **step}
