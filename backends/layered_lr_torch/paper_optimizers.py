"""Optimizers that torch lacks, made of torch's own parts: LAMB, LARS, Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch

from layered_lr_torch.paper_optimizer import Moving, MovingOne, PaperOptimizer
from layered_lr_torch.torch_types import ParameterState, ParamGroup, Tensor


@final
class LAMB(PaperOptimizer):
    """LAMB (arXiv:1904.00962): Adam's update, scaled by the ratio of each parameter's norm to its update's norm.

    ``layered_lr.LAMB`` has the formula and describes the arguments.

    State of a parameter: ``step``, ``exp_avg``, ``exp_avg_sq``, as in ``torch.optim.Adam``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "foreach": foreach, "maximize": maximize})

    def _update_all(self, group: ParamGroup, moving: Moving) -> None:
        parameters, rates, gradients, states = moving
        for parameter, state in zip(parameters, states, strict=True):
            _begin_means(parameter, state)
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        means, squares = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        counts = [step.item() for step in steps]
        sizes = torch._foreach_sqrt(squares)
        torch._foreach_div_(sizes, [(1 - beta2**count) ** 0.5 for count in counts])
        torch._foreach_add_(sizes, group["eps"])
        updates = torch._foreach_div(means, [1 - beta1**count for count in counts])
        torch._foreach_div_(updates, sizes)
        if decay:
            torch._foreach_add_(updates, parameters, alpha=decay)
        trust = _compute_trust(*(torch.stack(torch._foreach_norm(of)) for of in (parameters, updates)))
        scales = -trust.new_tensor(rates) * trust
        torch._foreach_mul_(updates, list(scales.unbind()))
        torch._foreach_add_(parameters, updates)

    def _update_one(self, group: ParamGroup, moving: MovingOne) -> None:
        parameter, rate, gradient, state = moving
        _begin_means(parameter, state)
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        state["step"] += 1
        count = state["step"].item()
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = state["exp_avg_sq"].sqrt().div_((1 - beta2**count) ** 0.5).add_(group["eps"])
        update = state["exp_avg"].div(1 - beta1**count).div_(size)
        if decay:
            update.add_(parameter, alpha=decay)
        trust = _compute_trust(torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(update))
        parameter.add_(update.mul_(-rate * trust))


@final
class LARS(PaperOptimizer):
    """LARS (arXiv:1708.03888): SGD whose gradients are scaled by the ratio of each parameter's norm to its gradient's.

    ``layered_lr.LARS`` has the formula and describes the arguments.

    State of a parameter, if there is momentum: ``momentum_buffer``, as in ``torch.optim.SGD``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        settings |= {"nesterov": nesterov, "trust_coefficient": trust_coefficient, "eps": eps}
        super().__init__(params, {**settings, "foreach": foreach, "maximize": maximize})

    def _update_all(self, group: ParamGroup, moving: Moving) -> None:
        parameters, rates, gradients, states = moving
        weights, sizes = (torch.stack(torch._foreach_norm(of)) for of in (parameters, gradients))
        updates: Any = gradients
        if group["weight_decay"]:
            updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        updates = torch._foreach_mul(updates, list(_compute_lars_trust(group, weights, sizes).unbind()))
        if momentum := group["momentum"]:
            begun = [state.get("momentum_buffer") is not None for state in states]
            buffers = []
            for state, update in zip(states, updates, strict=True):
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = update
                buffers.append(state["momentum_buffer"])
            old = [buffer for buffer, is_old in zip(buffers, begun, strict=True) if is_old]
            if old:
                torch._foreach_mul_(old, momentum)
                added = [update for update, is_old in zip(updates, begun, strict=True) if is_old]
                torch._foreach_add_(old, added, alpha=1 - group["dampening"])
            updates = torch._foreach_add(updates, buffers, alpha=momentum) if group["nesterov"] else buffers
        if len(set(rates)) == 1:
            torch._foreach_add_(parameters, updates, alpha=-rates[0])
        else:  # one by one: multiplying by the rate first would round once more
            for parameter, update, rate in zip(parameters, updates, rates, strict=True):
                parameter.add_(update, alpha=-rate)

    def _update_one(self, group: ParamGroup, moving: MovingOne) -> None:
        parameter, rate, gradient, state = moving
        weight, size = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(gradient)
        update = gradient
        if group["weight_decay"]:
            update = gradient.add(parameter, alpha=group["weight_decay"])
        update = update * _compute_lars_trust(group, weight, size)
        if momentum := group["momentum"]:
            buffer = state.get("momentum_buffer")
            if buffer is None:
                buffer = state["momentum_buffer"] = update
            else:
                buffer.mul_(momentum).add_(update, alpha=1 - group["dampening"])
            update = update.add(buffer, alpha=momentum) if group["nesterov"] else buffer
        parameter.add_(update, alpha=-rate)


@final
class Lion(PaperOptimizer):
    """Lion (arXiv:2302.06675): steps by the sign of a running mean of gradients.

    ``layered_lr.Lion`` has the formula and describes the arguments.

    State of a parameter: ``exp_avg``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "foreach": foreach, "maximize": maximize})

    def _update_all(self, group: ParamGroup, moving: Moving) -> None:
        parameters, rates, gradients, states = moving
        beta1, beta2 = group["betas"]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["exp_avg"] = torch.zeros_like(parameter)
        means = [state["exp_avg"] for state in states]
        updates = torch._foreach_mul(means, beta1)
        torch._foreach_add_(updates, gradients, alpha=1 - beta1)
        torch._foreach_sign_(updates)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, [1 - rate * group["weight_decay"] for rate in rates])
        torch._foreach_mul_(updates, [-rate for rate in rates])  # exact: of 1, 0 or -1
        torch._foreach_add_(parameters, updates)
        torch._foreach_mul_(means, beta2)
        torch._foreach_add_(means, gradients, alpha=1 - beta2)

    def _update_one(self, group: ParamGroup, moving: MovingOne) -> None:
        parameter, rate, gradient, state = moving
        beta1, beta2 = group["betas"]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        update = state["exp_avg"].mul(beta1).add_(gradient, alpha=1 - beta1).sign_()
        if group["weight_decay"]:
            parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(update, alpha=-rate)
        state["exp_avg"].mul_(beta2).add_(gradient, alpha=1 - beta2)


def _begin_means(parameter: Tensor, state: ParameterState) -> None:
    """Begin Adam's state; the count is on the CPU, as torch's is, so that reading it waits for no device."""
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)


def _compute_trust(weight: Tensor, update: Tensor) -> Tensor:
    """Divide two norms, or each pair of norms; 1 where either is 0."""
    return torch.where((weight > 0) & (update > 0), weight / update, 1.0)


def _compute_lars_trust(group: ParamGroup, weight: Tensor, gradient: Tensor) -> Tensor:
    ratio = group["trust_coefficient"] * weight / (gradient + group["weight_decay"] * weight + group["eps"])
    return torch.where((weight > 0) & (gradient > 0), ratio, 1.0)
