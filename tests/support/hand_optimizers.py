"""An optimizer for one parameter alone: torch's own, or a paper's formula. Nothing of this library is imported here."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.random_cases import Case


def make_optimizer(parameter: torch.nn.Parameter, settings: Case) -> Any:
    """An optimizer for one parameter alone."""
    kind = settings["type"]
    hyper = {key: value for key, value in settings.items() if key != "type"}
    if kind in ("LAMB", "LARS", "Lion"):
        return PaperOptimizer(parameter, kind, hyper)
    if kind == "Adam" and hyper.pop("decoupled_weight_decay", False):
        kind = "AdamW"  # torch's Adam has that option since 2.6
    hyper = {key: tuple(value) if isinstance(value, list) else value for key, value in hyper.items()}
    if kind == "Muon":  # torch has one implementation of it
        return torch.optim.Muon([parameter], **hyper)
    return getattr(torch.optim, kind)([parameter], foreach=False, **hyper)


class PaperOptimizer:
    """LAMB, LARS and Lion by the formulas of their papers.

    Args:
        parameter: What it updates.
        kind: Which one.
        settings: Its hyperparameters.
    """

    def __init__(self, parameter: torch.nn.Parameter, kind: str, settings: Case) -> None:
        defaults: Case = {
            "LAMB": {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 1e-2},
            "LARS": {"momentum": 0.9, "dampening": 0.0, "nesterov": False, "trust_coefficient": 1e-3, "eps": 1e-8},
            "Lion": {"betas": (0.9, 0.99)},
        }[kind]
        self.param_groups: list[Case] = [{"weight_decay": 0.0, "maximize": False, **defaults, **settings}]
        self.parameter, self.kind = parameter, kind
        self.state: dict[Any, Case] = {parameter: {}}

    def step(self) -> None:
        """Make an update."""
        with torch.no_grad():
            assert self.parameter.grad is not None
            settings, memory = self.param_groups[0], self.state[self.parameter]
            gradient = -self.parameter.grad if settings["maximize"] else self.parameter.grad
            {"LAMB": _lamb, "LARS": _lars, "Lion": _lion}[self.kind](self.parameter, gradient, settings, memory)


def _lamb(p: torch.Tensor, g: torch.Tensor, settings: Case, memory: Case) -> None:
    one, two = settings["betas"]
    t = memory["step"] = memory.get("step", 0) + 1
    m = memory["exp_avg"] = one * memory.get("exp_avg", torch.zeros_like(p)) + (1 - one) * g
    v = memory["exp_avg_sq"] = two * memory.get("exp_avg_sq", torch.zeros_like(p)) + (1 - two) * g * g
    size = (v / (1 - two**t)).sqrt() + settings["eps"]
    update = m / (1 - one**t) / size + settings["weight_decay"] * p
    norms = float(p.norm()), float(update.norm())
    trust = norms[0] / norms[1] if all(norms) else 1.0
    p.sub_(settings["lr"] * trust * update)


def _lars(p: torch.Tensor, g: torch.Tensor, settings: Case, memory: Case) -> None:
    decay, size, slope = settings["weight_decay"], float(p.norm()), float(g.norm())
    trust = 1.0
    if size and slope:
        trust = settings["trust_coefficient"] * size / (slope + decay * size + settings["eps"])
    d = trust * (g + decay * p)
    if settings["momentum"]:
        if "momentum_buffer" in memory:
            d_new = settings["momentum"] * memory["momentum_buffer"] + (1 - settings["dampening"]) * d
        else:
            d_new = d.clone()
        memory["momentum_buffer"] = d_new
        d = d + settings["momentum"] * d_new if settings["nesterov"] else d_new
    p.sub_(settings["lr"] * d)


def _lion(p: torch.Tensor, g: torch.Tensor, settings: Case, memory: Case) -> None:
    one, two = settings["betas"]
    m = memory.get("exp_avg", torch.zeros_like(p))
    direction = torch.sign(one * m + (1 - one) * g)
    p.sub_(settings["lr"] * (direction + settings["weight_decay"] * p))
    memory["exp_avg"] = two * m + (1 - two) * g


def hand_over(old: Any, old_settings: Case, new: Any, new_settings: Case) -> None:
    """Begin an optimizer with the mean gradient of the one before."""
    parameter = old.param_groups[0]["params"][0] if "params" in old.param_groups[0] else old.parameter
    memory = old.state.get(parameter, {})
    if memory.get("exp_avg") is not None:
        mean = memory["exp_avg"].clone()
        if old_settings["type"] != "Lion":
            mean /= 1 - old_settings["betas"][0] ** float(memory["step"])
    elif memory.get("momentum_buffer") is not None:
        mean = memory["momentum_buffer"] * _mean_of_sum(old_settings)
    else:
        return
    if new_settings["type"] == "Lion":
        new.state[parameter]["exp_avg"] = mean
    else:
        new.state[parameter]["momentum_buffer"] = mean / _mean_of_sum(new_settings)


def _mean_of_sum(settings: Case) -> float:
    """What turns the running sum of SGD into a mean, in the long run."""
    default = 0.9 if settings["type"] == "LARS" else 0.0
    return float((1 - settings.get("momentum", default)) / (1 - settings.get("dampening", 0.0)))
