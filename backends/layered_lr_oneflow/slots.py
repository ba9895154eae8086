"""Converts the slots of OneFlow's optimizers to torch's names and meaning, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from layered_lr.arrays import Array, Arrays, Slots
from layered_lr.models.nn_modules import parameters_of
from layered_lr.optimizers import LARS, SGD, Lion, Muon, Optimizer
from layered_lr.plans.plan import Plan
from layered_lr_oneflow.oneflow_types import Module
from layered_lr_oneflow.rules import AnyRule, SlotStart, make_rule

_UNCOUNTED = (SGD, LARS, Lion, Muon)  # torch counts no updates for these; SGD's rule does if it dampens


class SlotConverter:
    """Converts slots to torch's meaning and back, and counts the updates of each parameter for that.

    In OneFlow all slots exist before the first update, and some optimizers have one count for all parameters, or none.
    In torch a parameter without updates has no slots, and each has its own count. So the counts are kept here.

    Args:
        plan: Made for this model.
        model: Whose parameters have the slots.
        frozen_too: Whether to include parameters that are frozen, by the plan or by ``requires_grad=False``.

    Attributes:
        rules: The update rule of each parameter, by name.
    """

    def __init__(self, plan: Plan, model: Module, frozen_too: bool = False) -> None:
        self._tensors = {parameter.name: tensor for parameter, tensor in parameters_of(model)}
        self.rules: dict[str, AnyRule] = {}
        for group in plan.groups:
            for part in group.parts:
                rule = make_rule(part.optimizer)
                self.rules |= {name: rule for name in part.parameters if frozen_too or self._trains(plan, name)}
        self._counts = dict.fromkeys(self.rules, 0)

    def _trains(self, plan: Plan, name: str) -> bool:
        return name not in plan.frozen and bool(self._tensors[name].requires_grad)

    def count_update(self, names: Iterable[str]) -> None:
        """Note an update of these parameters."""
        for name in names:
            self._counts[name] += 1

    def find_with_gradients(self) -> list[str]:
        """Find the names of the parameters that have a gradient now."""
        return [name for name in self.rules if self._tensors[name].grad is not None]

    def new_slots(self) -> dict[str, dict[str, Array]]:
        """Make every parameter's slots as they are before the first update, with the counts."""
        return {name: self._make_new_slots(name) for name in self.rules}

    def export_slots(self, held: Slots) -> dict[str, dict[str, Array]]:
        """Convert slots to torch's meaning; a parameter without updates gets none.

        Args:
            held: What OneFlow holds for each parameter, by torch's names of the slots; may include the count.
        """
        slots = {
            name: self._name_slots(name, held.get(name, {}), count) for name, count in self._counts.items() if count
        }
        return {name: own for name, own in slots.items() if own}

    def export_changed_slots(self, held: Slots, step: int) -> dict[str, dict[str, Array]]:
        """Convert slots to torch's meaning if nobody called ``count_update``, as in a loop of the user's own.

        A parameter whose slots are as before the first update gets none: it would begin with the same ones.

        Args:
            held: As for ``export_slots``.
            step: The count of every parameter, if the optimizer keeps none; then no update depends on it.
        """
        slots = {name: self._name_slots(name, held[name], step) for name in self.rules if self._has_changed(name, held)}
        return {name: own for name, own in slots.items() if own}

    def _has_changed(self, name: str, held: Slots) -> bool:
        rule = self.rules[name]
        begins = {slot: start.value for slot, start in self._list_slots(name).items()} | dict(rule.counters)
        return any(
            slot not in begins or bool((array != np.asarray(begins[slot], array.dtype)).any())
            for slot, array in held.get(name, {}).items()
        )

    def _name_slots(self, name: str, held: Arrays, count: int) -> dict[str, Array]:
        given = dict(held)
        counted = given.pop("step", np.array(float(count)))
        return given if isinstance(self._get_optimizer(name), _UNCOUNTED) else {**given, "step": counted}

    def import_slots(self, slots: Slots) -> dict[str, dict[str, Array]]:
        """Convert slots in torch's meaning to what OneFlow holds, for every parameter; the counts go on from them."""
        taken = {}
        for name, rule in self.rules.items():
            given = slots.get(name, {})
            self._counts[name] = int(given["step"]) if "step" in given else int(bool(given))
            found = {**self._make_new_slots(name), **given, "step": np.array(float(self._counts[name]))}
            taken[name] = {slot: found[slot] for slot in (*self._list_slots(name), *rule.counters)}
        return taken

    def _list_slots(self, name: str) -> Mapping[str, SlotStart]:
        return self.rules[name].list_slots(tuple(self._tensors[name].shape))

    def _get_optimizer(self, name: str) -> Optimizer:
        optimizer: Optimizer = self.rules[name].optimizer
        return optimizer

    def _make_new_slots(self, name: str) -> dict[str, Array]:
        rule, tensor = self.rules[name], self._tensors[name]
        dtype = str(tensor.dtype).rpartition(".")[2]
        slots = {slot: np.full(start.shape, start.value, dtype) for slot, start in self._list_slots(name).items()}
        numbers = {slot: np.array(float(value)) for slot, value in rule.counters.items() if slot != "step"}
        step = {} if isinstance(rule.optimizer, _UNCOUNTED) else {"step": np.array(0.0)}
        return {**slots, **numbers, **step}
