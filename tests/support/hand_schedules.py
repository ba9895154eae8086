"""Rates by torch's own schedulers, or by formulas written out: nothing of this library is imported here.

A schedule comes as a table, as a recipe has it. It is asked for the rate of a clock, which counts updates or epochs.
"""

from __future__ import annotations

import math
from typing import Any

import torch

Table = dict[str, Any]


class HandSchedule:
    """The rate of one group before ``lr_scale``.

    Args:
        table: The schedule; None is a constant rate.
        lr: The group's own rate.
        length: How long the run is, or the phase, in what the schedule counts.
        updates_of_epoch: How many updates an epoch has.
    """

    def __init__(self, table: Table | None, lr: float, length: float, updates_of_epoch: int) -> None:
        self.table: Table = {"type": "Constant"} if table is None else dict(table)
        self.unit = self.table.pop("unit", "epoch" if self.table["type"] == "ReduceLROnPlateau" else "step")
        self.every_step = self.table.pop("every_step", False)
        self.lr, self.updates_of_epoch = lr, updates_of_epoch
        self.length = length if self.unit == "step" else length / updates_of_epoch
        self.steps = int(length) + 2
        self.plateau: Any = None
        self.plateau_unit = self.unit
        self.metric = "loss"
        self._warmup: Table | None = None
        table = self.table
        if table["type"] == "Warmup" and table["then"]["type"] == "ReduceLROnPlateau":
            self._warmup, table = table, dict(table["then"])
            self.plateau_unit = table.pop("unit", "epoch")
        if table["type"] == "ReduceLROnPlateau":
            self._start_plateau(table)
        elif not self.every_step:
            self._rates, self._momenta = rates_of(self.table, lr, self.length, self.steps)

    def _start_plateau(self, table: Table) -> None:
        settings = {name: value for name, value in table.items() if name not in ("type", "metric")}
        self.metric = table.get("metric", "loss")
        self._optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=self.lr)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self._optimizer, **settings)

    def observe(self, metrics: dict[str, float], unit: str) -> None:
        """What has been measured at the end of an update or an epoch."""
        if self.plateau is not None and unit == self.plateau_unit:
            self.plateau.step(metrics[self.metric])

    def rate(self, step: int) -> float:
        """The rate of an update, counted from where the schedule counts from."""
        if self.plateau is not None:
            now = float(self._optimizer.param_groups[0]["lr"])
            return now if self._warmup is None else now * warmup_factor(self._warmup, step)
        if self.every_step:
            return self._fractional_rate(step / self.updates_of_epoch)
        return self._rates[self._clock(step)]

    def momentum(self, step: int) -> float | None:
        """The momentum of an update; None where the schedule does not move it."""
        if self.plateau is not None or self.every_step or self._momenta is None:
            return None
        return self._momenta[self._clock(step)]

    def _clock(self, step: int) -> int:
        return step if self.unit == "step" else step // self.updates_of_epoch

    def _fractional_rate(self, epoch: float) -> float:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=self.lr)
        scheduler: Any = _torch_scheduler(self.table, optimizer)
        optimizer.step()
        scheduler.step(epoch)
        return float(optimizer.param_groups[0]["lr"])


def rates_of(table: Table, lr: float, length: float, steps: int) -> tuple[list[float], list[float] | None]:
    """The rates of so many steps, and the momenta where they move."""
    kind = table["type"]
    if kind == "Constant":
        return [lr] * steps, None
    if kind == "Table":
        values = table["values"] + [table["values"][-1]] * steps
        return [value * lr if table.get("factor") else value for value in values[:steps]], None
    if kind == "CosineDecay":
        return [_cosine_decay(table, lr, length, step) for step in range(steps)], None
    if kind == "InverseSqrt":
        return [_inverse_sqrt(table, lr, step) for step in range(steps)], None
    if kind == "WSD":
        return [_warm_stable_decay(table, lr, length, step) for step in range(steps)], None
    if kind == "Warmup":
        rise = table["warmup_steps"]
        then, momenta = rates_of(table["then"], lr, max(1, length - rise), steps)
        return [warmup_factor(table, step) * then[max(0, step - rise)] for step in range(steps)], momenta
    return _rates_of_torch(table, lr, length, steps)


def _rates_of_torch(table: Table, lr: float, length: float, steps: int) -> tuple[list[float], list[float] | None]:
    """Of a torch scheduler that is stepped on an optimizer of its own."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.5)
    settings = dict(table)
    if table["type"] == "OneCycleLR":
        settings.setdefault("total_steps", int(length))
    scheduler = _torch_scheduler(settings, optimizer)
    rates, momenta = [], []
    optimizer.step()
    for step in range(steps):
        if step and not (table["type"] == "OneCycleLR" and step >= settings["total_steps"]):  # torch has no rate there
            scheduler.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
        momenta.append(float(optimizer.param_groups[0]["momentum"]))
    moves = table["type"] in ("OneCycleLR", "CyclicLR") and table.get("cycle_momentum", True)
    return rates, momenta if moves else None


def _torch_scheduler(table: Table, optimizer: torch.optim.Optimizer) -> Any:
    settings = {name: value for name, value in table.items() if name != "type"}
    kind = getattr(torch.optim.lr_scheduler, table["type"])
    if table["type"] == "SequentialLR":
        children = [_torch_scheduler(child, optimizer) for child in settings["schedulers"]]
        return kind(optimizer, children, settings["milestones"])
    if table["type"] == "ChainedScheduler":
        return kind([_torch_scheduler(child, optimizer) for child in settings["schedulers"]])
    return kind(optimizer, **settings)


def warmup_factor(table: Table, step: int) -> float:
    """Of the first rate of what comes behind a warm-up."""
    rise, low = table["warmup_steps"], table.get("start_factor", 0.0)
    if step >= rise:
        return 1.0
    shapes = {"linear": low + (1 - low) * step / rise, "constant": low}
    mode = table.get("mode", "linear")
    return float(low ** (1 - step / rise)) if mode == "exponential" else float(shapes[mode])


def _cosine_decay(table: Table, lr: float, length: float, step: int) -> float:
    """As transformers' ``get_cosine_schedule_with_warmup``, with timm's floor and first rate."""
    total, rise = table.get("total_steps", length), table.get("warmup_steps", 0)
    low = lr * table["min_lr_rate"] if "min_lr_rate" in table else table.get("min_lr", 0.0)
    if step < rise:
        first = table.get("warmup_lr", 0.0)
        return float(first + (lr - first) * step / rise)
    begin = rise if table.get("warmup_prefix", True) else 0
    part = min(1.0, (step - begin) / (total - begin)) if step < total else 1.0
    return float(low + (lr - low) * 0.5 * (1 + math.cos(2 * math.pi * table.get("num_cycles", 0.5) * part)))


def _inverse_sqrt(table: Table, lr: float, step: int) -> float:
    """As transformers' ``get_inverse_sqrt_schedule``."""
    rise = table["warmup_steps"]
    if step < rise:
        return lr * step / rise
    scale = table.get("timescale", rise)
    return lr / math.sqrt((step + scale - rise) / scale)


def _warm_stable_decay(table: Table, lr: float, length: float, step: int) -> float:
    """As transformers' ``get_wsd_schedule``, whose rise is a straight line."""
    rise, fall, low = table["warmup_steps"], table["decay_steps"], table.get("min_lr_ratio", 0.0)
    begin = rise + table["stable_steps"] if "stable_steps" in table else length - fall
    if step < rise:
        height = step / rise
    elif step < begin:
        height = 1.0
    elif step < begin + fall:
        part = (step - begin) / fall
        height = 1 - math.sqrt(part) if table.get("decay_type") == "1-sqrt" else 0.5 * (1 + math.cos(math.pi * part))
    else:
        height = 0.0
    return lr * (low + (1 - low) * height)
