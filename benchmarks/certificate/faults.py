"""Faults to plant into a backend: what it could do wrong without saying so, each in a size that can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from layered_lr.backend.base import Backend, Dtype
from layered_lr.backend.loading import load_backend
from layered_lr.backend.session import NO_EXTRAS, Extras, Session, StepOutcome
from layered_lr.plans.plan import Plan

Plant = Callable[[Any], None]
"""Does something to a session of torch's, which has just been opened."""


class Faulty(Backend):
    """``torch-eager`` with a fault in each session that it opens, but where the loss is held against known answers.

    Args:
        plant: The fault.
    """

    name: ClassVar[str] = "torch-eager"

    def __init__(self, plant: Plant) -> None:
        self.own = load_backend("torch-eager", "cpu")
        self.plant = plant

    def build(
        self,
        model: Any,
        num_classes: int,
        dropout: float,
        seed: int,
        dtype: Dtype = "float32",
        batch_shape: tuple[int, ...] | None = None,
        other_shapes: Sequence[tuple[int, ...]] = (),
    ) -> Any:
        """Build a model, as torch-eager does."""
        return self.own.build(model, num_classes, dropout, seed, dtype, batch_shape, other_shapes)

    def load(self, model: Any, weights: Mapping[str, NDArray[Any]]) -> None:
        """Load weights, as torch-eager does."""
        self.own.load(model, weights)

    def state(self, model: Any) -> dict[str, NDArray[Any]]:
        """Copy a model's state, as torch-eager does."""
        return self.own.state(model)

    def open(
        self,
        plan: Plan,
        model: Any,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> Session:
        """Open a session, and plant the fault into it."""
        session = self.own.open(plan, model, num_classes, extras, step, timeline)
        if len(plan.groups) > 1:
            self.plant(session)
        return session

    def compile(self, plan: Plan, model: Any) -> tuple[Any, Any]:
        """Nothing here compiles."""
        raise NotImplementedError


def before_each_update(session: Any, act: Callable[[int], None]) -> None:
    """Call ``act`` with the number of the update, right before torch makes it."""
    count = iter(range(10**9))
    session.optimizer.register_step_pre_hook(lambda *_: act(next(count)))


def rate_from(step: int, group: int = 0) -> Callable[[float], Plant]:
    """From an update on, a group's rate is off by a share of it; the param groups do not say so."""

    def sized(share: float) -> Plant:
        def plant(session: Any) -> None:
            param_group = session.optimizer.param_groups[group]
            due: list[float] = []

            def off(update: int) -> None:
                due[:] = [param_group["lr"]]
                if update >= step:
                    param_group["lr"] = param_group["lr"] * (1 + share)

            before_each_update(session, off)
            session.optimizer.register_step_post_hook(lambda *_: param_group.update(lr=due[0]))

        return plant

    return sized


def other_eps(share: float) -> Plant:
    """Adam's eps is larger by a share of it: 9 makes 1e-7 of 1e-8."""

    def plant(session: Any) -> None:
        for group in session.optimizer.param_groups:
            group["eps"] *= 1 + share

    return plant


def bias_correction_late(_: float) -> Plant:
    """Adam's bias correction counts one update too many."""

    def plant(session: Any) -> None:
        import torch

        def count(update: int) -> None:
            if update == 0:
                for group in session.optimizer.param_groups:
                    for parameter in group["params"]:
                        zeros = [torch.zeros_like(parameter) for _ in range(2)]
                        state = {"step": torch.tensor(1.0), "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}
                        session.optimizer.state[parameter] = state

        before_each_update(session, count)

    return plant


def coupled_decay(_: float) -> Plant:
    """Weight decay goes into the gradient, as Adam's, and not beside it, as AdamW's."""

    def plant(session: Any) -> None:
        for group in session.optimizer.param_groups:
            group["decoupled_weight_decay"] = False

    return plant


def other_average(by: float) -> Plant:
    """The moving average's decay is smaller by this."""

    def plant(session: Any) -> None:
        if session._average is not None:
            session._average._weight += by

    return plant


def label_smoothing(amount: float) -> Plant:
    """The loss smooths its labels."""

    def plant(session: Any) -> None:
        import torch

        update, own = session._update, torch.nn.functional.cross_entropy

        def smoothed(*given: Any) -> StepOutcome:
            torch.nn.functional.cross_entropy = partial(own, label_smoothing=amount)
            try:
                outcome: StepOutcome = update(*given)
                return outcome
            finally:
                torch.nn.functional.cross_entropy = own

        session._update = smoothed

    return plant


def image_mirrored(at: int) -> Callable[[float], Plant]:
    """At one update, the model sees one image of the batch mirrored."""

    def sized(_: float) -> Plant:
        def plant(session: Any) -> None:
            update, count = session._update, iter(range(10**9))

            def mirrored(images: Any, labels: Any, parts: int) -> StepOutcome:
                if next(count) == at and len(images) > 1:  # the probe has batches of one image
                    images = np.concatenate([images[:1, ..., ::-1], images[1:]])
                outcome: StepOutcome = update(images, labels, parts)
                return outcome

            session._update = mirrored

        return plant

    return sized


def last_batch_dropped(in_epoch: int) -> Callable[[float], Plant]:
    """In place of an epoch's last batch, the model sees the one before it once more."""

    def sized(_: float) -> Plant:
        def plant(session: Any) -> None:
            update, seen = session._update, []

            def dropped(images: Any, labels: Any, parts: int) -> StepOutcome:
                seen.append((images, labels))
                if len(seen) % in_epoch == 0 and len(images) > 1:
                    images, labels = seen[-2]
                outcome: StepOutcome = update(images, labels, parts)
                return outcome

            session._update = dropped

        return plant

    return sized


def _norms(session: Any) -> list[Any]:
    return [module for module in session.model.modules() if getattr(module, "running_mean", None) is not None]


def norm_momentum(by: float) -> Plant:
    """BatchNorm's momentum is larger by this."""

    def plant(session: Any) -> None:
        for norm in _norms(session):
            norm.momentum += by

    return plant


def norm_eps(by: float) -> Plant:
    """BatchNorm's eps is larger by this."""

    def plant(session: Any) -> None:
        for norm in _norms(session):
            norm.eps += by

    return plant


def clip_off(share: float) -> Plant:
    """The clip's norm is larger by a share of it."""

    def plant(session: Any) -> None:
        spec = session.plan.spec
        if spec.clip_grad_norm is not None:
            wider = replace(spec, clip_grad_norm=spec.clip_grad_norm * (1 + share))
            session.clipper.follow(SimpleNamespace(spec=wider))

    return plant


def gain(share: float) -> Plant:
    """A layer's answer is larger by a share of it."""

    def plant(session: Any) -> None:
        if hasattr(session.model, "c2"):
            session.model.c2.register_forward_hook(lambda module, given, answer: answer * (1 + share))

    return plant


def masks_shifted(_: float) -> Plant:
    """Dropout takes the masks of the next update."""

    def plant(session: Any) -> None:
        draw = session._masks.draw
        session._masks.draw = lambda step, *rest: draw(step + 1, *rest)

    return plant
