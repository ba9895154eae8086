"""Notices a scheduler that is called more often, more rarely or with less than its plan counts on, and says so once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

from layered_lr.plans.plan import Plan

_NEVER = sys.maxsize
_FEW = 10  # updates without a metric, where it should come at each
_LONG = 1000  # updates without a metric, where the length of an epoch is not known


class StepWatch:
    """Warns at updates that should not come, or should not come so.

    Args:
        plan: Of the whole run.
        step: The first update.
    """

    def __init__(self, plan: Plan, step: int = 0) -> None:
        self._total_steps = plan.total_steps
        self._metric_due = _find_metric_due(plan, step)
        self._end = _NEVER if plan.total_steps is None else plan.total_steps
        self._counts_epochs = plan.steps_per_epoch is not None and plan.steps_per_epoch > 1 and _counts_epochs(plan)
        self._rare_calls = 0
        self.next_look = min(self._metric_due, self._end) + 1

    @property
    def counts_epochs(self) -> bool:
        """Whether the plan counts epochs, so that a user may think that ``step()`` comes once an epoch."""
        return self._counts_epochs

    def look(self, step: int, has_metric: bool) -> None:
        """Look at the count of updates; needed only from ``next_look`` on.

        Args:
            step: The next update.
            has_metric: Whether reactive schedules have been given a metric.
        """
        if step > self._end:
            self._end = _NEVER
            warnings.warn(
                f"scheduler.step() was called more than total_steps={self._total_steps} times; from now on the last "
                "rates stay. If the run is longer, make the plan with its real length. accelerate and tools "
                "like it call step() once for each process: there use Accelerator("
                "step_scheduler_with_optimizer=False) and call scheduler.step() yourself, once an update.",
                UserWarning,
                stacklevel=4,
            )
        if step > self._metric_due:
            self._metric_due = _NEVER
            if not has_metric:
                warnings.warn(
                    f"after {step - 1} updates ReduceLROnPlateau has not been given a metric, so its rate never "
                    "changes. Call scheduler.step(metrics=loss) after each evaluation, in addition to step() after "
                    "each update.",
                    UserWarning,
                    stacklevel=4,
                )
        self.next_look = min(self._metric_due, self._end) + 1

    def count_updates(self, updates: int) -> None:
        """Note how many updates the optimizer has made since the last ``scheduler.step()``."""
        self._rare_calls = self._rare_calls + 1 if updates > 1 else 0
        if self._counts_epochs and self._rare_calls == 2:
            self._counts_epochs = False
            warnings.warn(
                f"scheduler.step() comes once in {updates} updates. It counts updates, also for schedules and phases "
                "in epochs: call it after every optimizer.step(), not once an epoch.",
                UserWarning,
                stacklevel=4,
            )


def _find_metric_due(plan: Plan, step: int) -> int:
    """The update by which a metric should have come: some steps or two epochs after reactive schedules begin."""
    epochs = _LONG if plan.steps_per_epoch is None else 2 * plan.steps_per_epoch
    due = [
        max(part.start, step) + (_FEW if unit == "step" else epochs)
        for part in plan.phase_plans
        for unit in part.reacting_units
    ]
    return min(due, default=_NEVER - 1)


def _counts_epochs(plan: Plan) -> bool:
    return any("epoch" in unit for unit in _find_units(plan))


def _find_units(plan: Plan) -> Iterator[str]:
    for part in plan.phase_plans:
        yield from (group.schedule.unit for group in part.groups if not group.is_reactive)
    yield from (str(phase.settings.until) for phase in plan.phases)
