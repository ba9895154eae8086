"""Are groups free? One group per parameter, each with its own rate and schedule, against one group for all.

    python -m benchmarks.groups [--rounds 7] [--quick]

Through ``ll.compile`` in a loop of one's own, on MobileNetV2's 158 parameters. *Optimizer* is ``optimizer.step()`` and
``scheduler.step()`` on gradients that stay as they are; *step* is a whole training step, batch 64, 32x32. Beside it
torch's own optimizer with 158 param groups, fused and foreach, as a user would write it without merging anything, its
rates set by hand each step.

Also of two kinds: what has two or more dimensions by SGD or Muon, the rest by AdamW. There the two kinds stand beside a
group per parameter.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.report import Ratio, Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated
from benchmarks.frame.worker import Worker

STEPS = 10**6
KINDS = ("SGD", "Adam", "AdamW")
MIXES = ("SGD and AdamW", "Muon and AdamW")
ONE, TWO, MANY = "1 group", "2 groups", "a group per parameter"


class Loops:
    """Every loop, in one process: all share model, input and gradients' shapes.

    Args:
        tiny: A tiny model instead of MobileNetV2.
    """

    def __init__(self, tiny: bool) -> None:
        import torch

        self.tiny, self.torch = tiny, torch
        self.images = torch.randn(2 if tiny else 64, 3, 32, 32)
        if not tiny:
            self.images = self.images.to(memory_format=torch.channels_last)
        self.labels = torch.arange(len(self.images)) % 10
        self.steps: dict[str, Callable[[], None]] = {}
        self.models: dict[str, Any] = {}

    def prepare(self, key: str, kind: str, groups: str) -> int:
        """Make a model with fixed gradients and its optimizer; how many groups it has."""
        torch = self.torch
        torch.manual_seed(0)
        model = self._model()
        dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * 1e-3
        if groups.startswith("torch"):
            step = self._naive(model, kind, groups)
        else:
            spec = mixed_spec(kind, dimensions, groups == MANY) if kind in MIXES else spec_of(kind, groups, dimensions)
            optimizer, scheduler = ll.compile(spec, model, STEPS)

            def step() -> None:
                optimizer.step()
                scheduler.step()

        self.steps[key], self.models[key] = step, model
        return {ONE: 1, TWO: 2}.get(groups, len(dimensions))

    def optimizer_seconds(self, key: str, count: int) -> float:
        """Of an update on gradients that stay."""
        return _median_seconds(self.steps[key], count)

    def step_seconds(self, key: str, count: int) -> float:
        """Of a whole training step."""
        update, model, cross_entropy = self.steps[key], self.models[key], self.torch.nn.functional.cross_entropy

        def step() -> None:
            model.zero_grad(set_to_none=True)
            cross_entropy(model(self.images), self.labels).backward()
            update()

        return _median_seconds(step, count)

    def weights(self, key: str) -> dict[str, list[float]]:
        """The first numbers of each parameter."""
        return {name: value.detach().flatten()[:3].tolist() for name, value in self.models[key].named_parameters()}

    def _model(self) -> Any:
        if self.tiny:
            from benchmarks.opponents.models import tiny_torch

            return tiny_torch()
        from torchvision.models import mobilenet_v2

        return mobilenet_v2(num_classes=10).to(memory_format=self.torch.channels_last)

    def _naive(self, model: Any, kind: str, groups: str) -> Callable[[], None]:
        how: dict[str, Any] = {"fused": True} if groups.endswith("fused") else {"foreach": True}
        if kind == "SGD":
            how["momentum"] = 0.9
        parameters = [{"params": [p], "lr": _lr(number)} for number, p in enumerate(model.parameters())]
        optimizer = getattr(self.torch.optim, kind)(parameters, **how)
        done = 0

        def step() -> None:
            nonlocal done
            optimizer.step()
            done += 1
            for number, group in enumerate(optimizer.param_groups):
                group["lr"] = _lr(number) * (1 + math.cos(math.pi * done / (STEPS - number))) / 2

        return step


def _median_seconds(step: Callable[[], None], count: int) -> float:
    """Of single steps: one that the machine interrupts does not count."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _lr(number: int) -> float:
    return 1e-5 * (1 + number / 1000)


def spec_of(kind: str, groups: str, names: Iterable[str]) -> ll.Spec:
    """One group for all, or one for each name with a rate and a schedule of its own."""
    return ll.Spec(_optimizer(kind), _group_each(names) if groups == MANY else (), ll.CosineAnnealingLR(STEPS))


def mixed_spec(kinds: str, dimensions: Mapping[str, int], is_many: bool) -> ll.Spec:
    """Two kinds of optimizers: a group of each, or a group for each parameter.

    Args:
        kinds: One of ``MIXES``; the first one is for what has two or more dimensions.
        dimensions: Of each parameter, in model order.
        is_many: Whether each parameter has a group with a rate and a schedule of its own.
    """
    first, second = map(_optimizer, kinds.split(" and "))
    large = [name for name, count in dimensions.items() if count > 1]
    groups = [ll.Group(large, optimizer=first, name="large")]
    if is_many:
        taken = set(large)
        groups = [
            replace(group, optimizer=first if name in taken else None)
            for group, name in zip(_group_each(dimensions), dimensions, strict=True)
        ]
    return ll.Spec(second, groups, ll.CosineAnnealingLR(STEPS))


def _optimizer(kind: str) -> Any:
    arguments: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "Muon": {"flatten": True}}
    return getattr(ll, kind)(1e-5, **arguments.get(kind, {}))


def _group_each(names: Iterable[str]) -> list[ll.Group]:
    return [
        ll.Group(f"re:{name.replace('.', '[.]')}", lr=_lr(number), schedule=ll.CosineAnnealingLR(STEPS - number))
        for number, name in enumerate(names)
    ]


class Groups:
    """A group per parameter against one."""

    name = "groups"
    question = "What does a group per parameter, each with a schedule of its own, cost beside one group for all?"
    rounds = 7

    def run(self, rounds: int, quick: bool) -> Report:
        """All loops in one process, in turn."""
        with Worker("benchmarks.groups:Loops", {"tiny": quick}) as worker:
            series = _optimizers(worker, rounds, 2 if quick else 100)
            series |= _steps(worker, rounds, 1 if quick else 8)
        ratios: list[Ratio] = []
        for kind in KINDS:
            one = series[f"{kind}, {ONE}"]
            ratios.append(ratio(series[f"{kind}, {MANY}"], one, Target(1.2)))
            naive = [series[f"{kind}, torch, 158 groups, {how}"] for how in ("fused", "foreach")]
            ratios += [ratio(of, one) for of in naive]
        ratios += [
            ratio(series[f"{kind}, {MANY}, step"], series[f"{kind}, {ONE}, step"], Target(1.02)) for kind in KINDS
        ]
        for mix in MIXES:
            ratios.append(ratio(series[f"{mix}, {MANY}"], series[f"{mix}, {TWO}"]))
            ratios.append(ratio(series[f"{mix}, {MANY}, step"], series[f"{mix}, {TWO}, step"], Target(1.05)))
        return Report(
            self.name,
            self.question,
            series=tuple(series.values()),
            ratios=tuple(ratios),
            notes=("MobileNetV2, 158 parameters, channels_last; a cosine of its own length for each group.",),
        )


def _optimizers(worker: Worker, rounds: int, count: int) -> dict[str, Series]:
    """The optimizer's part, kind by kind."""
    found: dict[str, Series] = {}
    for kind in (*KINDS, *MIXES):
        names = {f"{kind}, {groups}": groups for groups in _few_and_many(kind)}
        if kind in KINDS:
            names |= {f"{kind}, torch, 158 groups, {how}": f"torch {how}" for how in ("fused", "foreach")}
        for key, groups in names.items():
            worker.call("prepare", key=key, kind=kind, groups=groups)
        turns = {
            key: lambda key=key: float(worker.call("optimizer_seconds", key=key, count=count).value) for key in names
        }
        taken = alternated(turns, rounds, say=say)
        found |= {key: Series(key, "optimizer's part", "s", tuple(of)) for key, of in taken.values.items()}
    return found


def _steps(worker: Worker, rounds: int, count: int) -> dict[str, Series]:
    """The whole step."""
    keys = [f"{kind}, {groups}" for kind in (*KINDS, *MIXES) for groups in _few_and_many(kind)]
    turns = {
        f"{key}, step": lambda key=key: float(worker.call("step_seconds", key=key, count=count).value) for key in keys
    }
    taken = alternated(turns, rounds, say=say)
    return {key: Series(key, "whole step", "s", tuple(of)) for key, of in taken.values.items()}


def _few_and_many(kind: str) -> tuple[str, str]:
    return TWO if kind in MIXES else ONE, MANY


BENCHMARK = Groups()

if __name__ == "__main__":
    main(BENCHMARK)
