"""A training loop in plain torch, as somebody would write it by hand: nothing of this library is imported here.

It makes the cases of ``random_cases``: each parameter has an optimizer of torch of its own, or the formula of a paper,
and before each update its rate, its momentum and its decay are written there. What is frozen is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.support.hand_optimizers import hand_over, make_optimizer
from tests.support.hand_schedules import HandSchedule
from tests.support.random_cases import (
    CLASSES,
    FEATURES,
    HIDDEN,
    Case,
    batch,
    held_out_images,
    parts_of,
    start_weights,
    updates_of_epoch,
)


@dataclass
class Training:
    """What a training has measured; None is not measured.

    Args:
        losses: Of each update.
        weights: At the end.
        rates: Of each update, of each group by its name.
        norms: Of each group's gradient at each update, before clipping.
        accuracies: At the end of each epoch, and of the run.
        average: The moving average at the end; empty without one.
    """

    losses: list[float]
    weights: dict[str, NDArray[np.float64]]
    rates: dict[str, list[float]] | None
    norms: dict[str, list[float]] | None
    accuracies: list[float] | None
    average: dict[str, NDArray[np.float64]] | None


class Net(torch.nn.Module):
    """Two layers, and perhaps a batch normalisation between them.

    Args:
        norm: Whether there is one.
        rounds_norm: Whether its eps and its momentum (0.9 of the old value) are float32, as they always are in OneFlow.
    """

    def __init__(self, norm: bool, rounds_norm: bool = False) -> None:
        super().__init__()
        eps, momentum = (float(np.float32(1e-5)), 1 - float(np.float32(0.9))) if rounds_norm else (1e-5, 0.1)
        self.body = torch.nn.Linear(FEATURES, HIDDEN, bias=not norm)
        self.norm = torch.nn.BatchNorm1d(HIDDEN, eps, momentum) if norm else torch.nn.Identity()
        self.head = torch.nn.Linear(HIDDEN, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(torch.tanh(self.norm(self.body(images.flatten(1)))))
        return answer


def train_by_hand(
    case: Case, dtype: torch.dtype, rounds_norm: bool = False, disturbance: int | None = None
) -> Training:
    """Make a case's training.

    Args:
        case: Which one.
        dtype: Of the net.
        rounds_norm: As in ``Net``.
        disturbance: The seed of a noise on the gradients, as float32 makes it: its size is that of the rounding of the
            largest element, since each element is a sum of what may cancel. None is without.
    """
    return _Loop(case, Net(case["norm"], rounds_norm).to(dtype), dtype, disturbance).train()


def settings_of_phase(spec: Case, phase: Case | None) -> Case:
    """A spec as it is in one of its phases."""
    if phase is None:
        return spec
    optimizer = dict(phase.get("optimizer", spec["optimizer"]))
    groups = spec["groups"]
    if "weight_decay" in phase:
        optimizer["weight_decay"] = phase["weight_decay"]
        groups = [_with_decay(group, phase["weight_decay"]) for group in groups]
    now = {**spec, "optimizer": optimizer, "groups": groups}
    if "schedule" in phase:
        groups = [{key: group[key] for key in group if key != "schedule"} for group in groups]
        now |= {"schedule": phase["schedule"], "groups": groups}
    if "clip_grad_norm" in phase or "clip_grad_value" in phase:
        for name in ("clip_grad_norm", "clip_grad_value"):
            now.pop(name, None)
            if name in phase:
                now[name] = phase[name]
    if "clip_grad_norm" not in now:
        now["clip_per_group"] = False
    return now


def _with_decay(group: Case, decay: float) -> Case:
    """A group whose own optimizer, if it has one that decays, has another decay."""
    own = group.get("optimizer")
    if own is None or own["type"] == "Rprop":
        return group
    return {**group, "optimizer": {**own, "weight_decay": decay}}


class _Loop:
    def __init__(self, case: Case, net: Net, dtype: torch.dtype, disturbance: int | None) -> None:
        self.noise = None if disturbance is None else np.random.default_rng(disturbance)
        self.case, self.spec, self.net, self.dtype = case, case["spec"], net, dtype
        start = {name: torch.tensor(array) for name, array in start_weights(case).items()}
        self.net.load_state_dict(start, strict=False)
        self.parameters = dict(self.net.named_parameters())
        labels = [group["match"] for group in self.spec["groups"]]
        self.groups: dict[str, list[str]] = {label: [] for label in [*labels, "rest"]}
        for name in self.parameters:
            self.groups[next((label for label in labels if _matches(label, name)), "rest")].append(name)
        if not self.groups["rest"]:
            del self.groups["rest"]
        self.updates_of_epoch = updates_of_epoch(case)
        self.ends = [_update(phase.get("until"), self.updates_of_epoch) for phase in self.spec.get("phases", [])]
        self.place = -1
        self.optimizers: dict[str, Any] = {}
        self.trained: set[str] = set()
        self.plateaus: dict[str, tuple[Any, HandSchedule]] = {}
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.rates: dict[str, list[float]] = {label: [] for label in self.groups}
        self.norms: dict[str, list[float]] = {label: [] for label in self.groups}
        self.average: dict[str, torch.Tensor] = {}

    def train(self) -> Training:
        steps = self.case["max_steps"]
        for step in range(steps):
            place = sum(end is not None and end <= step for end in self.ends)
            if place != self.place:
                self._enter(place, step)
            self._update(step)
            if (step + 1) % self.updates_of_epoch == 0 or step + 1 == steps:
                self._end_epoch(step)
        weights, average = _arrays(self.net.state_dict()), _arrays(self.average)
        return Training(self.losses, weights, self.rates, self.norms, self.accuracies, average)

    def _enter(self, place: int, step: int) -> None:
        phases = self.spec.get("phases", [])
        phase = phases[place] if place < len(phases) else None
        self.place, self.now = place, settings_of_phase(self.spec, phase)
        phase = phase or {}
        self.began, self.warmup = step, phase.get("momentum_warmup", 0)
        frozen, trained = phase.get("frozen"), phase.get("trained")
        self.frozen = {
            name
            for name in self.parameters
            if (frozen is not None and any(self._is_in(part, name) for part in frozen))
            or (trained is not None and not any(self._is_in(part, name) for part in trained))
        }
        since, end = 0, self.case["max_steps"]
        if phase.get("counts_from") == "phase":
            since, end = step, self.ends[place] or end
            end = end - since
        self.since = since
        self._begin_optimizers(phase.get("carry") == "momentum")
        self.settings = {label: self._settings(label) for label in self.groups}
        self.schedules = {label: self._schedule(label, end) for label in self.groups}
        if isinstance(self.net.norm, torch.nn.BatchNorm1d):
            self.net.norm.train("norm.weight" not in self.frozen)

    def _is_in(self, part: str, name: str) -> bool:
        """Whether a parameter is in a group of that name, or where there is none, in what a pattern matches."""
        return name in self.groups[part] if part in self.groups else _matches(part, name)

    def _settings(self, label: str) -> Case:
        """The hyperparameters of a group."""
        own = self._group(label)
        hyper = {key: own[key] for key in own if key not in ("match", "lr_scale", "schedule", "optional", "optimizer")}
        return {**own.get("optimizer", self.now["optimizer"]), **hyper}

    def _group(self, label: str) -> Case:
        return next((group for group in self.now["groups"] if group["match"] == label), {})

    def _schedule(self, label: str, length: int) -> HandSchedule:
        table = self._group(label).get("schedule", self.now.get("schedule"))
        lr = self.settings[label]["lr"]
        made = HandSchedule(table, lr, length, self.updates_of_epoch)
        if made.plateau is None:
            return made
        key = (table, lr, self.since)  # one that stays the same goes on
        if label not in self.plateaus or self.plateaus[label][0] != key:
            self.plateaus[label] = (key, made)
        return self.plateaus[label][1]

    def _begin_optimizers(self, carries: bool) -> None:
        """Begin the optimizers of groups whose kind is new, and those of parameters that it has never trained.

        The latter begin as this phase says (Adagrad's first sum).
        """
        before: dict[str, Case] = getattr(self, "settings", {})
        for label, names in self.groups.items():
            settings = self._settings(label)
            is_new = not before or before[label]["type"] != settings["type"]
            for name in names:
                old = self.optimizers.get(name)
                if is_new or name not in self.trained:
                    self.optimizers[name] = make_optimizer(self.parameters[name], settings)
                    self.trained.discard(name)
                if is_new and carries and before:
                    hand_over(old, before[label], self.optimizers[name], settings)

    def _update(self, step: int) -> None:
        parts = parts_of(self.case, step)
        images, labels = batch(self.case, step, parts)
        for name, parameter in self.parameters.items():
            parameter.grad = None
            parameter.requires_grad_(name not in self.frozen)
        loss = 0.0
        for x, y in zip(np.split(images, parts), np.split(labels, parts), strict=True):
            answer = self.net(torch.tensor(x, dtype=self.dtype))
            part = torch.nn.functional.cross_entropy(answer, torch.tensor(y)) / parts
            if part.requires_grad:
                part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        self.losses.append(loss)
        self._disturb()
        self._clip()
        for label, names in self.groups.items():
            trained = [name for name in names if name not in self.frozen]
            scale = self._group(label).get("lr_scale", 1.0)
            stands_still = bool(names) and not trained
            rate = 0.0 if stands_still else scale * self.schedules[label].rate(step - self.since)
            self.rates[label].append(rate)
            for name in trained:
                self._step(name, label, rate, step)
            self.trained.update(trained)
        self._average()
        for schedule in self.schedules.values():
            schedule.observe({"loss": loss}, "step")

    def _disturb(self) -> None:
        if self.noise is None:
            return
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                drawn = torch.tensor(self.noise.standard_normal(parameter.grad.shape))
                parameter.grad += 2.0**-23 * parameter.grad.abs().max() * drawn

    def _clip(self) -> None:
        gradients = {label: [self.parameters[name].grad for name in names] for label, names in self.groups.items()}
        known = {label: [g for g in some if g is not None] for label, some in gradients.items()}
        norms = {label: math.sqrt(sum(float((g.double() ** 2).sum()) for g in some)) for label, some in known.items()}
        for label, norm in norms.items():
            self.norms[label].append(norm)
        if limit := self.now.get("clip_grad_value"):
            for some in known.values():
                for gradient in some:
                    gradient.clamp_(-limit, limit)
        if limit := self.now.get("clip_grad_norm"):
            whole = math.hypot(*norms.values())
            for label, some in known.items():
                norm = norms[label] if self.now.get("clip_per_group") else whole
                for gradient in some:
                    gradient.mul_(min(1.0, limit / (norm + 1e-6)))

    def _step(self, name: str, label: str, rate: float, step: int) -> None:
        settings = dict(self.settings[label])
        momentum = self.schedules[label].momentum(step - self.since)
        if "betas" in settings and momentum is not None:
            settings["betas"] = (momentum, settings["betas"][1])
        elif "betas" not in settings:
            full = settings.get("momentum", 0.0) if momentum is None else momentum
            settings["momentum"] = full * min(1.0, (step - self.began + 1) / (self.warmup + 1))
        if self._never_decays(name):
            settings["weight_decay"] = 0.0
        written = self.optimizers[name].param_groups[0]
        written.update({key: value for key, value in settings.items() if key in written}, lr=rate)
        state = self.optimizers[name].state.get(self.parameters[name], {})
        slots = {"momentum": "momentum_buffer", "centered": "grad_avg", "amsgrad": "max_exp_avg_sq"}
        for setting, slot in slots.items() if state else ():
            if not written.get(setting):
                state.pop(slot, None)  # what a phase does not use is forgotten: docs/phases.md
            elif not isinstance(self.optimizers[name], torch.optim.SGD):
                # torch makes them at the first update alone, and ends with a KeyError where a later phase needs one
                state.setdefault(slot, torch.zeros_like(self.parameters[name]))
        self.optimizers[name].step()

    def _never_decays(self, name: str) -> bool:
        which = self.spec.get("no_weight_decay", [])
        if which == "1d":
            return self.parameters[name].ndim <= 1
        return any(_matches(pattern, name) for pattern in ([which] if isinstance(which, str) else which))

    def _average(self) -> None:
        decay = self.case["ema_decay"]
        if decay is None:
            return
        state = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}
        if not self.average:
            self.average = state
        for name, tensor in state.items():
            if tensor.is_floating_point():
                self.average[name] = decay * self.average[name] + (1 - decay) * tensor
            else:
                self.average[name] = tensor

    def _end_epoch(self, step: int) -> None:
        images, labels = held_out_images(self.case)
        was_training = self.net.norm.training
        self.net.norm.eval()
        with torch.no_grad():
            answer = self.net(torch.tensor(images, dtype=self.dtype)).numpy()
        self.net.norm.train(was_training)
        right = float(np.mean(answer.argmax(axis=1) == labels))
        self.accuracies.append(right)
        first = step // self.updates_of_epoch * self.updates_of_epoch
        metrics = {"loss": float(np.mean(self.losses[first:])), "accuracy": right}
        for schedule in self.schedules.values():
            schedule.observe(metrics, "epoch")


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) if "*" in pattern else name.split(".")[0] == pattern or name == pattern


def _update(until: str | None, updates_of_epoch: int) -> int | None:
    if until is None:
        return None
    number, unit = until.split()
    return int(number) * (updates_of_epoch if unit.startswith("epoch") else 1)


def _arrays(state: dict[str, torch.Tensor]) -> dict[str, NDArray[np.float64]]:
    return {name: tensor.detach().double().numpy().copy() for name, tensor in state.items()}
