"""mmengine: a hook that calls the scheduler of a spec after each update."""

from __future__ import annotations

import functools
from typing import Any

import layered_lr as ll
from layered_lr.errors import SpecError
from layered_lr.tools import import_tool
from layered_lr_torch.integrations.tools import check_clips_once, tell_metrics
from layered_lr_torch.plan_scheduler import PlanScheduler


def make_hook(spec: ll.Spec, total_steps: int | None = None, steps_per_epoch: int | None = None) -> Any:
    """Make the hook, for ``Runner(custom_hooks=[...])``; give the Runner no ``param_scheduler``.

    The Runner's optimizer must have the param groups of the spec: ``OptimWrapper(SGD(ll.param_groups(spec, model)))``.
    The hook is part of the Runner's checkpoints. After each validation ``ReduceLROnPlateau`` reads its metrics.

    Args:
        spec: Groups, schedules, phases.
        total_steps: Updates of the run; None is counted from the train loop, with accumulation.
        steps_per_epoch: Updates of an epoch; None is counted likewise.

    Raises:
        ToolUnavailable: mmengine is missing or too old.
        SpecError: When training begins: the spec does not fit the model or the optimizer, or spec and ``OptimWrapper``
            both clip.

    Example:
        >>> from layered_lr_torch.integrations import mmengine as ll_mmengine
        >>> def make_runner(Runner, spec, **settings):
        ...     return Runner(custom_hooks=[ll_mmengine.make_hook(spec)], **settings)
    """
    return _make_class(import_tool("mmengine.hooks", "mmengine", "0.8").Hook)(spec, total_steps, steps_per_epoch)


def _count_updates(runner: Any, total_steps: int | None, steps_per_epoch: int | None) -> tuple[int, int | None]:
    """Updates of the run and of an epoch; mmengine counts iterations, and makes an update of the last ones."""
    each = runner.optim_wrapper._accumulative_counts
    in_run = -(-runner.max_iters // each)
    try:
        in_epoch = len(runner.train_dataloader)
    except TypeError:
        return total_steps or in_run, steps_per_epoch
    if steps_per_epoch is None and in_epoch % each == 0:
        steps_per_epoch = in_epoch // each
    return total_steps or in_run, steps_per_epoch


@functools.cache
def _make_class(base: Any) -> Any:
    class SpecHook(base):  # type: ignore[misc]
        """Makes the scheduler before training, and calls it after each update."""

        priority = "ABOVE_NORMAL"  # before the hooks that log and save

        def __init__(self, spec: ll.Spec, total_steps: int | None, steps_per_epoch: int | None) -> None:
            self.spec, self.total_steps, self.steps_per_epoch = spec, total_steps, steps_per_epoch
            self.scheduler: PlanScheduler | None = None
            self._saved: dict[str, Any] | None = None
            self._updates = 0

        def before_train(self, runner: Any) -> None:
            """Make the scheduler; a run that is resumed goes on."""
            if runner.param_schedulers:
                raise SpecError("the Runner has a param_scheduler beside the spec: leave it out.")
            lengths = _count_updates(runner, self.total_steps, self.steps_per_epoch)
            wrapper = runner.optim_wrapper
            self.scheduler = scheduler = ll.scheduler(self.spec, wrapper.optimizer, runner.model, *lengths)
            check_clips_once(scheduler, wrapper.clip_grad_kwargs is not None, "no clip_grad in the OptimWrapper")
            if self._saved is not None and runner.iter:
                scheduler.load_state_dict(self._saved)

        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            """Go on, where the iteration made an update."""
            wrapper = runner.optim_wrapper
            if self.scheduler is not None and wrapper.should_update():
                self.scheduler.step()

        def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
            """Let schedules look at the metrics."""
            if self.scheduler is not None:
                tell_metrics(self.scheduler, metrics or {})

        def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
            """Save the scheduler with the Runner."""
            if self.scheduler is not None:
                checkpoint["layered_lr"] = self.scheduler.state_dict()

        def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
            """Keep what was saved until training begins."""
            self._saved = checkpoint.get("layered_lr")

    return SpecHook
