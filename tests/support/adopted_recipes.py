"""Optimizers and schedulers of torch as somebody writes them by hand, to be adopted, and their training."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import layered_lr as ll
from tests.support.optimizer_cases import gradients, linear, start, tensors, weights_of

STEPS = 6
SCHEDULERS: dict[str, Callable[[Any, bool], Any]] = {}


def _torch() -> Any:
    import torch

    return torch


def scheduler_case(make: Callable[[Any, Any, bool], Any]) -> None:
    """Put a maker of ``(torch's schedulers, optimizer, has momentum)`` into the table."""
    SCHEDULERS[make.__name__] = lambda optimizer, has_momentum: make(
        _torch().optim.lr_scheduler, optimizer, has_momentum
    )


def halved(step: int) -> float:
    """A function that has an import path."""
    return 0.5**step


@scheduler_case
def constant(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.ConstantLR(optimizer, factor=0.25, total_iters=3)


@scheduler_case
def linear_rise(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.LinearLR(optimizer, start_factor=0.2, end_factor=0.9, total_iters=4)


@scheduler_case
def exponential(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.ExponentialLR(optimizer, gamma=0.8)


@scheduler_case
def step(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.StepLR(optimizer, 2, gamma=0.3)


@scheduler_case
def multi_step(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.MultiStepLR(optimizer, [2, 2, 5], gamma=0.3)


@scheduler_case
def polynomial(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.PolynomialLR(optimizer, total_iters=6, power=1.7)


@scheduler_case
def cosine(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.CosineAnnealingLR(optimizer, T_max=12, eta_min=1e-4)


@scheduler_case
def restarts(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2, eta_min=1e-4)


@scheduler_case
def by_function(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.LambdaLR(optimizer, halved)


@scheduler_case
def by_three_lambdas(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.LambdaLR(optimizer, [lambda t: 0.9**t, lambda t: 1.0, lambda t: 1.0 / (1 + t)])


@scheduler_case
def multiplicative(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.MultiplicativeLR(optimizer, lambda t: 0.9 + 0.01 * t)


@scheduler_case
def one_cycle(tl: Any, optimizer: Any, has_momentum: bool) -> Any:
    return tl.OneCycleLR(optimizer, max_lr=[0.1, 0.02, 0.05], total_steps=12, cycle_momentum=has_momentum)


@scheduler_case
def one_cycle_in_three_parts(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.OneCycleLR(
        optimizer, 0.1, 12, three_phase=True, anneal_strategy="linear", cycle_momentum=False, pct_start=0.4
    )


@scheduler_case
def cyclic(tl: Any, optimizer: Any, has_momentum: bool) -> Any:
    return tl.CyclicLR(
        optimizer, [0.01, 0.002, 0.005], [0.1, 0.02, 0.03], 2, 3, mode="triangular2", cycle_momentum=has_momentum
    )


@scheduler_case
def sequence(tl: Any, optimizer: Any, _: bool) -> Any:
    parts = [tl.LinearLR(optimizer, 0.1, total_iters=3), tl.CosineAnnealingLR(optimizer, 9)]
    return tl.SequentialLR(optimizer, parts, milestones=[3])


@scheduler_case
def chain(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.ChainedScheduler([tl.ConstantLR(optimizer, 0.5, 4), tl.ExponentialLR(optimizer, 0.9)])


@scheduler_case
def plateau(tl: Any, optimizer: Any, _: bool) -> Any:
    return tl.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, min_lr=[1e-3, 1e-4, 1e-5])


def by_hand(case: ll.Optimizer) -> tuple[Any, Any]:
    """A model and an optimizer with three groups: other rates, and one without decay."""
    torch = _torch()
    model = linear(torch, "float32", start(case=case))
    kind = getattr(torch.optim, type(case).__name__)
    known = inspect.signature(kind).parameters.keys() - {"foreach", "fused"}
    options = {name: value for name, value in asdict(case).items() if name in known}
    free = {"weight_decay": 0.0} if "weight_decay" in known else {}  # Rprop has none
    named = dict(model.named_parameters())
    groups = [
        {"params": [named["a"]], "lr": case.lr},
        {"params": [named["b"], named["c"]], "lr": case.lr * 0.3, **free},
        {"params": [named["d"], named["e"]], "lr": case.lr * 0.7},
    ]
    return model, kind(groups, **options)


def train(
    case: ll.Optimizer, model: Any, optimizer: Any, scheduler: Any, first: int = 0, stop: int = STEPS
) -> dict[str, Any]:
    """The weights after some updates with given gradients; a plateau sees a metric that never gets better."""
    import torch

    has_metric = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) or getattr(
        scheduler, "is_reactive", False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for gradient in gradients(stop, case)[first:]:
            optimizer.zero_grad()
            model(*tensors(torch, "float32", gradient)).backward()
            optimizer.step()
            if scheduler is not None:
                if getattr(scheduler, "is_reactive", False):
                    scheduler.step()
                scheduler.step(metrics=1.0) if has_metric else scheduler.step()
    return {name: values.tolist() for name, values in weights_of(model).items()}
