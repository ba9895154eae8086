"""Faults to plant in torch's sessions: what a backend could do wrong without saying so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.certificate.faults import Plant, before_each_update


def rate_off(group: int, factor: float = 1.001) -> Plant:
    """The group's rate is another one inside the optimizer than what the param groups say."""

    def plant(session: Any) -> None:
        param_group = session.optimizer.param_groups[group]

        def set_rate(rate: float) -> None:
            param_group["lr"] = rate

        before_each_update(session, lambda _: set_rate(param_group["lr"] * factor))
        session.optimizer.register_step_post_hook(lambda *_: set_rate(param_group["lr"] / factor))

    return plant


def rate_off_and_said(group: int, factor: float = 1.001) -> Plant:
    """Likewise, and the param groups say so."""

    def plant(session: Any) -> None:
        rates = session.scheduler.live.rates
        session.scheduler.live.rates = lambda step: [
            rate * (factor if index == group else 1.0) for index, rate in enumerate(rates(step))
        ]
        session.scheduler._apply()

    return plant


def schedule_shifted(by: int) -> Plant:
    def plant(session: Any) -> None:
        rates = session.scheduler.live.rates
        session.scheduler.live.rates = lambda step: rates(max(step + by, 0))
        session.scheduler._apply()

    return plant


def decay_everywhere(session: Any) -> None:
    """Biases decay although the spec says that they do not."""
    for group in session.optimizer.param_groups:
        group["weight_decay"] = session.plan.spec.optimizer.weight_decay


def dampened_first_step(session: Any) -> None:
    """The first buffer is ``(1 - dampening) * g``, as OneFlow's, and not ``g``."""

    def start(step: int) -> None:
        if step == 0:
            for group in session.optimizer.param_groups:
                for parameter in group["params"]:
                    session.optimizer.state[parameter]["momentum_buffer"] = parameter.detach() * 0.0

    before_each_update(session, start)


def clip_per_group(session: Any) -> None:
    session.clipper._per_group = True


def other_beta2(beta2: float) -> Plant:
    def plant(session: Any) -> None:
        for group in session.optimizer.param_groups:
            group["betas"] = (group["betas"][0], beta2)

    return plant


def batch_swapped(at: int) -> Plant:
    """At one update the model sees the batch before it once more."""

    def plant(session: Any) -> None:
        update = session._update
        seen: list[Any] = []

        def swapped(images: Any, labels: Any, parts: int) -> Any:
            given = (images, labels)
            if len(seen) == at and len(images) > 1:  # the probe has batches of one image
                given = seen[-1]
            seen.append((images, labels))
            return update(*given, parts)

        session._update = swapped

    return plant


def momentum_reset(at: int) -> Plant:
    def plant(session: Any) -> None:
        def act(step: int) -> None:
            if step == at:
                session.optimizer.state.clear()

        before_each_update(session, act)

    return plant


def eps_inside_root(session: Any) -> None:
    """RMSprop with ``g / sqrt(v + eps)``, as OneFlow's."""
    import torch

    optimizer = session.optimizer
    squares: dict[Any, Any] = {}

    @torch.no_grad()
    def step() -> None:
        session.clipper.clip()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad + group["weight_decay"] * parameter
                square = squares.setdefault(parameter, torch.zeros_like(parameter))
                square.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
                parameter.sub_(group["lr"] * gradient / torch.sqrt(square + group["eps"]))

    optimizer._opt_called = True  # else torch's scheduler warns
    session.optimizer = SimpleNamespace(param_groups=optimizer.param_groups, zero_grad=optimizer.zero_grad, step=step)


def honest(session: Any) -> None:
    """No fault."""


def swapped_axes(images: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(images[..., ::-1])


def images_mirrored(session: Any) -> None:
    """The forward pass sees something else, at every step."""
    update = session._update

    def mirrored(images: Any, labels: Any, parts: int) -> Any:
        return update(swapped_axes(images) if len(images) > 1 else images, labels, parts)

    session._update = mirrored


def rate_above_zero(session: Any) -> None:
    """The optimizer moves weights where their rate is 0."""
    due: list[float] = []

    def change(step: int) -> None:
        due[:] = [group["lr"] for group in session.optimizer.param_groups]
        for group in session.optimizer.param_groups:
            group["lr"] = group["lr"] or 0.01

    def put_back(*_: Any) -> None:
        for group, rate in zip(session.optimizer.param_groups, due, strict=True):
            group["lr"] = rate

    before_each_update(session, change)
    session.optimizer.register_step_post_hook(put_back)


def momentum_off(share: float) -> Plant:
    def plant(session: Any) -> None:
        for group in session.optimizer.param_groups:
            group["momentum"] *= 1 + share

    return plant


def one_in_the_other_group(session: Any) -> None:
    """A bias of the first group trains with the second group's rate."""
    groups = session.optimizer.param_groups
    groups[-1]["params"].append(groups[0]["params"].pop())


def parts_summed(session: Any) -> None:
    """The gradients of an update's parts are added up, and not averaged."""
    own = session._backward
    session._backward = lambda images, labels, part, parts: own(images, labels, part, 1)


def float32_coarse(bits: int) -> Plant:
    """In float32 alone, what layers are given has so many bits."""

    def plant(session: Any) -> None:
        import torch

        def rounded(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            share, exponent = torch.frexp(given[0])
            return (given[0] + (torch.ldexp(torch.round(share * 2**bits) / 2**bits, exponent) - given[0]).detach(),)

        if session.dtype == torch.float32:
            for module in session.model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.register_forward_pre_hook(rounded)

    return plant


def uncounted(session: Any) -> None:
    """Batch normalisations do not count batches."""

    def forget(module: Any, *_: Any) -> None:
        module.num_batches_tracked.zero_()

    for module in session.model.modules():
        if getattr(module, "num_batches_tracked", None) is not None:
            module.register_forward_hook(forget)


def nan_from(step: int) -> Plant:
    """From an update on, the loss of the run is NaN; that of probes, which have one image, is right."""

    def plant(session: Any) -> None:
        own = session._loss

        def loss(logits: Any, labels: Any) -> Any:
            return own(logits, labels) * (float("nan") if session.step >= step and len(labels) > 1 else 1.0)

        session._loss = loss

    return plant
