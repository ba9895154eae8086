"""Muon as torch has it since release 2.9, for older releases, and for convolutions, which torch's refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, final

import torch
from torch.optim import Optimizer

from layered_lr_torch.sharding import divide_like, gather
from layered_lr_torch.torch_types import Closure, ParamGroup, Tensor


@final
class Muon(Optimizer):
    """Muon with the arithmetic, the arguments and the state of ``torch.optim.Muon``, bit for bit.

    Of a sharded parameter every process computes the whole update, and applies its part.

    ``layered_lr.Muon`` has the formula and describes the arguments.

    State of a parameter: ``momentum_buffer``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        flatten: bool = False,
    ) -> None:
        settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        settings |= {"ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps}
        super().__init__(params, {**settings, "adjust_lr_fn": adjust_lr_fn, "flatten": flatten})

    def add_param_group(self, param_group: ParamGroup) -> None:
        """Add a param group, as torch's optimizers do.

        Raises:
            ValueError: One of its parameters is no matrix.
        """
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        for tensor in added["params"]:
            if tensor.ndim < 2 or (tensor.ndim > 2 and not added["flatten"]):
                self.param_groups.pop()
                raise ValueError(
                    f"Muon takes matrices only; got a parameter of shape {tuple(tensor.shape)}. Give it to another "
                    "optimizer; one of more than two dimensions may be taken as a matrix with flatten=True."
                )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Make one update.

        Args:
            closure: Evaluates the model once more and returns the loss.

        Returns:
            What the closure returns; None without a closure.

        Raises:
            RuntimeError: A gradient is sparse, or a parameter is complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(group, parameter)
        return loss

    def _update(self, group: ParamGroup, parameter: Tensor) -> None:
        gradient: Any = parameter.grad
        if parameter.is_complex() or gradient.is_sparse:
            what = "complex parameters" if parameter.is_complex() else "sparse gradients"
            raise RuntimeError(f"Muon does not support {what}. Give the parameter to another optimizer.")
        state, momentum = self.state[parameter], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        mean = state["momentum_buffer"]
        mean.lerp_(gradient, 1 - momentum)
        direction = gradient.lerp(mean, momentum) if group["nesterov"] else mean
        matrix = gather(direction).flatten(1)
        update = make_orthogonal(matrix, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = float(group["lr"])
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(
            divide_like(update.reshape(direction.shape), parameter),
            alpha=-rate * compute_ratio(group["adjust_lr_fn"], *matrix.shape),
        )


def make_orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Compute the nearly orthogonal matrix of torch's Muon, in bfloat16."""
    a, b, c = coefficients
    is_tall = matrix.size(0) > matrix.size(1)
    found = matrix.bfloat16()
    found = found.T if is_tall else found
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.T
        change = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.addmm(found, change, found, beta=a)
    return found.T if is_tall else found


def compute_ratio(name: str | None, rows: int, columns: int) -> float:
    """Compute the factor of the rate that depends on the matrix's shape."""
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    if name == "spectral_unclamped":
        return math.sqrt(rows / columns)
    return math.sqrt(max(1, rows / columns))
