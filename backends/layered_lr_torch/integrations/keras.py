"""Keras 3 on torch: an optimizer for ``model.compile`` that trains with a spec."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import torch

import layered_lr as ll
from layered_lr.errors import CheckpointError, Unsupported
from layered_lr.tools import import_tool
from layered_lr_torch.integrations.tools import rates_by_name
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.slots import export_slots, import_slots
from layered_lr_torch.torch_types import Parameters

_TABLE = "layered_lr"  # in a Keras file: the count and what schedules have seen, as JSON
_SUM = "sum"  # beside slots: gradients that wait for their update


def make_optimizer(
    spec: ll.Spec,
    model: Any,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    *,
    gradient_accumulation_steps: int = 1,
) -> Any:
    """Make a Keras optimizer that updates a model with torch's optimizer of a spec.

    Keras' names are paths with ``/`` behind ``_torch_params``: a group for the layer ``stem`` is ``Group("*stem/*")``.
    The optimizer is part of ``model.save_weights`` and of ``BackupAndRestore``; load with one made likewise.

    Args:
        spec: Groups, optimizer, schedule, phases.
        model: A built ``keras.Model``.
        total_steps: Updates of the whole run, if a schedule needs it.
        steps_per_epoch: Updates of one epoch, if a schedule counts epochs.
        gradient_accumulation_steps: Batches of an update; their gradients are averaged.

    Returns:
        What ``model.compile(optimizer=...)`` takes. ``scheduler`` is the scheduler: a callback may call
        ``optimizer.scheduler.step(metrics=logs["val_loss"])``. ``rates`` has the rates of the last update.

    Raises:
        ToolUnavailable: Keras is missing or too old.
        Unsupported: Keras does not run on torch, or a phase holds a ``BatchNormalization`` or a dropout still, which
            Keras decides by ``layer.trainable``.
        SpecError: The spec does not fit the model.

    Example:
        >>> from layered_lr_torch.integrations import keras as ll_keras
        >>> def compile_model(model, spec):
        ...     model.compile(optimizer=ll_keras.make_optimizer(spec, model, total_steps=100), loss="mse")
    """
    keras = import_tool("keras", "keras", "3.5")
    if keras.backend.backend() != "torch":
        raise Unsupported(
            f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=torch in the environment before importing it."
        )
    optimizer, scheduler = ll.compile(spec, model, total_steps, steps_per_epoch)
    _check_still_layers(keras, model, scheduler)
    return _make_class(keras.optimizers.Optimizer)(optimizer, scheduler, model, gradient_accumulation_steps)


def _check_still_layers(keras: Any, model: Any, scheduler: PlanScheduler) -> None:
    """Refuse phases that hold a layer still whose state torch's ``eval()`` does not change."""
    tensors = dict(model.named_parameters())
    layers = model._flatten_layers()  # a Sequential does not register its layers as torch's modules
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    has_dropout = any(isinstance(layer, keras.layers.Dropout) for layer in layers)
    for part in scheduler.plan.phase_plans:
        phase = part.phase or ll.Phase()
        frozen = {id(tensors[name]) for name in part.frozen}
        holds = [{id(each.value) for each in norm.trainable_variables} for norm in norms]
        if (phase.batch_norm == "still" and any(ids and ids <= frozen for ids in holds)) or (
            phase.dropout == "off" and frozen and has_dropout
        ):
            raise Unsupported(
                "a phase holds a BatchNormalization or a Dropout of a Keras model still, but Keras decides that by "
                "layer.trainable. Give the phase batch_norm='moving' and dropout='on', and set layer.trainable=False "
                "yourself for layers that shall stand still."
            )


@functools.cache
def _make_class(base: Any) -> Any:
    class SpecOptimizer(base):  # type: ignore[misc]
        """Makes each update with torch's optimizer, and then calls the scheduler."""

        def __init__(self, optimizer: torch.optim.Optimizer, scheduler: PlanScheduler, model: Any, each: int) -> None:
            super().__init__(learning_rate=float(optimizer.param_groups[0]["lr"]), name="layered_lr")
            self.torch_optimizer, self.scheduler = optimizer, scheduler
            self.rates: dict[str, float] = {}
            self._parameters: Parameters = dict(model.named_parameters())
            self._each, self._batches = each, 0
            self._sums: dict[str, torch.Tensor] = {}

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            """Make an update from the gradients that ``backward()`` has left, or keep their sum for a later one."""
            self._batches += 1
            self._iterations.assign_add(1)
            if self._each > 1:
                self._keep_sums()
                if self._batches % self._each:
                    return
                for name, total in self._sums.items():
                    self._parameters[name].grad = total / self._each
                self._sums = {}
            self.rates = rates_by_name(self.torch_optimizer, prefix="")
            self.torch_optimizer.step()
            self.scheduler.step()
            self.learning_rate = float(self.torch_optimizer.param_groups[0]["lr"])

        def _keep_sums(self) -> None:
            for name, parameter in self._parameters.items():
                if parameter.grad is not None:
                    old = self._sums.get(name)
                    self._sums[name] = parameter.grad.clone() if old is None else old + parameter.grad

        def save_own_variables(self, store: Any) -> None:
            """Save what the next update depends on; parameters by their order, for Keras numbers its names anew."""
            table = {"scheduler": self.scheduler.state_dict(), "batches": self._batches}
            store[_TABLE] = np.frombuffer(json.dumps(table).encode(), np.uint8)
            slots = export_slots(self.torch_optimizer, self._parameters)
            for number, name in enumerate(self._parameters):
                for slot, array in slots.get(name, {}).items():
                    store[f"{number}|{slot}"] = array
                if name in self._sums:
                    store[f"{number}|{_SUM}"] = self._sums[name].cpu().numpy()

        def load_own_variables(self, store: Any) -> None:
            """Go on from what was saved."""
            kept = {key: np.asarray(store[key]) for key in store.keys()}  # noqa: SIM118 - a store is no mapping
            if _TABLE not in kept:
                raise CheckpointError(
                    "the file's optimizer is another one: save and load with the same make_optimizer."
                )
            table = json.loads(bytes(kept.pop(_TABLE)).decode())
            names = list(self._parameters)
            slots: dict[str, dict[str, Any]] = {}
            for key, array in kept.items():
                number, _, slot = key.partition("|")
                name = names[int(number)] if int(number) < len(names) else ""
                if not name or array.shape not in ((), tuple(self._parameters[name].shape)):
                    raise CheckpointError(f"the file's {slot} of parameter {number} does not fit the model.")
                slots.setdefault(name, {})[slot] = array
            self._sums = {name: torch.tensor(kept.pop(_SUM)) for name, kept in slots.items() if _SUM in kept}
            import_slots(self.torch_optimizer, self._parameters, slots)
            self.scheduler.load_state_dict(table["scheduler"])
            self._batches = table["batches"]

    return SpecOptimizer
