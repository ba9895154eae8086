"""fastai: a Learner with the optimizer and the scheduler of a spec."""

from __future__ import annotations

from typing import Any

import layered_lr as ll
from layered_lr.errors import SpecError
from layered_lr.tools import import_tool
from layered_lr_torch.integrations.tools import rates_by_name, tell_metrics
from layered_lr_torch.own_optimizer import build_bare_optimizer
from layered_lr_torch.plan_scheduler import PlanScheduler


def use_spec(learner: Any, spec: ll.Spec, total_steps: int | None = None, steps_per_epoch: int | None = None) -> Any:
    """Let a Learner train with a spec: give it the optimizer and a callback that calls the scheduler.

    Train with ``learner.fit(epochs)``: the rates are those of the spec, whatever ``lr``, ``wd`` and ``moms`` are.
    ``fit_one_cycle`` and other fits with schedules of their own would set rates beside it, and are refused.
    ``fit(epochs, start_epoch=k)`` after ``learner.load`` goes on at epoch ``k``.

    Args:
        learner: Its ``opt_func`` and ``splitter`` do not count any more, and what its ``freeze()`` froze is freed.
        spec: Groups, optimizer, schedule, phases.
        total_steps: Updates of a fit; None is its batches. With ``GradientAccumulation`` say it.
        steps_per_epoch: Updates of an epoch; None is its batches. With ``GradientAccumulation`` say it.

    Returns:
        The callback; its ``scheduler`` is the one of the last fit, and ``rates`` has the rates of its last update.

    Raises:
        ToolUnavailable: fastai is missing or too old.
        SpecError: When a fit begins: the spec does not fit the model, the updates cannot be counted, or another
            callback sets rates.

    Example:
        >>> from layered_lr_torch.integrations import fastai as ll_fastai
        >>> def train(learner, spec):
        ...     ll_fastai.use_spec(learner, spec)
        ...     learner.fit(3)
    """
    callback_class = import_tool("fastai.callback.core", "fastai", "2.7").Callback
    wrapper = import_tool("fastai.optimizer", "fastai", "2.7").OptimWrapper

    def make_optimizer(*_: Any, **__: Any) -> Any:
        return wrapper(opt=build_bare_optimizer(spec, learner.model))

    class SpecCallback(callback_class):  # type: ignore[misc, valid-type]
        """Makes the scheduler before a fit, and calls it after each update."""

        order, run_valid = 70, False  # behind those that leave an update out, and the Recorder

        def __init__(self) -> None:
            self.scheduler: PlanScheduler | None = None
            self.rates: dict[str, float] = {}
            self._steps_per_epoch = 0
            self._has_begun = self._is_left_out = False

        def before_fit(self) -> None:
            """Make the scheduler of this fit."""
            _check_callbacks(self.learn.cbs, total_steps is not None and steps_per_epoch is not None)
            self._steps_per_epoch = steps_per_epoch or len(self.learn.dls.train)
            in_fit = total_steps or self._steps_per_epoch * self.learn.n_epoch
            self.scheduler = ll.scheduler(
                spec, self.learn.opt.opt, self.learn.model, in_fit, steps_per_epoch=self._steps_per_epoch
            )
            self._has_begun = False

        def before_train(self) -> None:
            """Go on at the epoch, where a fit begins later than at the first."""
            if self.scheduler is not None and self.learn.epoch and not self._has_begun:
                self.scheduler.go_to(self.learn.epoch * self._steps_per_epoch, self.scheduler.reactions())
            self._has_begun = True

        def before_step(self) -> None:
            """Look whether an update follows."""
            self._is_left_out = False

        def after_cancel_step(self) -> None:
            """Know that mixed precision leaves this update out."""
            self._is_left_out = True

        def after_step(self) -> None:
            """Go on to the next update."""
            if self.scheduler is not None and not self._is_left_out:
                self.rates = rates_by_name(self.learn.opt.opt)
                self.scheduler.step()

        def after_epoch(self) -> None:
            """Let schedules look at the metrics of the validation."""
            names, values = self.learn.recorder.metric_names[1:], self.learn.recorder.log[1:]
            known = {name: value for name, value in zip(names, values, strict=False) if isinstance(value, float)}
            if self.scheduler is not None and self._has_begun:
                tell_metrics(self.scheduler, known, "valid_")

    callback = SpecCallback()
    if learner.opt is not None:  # freeze() of vision_learner; a phase freezes instead
        learner.unfreeze()
    learner.opt, learner.opt_func = None, make_optimizer
    learner.add_cb(callback)
    return callback


def _check_callbacks(callbacks: Any, has_lengths: bool) -> None:
    """Refuse callbacks that set rates too, and accumulation where updates are not counted."""
    names = {type(callback).__name__ for callback in callbacks}
    if found := names & {"ParamScheduler", "ReduceLROnPlateau", "LRFinder"}:
        raise SpecError(
            f"fastai's {', '.join(sorted(found))} sets rates beside the spec. Call learner.fit(epochs), and put the "
            "schedule into the spec."
        )
    if "GradientAccumulation" in names and not has_lengths:
        raise SpecError(
            "GradientAccumulation makes fewer updates than there are batches: give use_spec(..., total_steps=..., "
            "steps_per_epoch=...), both in updates."
        )
